"""How often intervals were seen to hold the true value, which pages say where it is less often than they promise.

Measured by `python -m benchmarks.coverage` on samples of a population of questions whose every score is known.
"""

LOW = 0.93
"""Shares below this are said beside the number."""

MEASURED: dict[int, dict[str, tuple[float, float]]] = {
    20: {
        "activation_intensity": (0.97, 0.95),
        "information_complexity": (0.92, 0.92),
        "distribution_kurtosis": (0.91, 0.91),
        "inter_sample_diversity": (0.90, 0.90),
        "node_output_entropy": (0.94, 0.94),
        "loss": (0.95, 0.96),
        "effective_edges": (0.92, 0.92),
        "gini": (0.91, 0.91),
    },
    50: {
        "activation_intensity": (0.94, 0.93),
        "information_complexity": (0.94, 0.94),
        "distribution_kurtosis": (0.95, 0.94),
        "inter_sample_diversity": (0.94, 0.94),
        "node_output_entropy": (0.94, 0.94),
        "loss": (0.94, 0.94),
        "effective_edges": (0.93, 0.92),
        "gini": (0.91, 0.91),
    },
    100: {
        "activation_intensity": (0.94, 0.93),
        "information_complexity": (0.94, 0.94),
        "distribution_kurtosis": (0.94, 0.94),
        "inter_sample_diversity": (0.94, 0.94),
        "node_output_entropy": (0.95, 0.95),
        "loss": (0.95, 0.95),
        "effective_edges": (0.92, 0.92),
        "gini": (0.91, 0.91),
    },
}
"""By the number of questions and the metric: the share of 95 % intervals of the difference, and of those of the
relative difference, that held the true value; of 2 000 samples each, so known to within a point.
"""


def measured_size(questions: int) -> int:
    """The nearest number of questions for which coverage was measured that is not larger, or the smallest."""
    return max((size for size in MEASURED if size <= questions), default=min(MEASURED))


def coverage(metric: str, questions: int) -> float:
    """The lesser of both shares, as measured with about so many questions."""
    return min(MEASURED[measured_size(questions)][metric])
