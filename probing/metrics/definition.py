"""The choices that the definitions of the metrics leave open."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

TOP = 100
"""The histogram ends at so many times the two models' mean |score|, unless it should end elsewhere.

The mean settles as questions are added, where the largest |score| grows for ever: an interval around a number that
moves with the sample's size is an interval of nothing. A hundred bins are then as wide as the mean |score| each.
"""


MANY = 100_000
"""Edges above which statistics over all of them are resampled less often."""

FEWER = 2_000
"""So often: a resample of a graph of heads is a pass over a million edges."""


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

    def resamples_over(self, edges: int) -> int:
        """Resamples of a statistic over so many edges."""
        return min(self.resamples, FEWER) if edges > MANY else self.resamples


def range_of(definition: Definition) -> str:
    """Where the bins of the histogram end, in words."""
    if definition.histogram_max == "mean":
        return f"{TOP} times the mean |score| of the two models"
    if definition.histogram_max == "observed":
        return "the largest |score| of the two models on these questions"
    return f"{definition.histogram_max:g}"
