"""Statistics that are not means over questions, for all questions and for every resample of them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from probing.metrics.bootstrap import Counts
from probing.metrics.complexity import Resampled
from probing.metrics.definition import Definition
from probing.metrics.values import AT_ONCE, correlations, slices
from probing.scores import Scores

Statistic = Callable[[Scores, Scores, Definition, Counts], tuple[Resampled, Resampled]]
"""A number of both models: of all questions, and of each row of counts, or of the first of them."""

_BLOCK = 8
"""How many times `AT_ONCE` the resampled strengths are that are computed together, as each time reads all scores."""


def pairs(base: Scores, tuned: Scores, definition: Definition, counts: Counts) -> tuple[Resampled, Resampled]:
    """Inter-sample diversity of each model."""

    def diversity(correlation: np.ndarray, counts: Counts) -> np.ndarray:
        # A question drawn twice is no pair of samples: pairs of a sample with itself are left out.
        own_pairs = (counts**2) @ np.diag(correlation)
        pairs = counts.sum(1) ** 2 - (counts**2).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return 1 - (((counts @ correlation) * counts).sum(1) - own_pairs) / pairs

    def of_one(scores: Scores) -> Resampled:
        correlation = correlations(scores, definition)
        return float(diversity(correlation, np.ones((1, len(correlation))))[0]), diversity(correlation, counts)

    return of_one(base), of_one(tuned)


def of_mean_strengths(function: Callable[[np.ndarray], Float[np.ndarray, " row"]]) -> Statistic:
    """A function of rows of edges' strengths, applied to the mean |score| of each edge in each model.

    Of very many edges, it is applied to the first resamples only (see `Definition.resamples_over`), besides the rows
    in which each question is left out.
    """

    def of_one(scores: Scores, counts: Counts) -> Resampled:
        strength = np.abs(scores.edges)
        whole = function(strength.sum(0, dtype=np.float64)[None])[0]
        rows = max(1, _BLOCK * AT_ONCE // strength.shape[1])
        found = []
        for block in np.array_split(counts.astype(strength.dtype), max(1, -(-len(counts) // rows))):
            resampled = block @ strength
            found += [function(resampled[part]) for part in slices(*resampled.shape)]
        return float(whole), np.concatenate(found).astype(np.float64)

    def of_both(base: Scores, tuned: Scores, definition: Definition, counts: Counts) -> tuple[Resampled, Resampled]:
        counts = counts[: len(base.ids) + definition.resamples_over(base.graph.size)]
        return of_one(base, counts), of_one(tuned, counts)

    return of_both
