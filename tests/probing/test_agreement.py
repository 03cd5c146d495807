"""Scores against what really happens, by SciPy and by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from probing.metrics import Definition, agreement, resample_counts
from probing.metrics.agreement import rank_correlation


def test_ranks_correlate_as_scipy_says_ties_or_not() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 9)), rng.integers(0, 4, size=(20, 9)).astype(float)
    b[3:] += a[3:]
    np.testing.assert_allclose(rank_correlation(a, b), [spearmanr(x, y)[0] for x, y in zip(a, b, strict=True)])


def test_signs_and_sizes_by_hand() -> None:
    scores = np.array([[1.0, -2.0, 3.0, 1.0], [3.0, -2.0, -1.0, -3.0]], np.float32)  # means 2, -2, 1, -1
    effects = np.array([[4.0, 1.0, 2.0, -1.0], [6.0, -5.0, 4.0, 5.0]], np.float32)  # means 5, -2, 3, 2
    found = agreement(scores, effects, Definition(resamples=20))
    assert found.sign.value == 0.75
    assert found.size.value == pytest.approx((5 + 3 + 3 + 3) / (2 + 2 + 2 + 2))
    assert agreement(scores, -effects, Definition(resamples=20)).sign.value == 0.25
    assert np.isnan(agreement(scores[:, :1], effects[:, :1], Definition(resamples=20)).rank.value)


def test_intervals_are_those_of_questions_drawn_again() -> None:
    rng = np.random.default_rng(1)
    definition = Definition(resamples=60)
    scores = rng.normal(size=(12, 7)) + rng.normal(size=7)
    effects = 3 * scores + 2 * rng.normal(size=scores.shape)
    found = agreement(scores, effects, definition)
    again = []
    for counts in resample_counts(12, definition):
        drawn = np.repeat(np.arange(12), counts.astype(int))
        a, b = scores[drawn], effects[drawn]
        strengths = np.abs(a).mean(0), np.abs(b).mean(0)
        same = (a.mean(0) > 0) == (b.mean(0) > 0)
        again.append((spearmanr(*strengths)[0], same.mean(), strengths[1].mean() / strengths[0].mean()))
    for estimate, values in zip((found.rank, found.sign, found.size), np.transpose(again), strict=True):
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
        assert estimate.low < estimate.high
    assert not np.isfinite(agreement(scores[:1], effects[:1], definition).rank.low), "one question says nothing"
