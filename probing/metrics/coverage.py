"""How often intervals were seen to hold the true value, which pages say where it is less often than they promise.

Measured by `python -m benchmarks.coverage` on samples of a population of questions whose every score is known.
"""

TRIALS = 2000
"""Samples drawn of each size; a share of them near 95 % is known to within a point."""

LOW = 0.93
"""Shares below this are said beside the number."""

MEASURED: dict[int, dict[str, tuple[float, float]]] = {}
"""By the number of questions and the metric: the share of 95 % intervals of the difference, and of those of the
relative difference, that held the true value.
"""


def coverage(metric: str, questions: int) -> float:
    """The lesser of both shares, for the nearest number of questions measured that is not larger (or the smallest)."""
    size = max((size for size in MEASURED if size <= questions), default=min(MEASURED))
    return min(MEASURED[size][metric])
