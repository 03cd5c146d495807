"""The metrics by name, and the choices that their definitions leave open."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

METRICS = (
    "activation_intensity",
    "information_complexity",
    "distribution_kurtosis",
    "inter_sample_diversity",
    "node_output_entropy",
    "loss",
    "effective_edges",
    "gini",
)
"""Every metric's key, in the order they are shown."""

MEANS = ("activation_intensity", "distribution_kurtosis", "node_output_entropy", "loss")
"""Metrics that are the mean over questions of the questions' own values."""

PATTERN = {"activation_intensity": +1, "information_complexity": +1, "distribution_kurtosis": -1}
"""The direction that each metric takes under online RL, according to the paper."""

TOP = 100
"""The histogram ends at so many times the two models' mean |score|, unless it should end elsewhere.

The mean settles as questions are added, where the largest |score| grows for ever: an interval around a number that
moves with the sample's size is an interval of nothing. A hundred bins are then as wide as the mean |score| each.
"""


@dataclass(frozen=True)
class Definition:
    """The choices that the metrics leave open. The defaults are the paper's where it states them."""

    bins: int = 100
    """Equal-width bins of the histogram; what lies above the last belongs to it."""
    histogram_max: float | Literal["mean", "observed"] = "mean"
    """Upper end of the bins, the lower being 0: a number, `mean` for `TOP` times the mean |score| over the edges of
    both models, or `observed` for the largest |score| of the two, as the paper's published values suggest."""
    log_base: float = float(np.e)
    """Base of the logarithm in the entropies."""
    epsilon: float = 1e-12
    """ε inside the logarithm of information complexity."""
    structural_zeros: bool = True
    """Whether cells without an edge count as cells, in intensity, complexity, kurtosis and correlation."""
    resamples: int = 10_000
    """Bootstrap resamples."""
    confidence: float = 0.95
    """Coverage of the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""


def range_of(definition: Definition) -> str:
    """Where the bins of the histogram end, in words."""
    if definition.histogram_max == "mean":
        return f"{TOP} times the mean |score| of the two models"
    if definition.histogram_max == "observed":
        return "the largest |score| of the two models on these questions"
    return f"{definition.histogram_max:g}"


def interval_of(metric: str, definition: Definition) -> str:
    """What a metric's interval is one of: the number that all questions of the kind would give."""
    of_means = "taken of the mean |score| of each edge over all such questions"
    if metric == "information_complexity":
        if definition.histogram_max == "observed":
            return (
                "the entropy over all such questions in these very bins, which end at the largest |score| of the "
                "questions at hand; other questions have other bins, for which it says nothing"
            )
        return f"the entropy over all such questions, in bins that end at {range_of(definition)}"
    return {
        "activation_intensity": "the mean over all such questions",
        "distribution_kurtosis": "the mean over all such questions of a question's own kurtosis",
        "inter_sample_diversity": "the mean over all pairs of two such questions",
        "node_output_entropy": "the mean over all such questions",
        "loss": "the mean over all such questions",
        "effective_edges": f"the number of edges, {of_means}",
        "gini": f"the coefficient, {of_means}",
    }[metric]
