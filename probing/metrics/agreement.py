"""How far estimates of what edges do agree with what they really do."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.metrics.bootstrap import Estimate, interval, resample_counts
from probing.metrics.definition import Definition

Rows = Float[np.ndarray, "row edge"]


@dataclass(frozen=True)
class Agreement:
    """Of scores with effects, over edges."""

    rank: Estimate
    """Spearman's correlation of strengths: mean |score| over questions with mean |effect|. NaN of fewer than two edges,
    or where all are alike."""
    sign: Estimate
    """The share of edges whose mean score and mean effect have the same sign, of those where one is not zero."""
    size: Estimate
    """The mean strength of effects over that of scores: so many times larger is what really happens."""


def agreement(
    scores: Float[np.ndarray, "sample edge"], effects: Float[np.ndarray, "sample edge"], definition: Definition
) -> Agreement:
    """Compare scores of some edges with effects of the same edges on the same questions."""
    samples = len(scores)
    weights = np.concatenate([np.ones((1, samples)), resample_counts(samples, definition)]) / samples
    strengths = [weights @ np.abs(values).astype(np.float64) for values in (scores, effects)]
    means = [weights @ values.astype(np.float64) for values in (scores, effects)]
    some = (means[0] != 0) | (means[1] != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (
            rank_correlation(*strengths),
            (some & (np.sign(means[0]) == np.sign(means[1]))).sum(1) / some.sum(1),
            strengths[1].sum(1) / strengths[0].sum(1),
        )
    return Agreement(*(_estimate(values, samples, definition) for values in found))


def rank_correlation(a: Rows, b: Rows) -> Float[np.ndarray, " row"]:
    """Spearman's correlation of each row of one with the same row of the other; equal numbers share a rank."""
    ranks = [pd.DataFrame(rows).rank(axis=1).to_numpy() for rows in (a, b)]
    x, y = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))


def _estimate(values: Float[np.ndarray, " resample"], samples: int, definition: Definition) -> Estimate:
    """Of the number with all questions, which comes first, and those of the resamples."""
    low, high = interval(values[1:], samples, definition)
    return Estimate(float(values[0]), float(low), float(high))
