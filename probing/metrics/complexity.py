"""Information complexity, resampled with its bins: where they end follows the mean |score|, which other questions move.

Drawing the histogram of each resample anew would take a pass over all scores for each. Instead a resample's questions
are counted in the bins at hand, and what other bins would have made of it is taken from the whole sample, whose
complexity is computed with its bins stretched by a few factors.
"""

from collections.abc import Collection

import numpy as np
from jaxtyping import Float

from probing.metrics.bootstrap import Counts
from probing.metrics.definition import Definition
from probing.metrics.values import entropy, histogram_top, histograms, mean_sizes, parts, sizes, zeros
from probing.scores import Scores

_STRETCHES = np.linspace(-0.7, 0.7, 9)
"""Logarithms of the factors: from half the bins' width to twice it."""

Histogram = Float[np.ndarray, "row bin"]

Resampled = tuple[float, Float[np.ndarray, " resample"]]
"""A number, and its values in the resamples."""


def statistic(base: Scores, tuned: Scores, definition: Definition, counts: Counts) -> tuple[Resampled, Resampled]:
    """Information complexity of both models."""
    return complexities(base, tuned, definition, counts, [definition.bins])[definition.bins]


def complexities(
    base: Scores, tuned: Scores, definition: Definition, counts: Counts, choices: Collection[int]
) -> dict[int, tuple[Resampled, Resampled]]:
    """Information complexity of both models for each number of bins in `choices`, all of which divide the largest."""
    finest, top = max(choices), histogram_top(base, tuned, definition)
    found: dict[int, list[Resampled]] = {bins: [] for bins in choices}
    stretched = _stretched(base, tuned, counts) if definition.histogram_max == "mean" else None
    for scores in (base, tuned):
        fine, pooled = _histograms(scores, definition, finest, top, stretched is not None)
        for bins, both in found.items():

            def coarse(histogram: Histogram, bins: int = bins) -> Histogram:
                return histogram.reshape(len(histogram), bins, -1).sum(2)

            each = coarse(fine)
            resampled = _complexity(counts @ each, definition)
            whole = _complexity(each.sum(0, keepdims=True), definition)[0]
            if stretched is not None and whole > 0:
                others = _complexity(coarse(pooled), definition)
                resampled *= np.interp(stretched, _STRETCHES, others) / whole  # a factor, so that none falls below zero
            both.append((float(whole), resampled))
    return {bins: (both[0], both[1]) for bins, both in found.items()}


def _histograms(
    scores: Scores, definition: Definition, bins: int, top: float, stretch: bool
) -> tuple[Histogram, Histogram]:
    """Each question's histogram, and that of all questions with its bins stretched by each of the factors."""
    without, each = zeros(scores, definition), []
    pooled = np.zeros((len(_STRETCHES), bins))
    for part in parts(scores):
        size = sizes(part)
        each.append(histograms(size, bins, top, without))
        for row, factor in enumerate(_STRETCHES if stretch else ()):
            pooled[row] += histograms(size, bins, top * np.exp(factor), without).sum(0)
    return np.concatenate(each), pooled


def _complexity(histogram: Histogram, definition: Definition) -> Float[np.ndarray, " row"]:
    return entropy(histogram / histogram.sum(1, keepdims=True), definition, definition.epsilon)


def _stretched(base: Scores, tuned: Scores, counts: Counts) -> Float[np.ndarray, " resample"]:
    """The logarithm of how much wider the bins of each resample are than those of all questions together."""
    of_question = mean_sizes(base) + mean_sizes(tuned)
    means, whole = counts @ of_question / len(of_question), of_question.mean()
    return np.log(np.divide(means, whole, out=np.ones_like(means), where=(means > 0) & (whole > 0)))
