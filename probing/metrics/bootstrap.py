"""Intervals over questions: how far a number of two models would move with other questions.

Questions are drawn with replacement, the same ones for both models. A resample is a row of counts, how often each
question was drawn, so whatever is linear in the questions is computed for all resamples with a matrix product.

Intervals are percentiles of the resampled numbers. With fewer than `STUDENTISED_BELOW` questions those of means are
too narrow, because a sample's spread is smaller than the questions', and are studentised instead (bootstrap-t): the
percentiles are those of deviations measured in the resample's own standard error. The relative change of two means is
studentised on the scale of its logarithm, so that what cannot be negative cannot fall by more than 100 %.

Statistics that are not means can have more of their spread in few questions than a resample shows, and more on one
side. Their percentiles are then accelerated, as BCa's are, and stretched about the median, until the resamples'
standard deviation is the jackknife's standard error and a normal tail Student's. Those of the relative change, again,
on the scale of its logarithm. BCa's other correction, of the bias that resamples have, is left out: samples do not have
it here, and BCa's intervals hold less than percentiles (docs/method.md).

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 11 to 14; Rao and Wu, J. Am. Stat.
Assoc. 83 (1988), who rescale resamples to a known variance.
"""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from probing.metrics.definition import Definition

Counts = Float[np.ndarray, "resample sample"]
Values = Float[np.ndarray, " sample"]

STUDENTISED_BELOW = 50
"""Questions below which the intervals of means are studentised, and those of all other statistics stretched."""

NONE = (-np.inf, np.inf)
"""The interval that says nothing."""

_ROUNDING = 1e-12
"""Share of what it is a difference of, below which a difference is no more than rounding."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval over questions, infinite where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """Intervals of the difference tuned - base, and of the same over |base|; infinite where there is none."""

    difference: tuple[float, float]
    relative: tuple[float, float]
    has_relative: bool
    """Whether the base, in all resamples, is on one side of zero, so that shares of it have a meaning."""


def resample_counts(samples: int, definition: Definition) -> Counts:
    """How often each sample is drawn in each resample."""
    rng = np.random.default_rng(definition.seed)
    return rng.multinomial(samples, np.full(samples, 1 / samples), size=definition.resamples).astype(np.float64)


def interval(resampled: np.ndarray, samples: int, definition: Definition) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the percentile interval, over the first axis, of which each row resamples `samples`.

    Infinite where a resample has no value, and for a single sample, which says nothing about others.
    """
    tail = (1 - definition.confidence) / 2
    if samples < 2 or not np.isfinite(resampled).all():
        shape = resampled.shape[1:]
        return np.full(shape, -np.inf), np.full(shape, np.inf)
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def with_each_left_out(counts: Counts) -> Counts:
    """Resamples, and before them each sample left out in turn, the others counting for it; of one sample, itself."""
    samples = counts.shape[1]
    others = (1 - np.eye(samples)) * samples / (samples - 1) if samples > 1 else np.ones((1, 1))
    return np.concatenate([others, counts])


def of_resampled(
    base: Float[np.ndarray, " resample"], tuned: Float[np.ndarray, " resample"], samples: int, definition: Definition
) -> Intervals:
    """Percentile intervals from a metric's resampled values in both models."""

    def ends(resampled: np.ndarray) -> tuple[float, float]:
        low, high = interval(resampled, samples, definition)
        return float(low), float(high)

    with np.errstate(invalid="ignore"):  # what has no value in one model has none in their difference
        change = tuned - base
    has_relative = bool((base > 0).all() or (base < 0).all())
    return Intervals(ends(change), ends(change / np.abs(base)) if has_relative else NONE, has_relative)


def stretched(
    base: Float[np.ndarray, " draw"], tuned: Float[np.ndarray, " draw"], samples: int, definition: Definition
) -> Intervals:
    """Stretched intervals from a metric's values `with_each_left_out`, and resampled, in both models."""
    found = of_resampled(base[samples:], tuned[samples:], samples, definition)
    with np.errstate(invalid="ignore"):
        change = tuned - base
    found = replace(found, difference=_stretched(change, samples, definition))
    if not ((base > 0).all() and (tuned > 0).all()):
        return found  # the ratio of what may be zero, or negative, has no logarithm
    low, high = _stretched(np.log(tuned / base), samples, definition)
    return replace(found, relative=(float(np.expm1(low)), float(np.expm1(high))))


def _stretched(drawn: Float[np.ndarray, " draw"], samples: int, definition: Definition) -> tuple[float, float]:
    """Percentiles of resampled values as far from the median as the jackknife and Student's t would have them."""
    without, resampled = drawn[:samples], drawn[samples:]
    if samples < 2 or not np.isfinite(drawn).all():
        return NONE
    bell, moves, middle = NormalDist(), without.mean() - without, float(np.median(resampled))
    error, spread = np.sqrt((samples - 1) / samples * (moves**2).sum()), resampled.std()
    if error == 0 or spread == 0:
        low, high = interval(resampled, samples, definition)
        return float(low), float(high)
    acceleration = (moves**3).sum() / (moves**2).sum() ** 1.5 / 6  # which is at most a sixth
    normal = bell.inv_cdf((1 + definition.confidence) / 2)
    levels = [bell.cdf(end / (1 - acceleration * end)) for end in (-normal, normal)]
    factor = error / spread * student(normal, samples - 1) / normal
    low, high = middle + factor * (np.quantile(resampled, levels) - middle)
    return float(low), float(high)


def student(normal: float, freedom: int) -> float:
    """The quantile of Student's t, given the normal distribution's: to four digits from eight degrees of freedom on.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.5.
    """
    x, square = normal, normal**2
    terms = (
        x * (square + 1) / 4,
        x * ((5 * square + 16) * square + 3) / 96,
        x * (((3 * square + 19) * square + 17) * square - 15) / 384,
        x * ((((79 * square + 776) * square + 1482) * square - 1920) * square - 945) / 92_160,
    )
    return x + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def of_means(base: Values, tuned: Values, counts: Counts, definition: Definition) -> Intervals:
    """Intervals of the means over samples."""
    samples = len(base)

    def mean(values: Values) -> Float[np.ndarray, " resample"]:
        return counts @ values / samples

    before, after = mean(base), mean(tuned)
    found = of_resampled(before, after, samples, definition)
    if samples >= STUDENTISED_BELOW or not np.isfinite(found.difference).all():
        return found
    differences = tuned - base
    moves = differences - differences.mean()
    deviations, squares = mean(moves), mean(moves**2)
    low, high = _studentised(deviations, squares, deviations**2, moves, float(np.hypot(base, tuned).max()), definition)
    found = replace(found, difference=(float(differences.mean() + low), float(differences.mean() + high)))
    if not ((before > 0).all() and (after > 0).all()):
        return found
    # How far a question lies from the common ratio moves the logarithm of the ratio; in a resample the ratio is
    # another, shifted by `shift`, and so are those distances.
    ratio = tuned.mean() / base.mean()
    moves = tuned - ratio * base
    shift = mean(moves) / before
    squares, offset = mean(moves**2), shift * (2 * mean(moves * base) - shift * mean(base**2))
    low, high = _studentised(
        np.log1p(shift / ratio), squares / after**2, offset / after**2, moves / tuned.mean(), 1.0, definition
    )
    with np.errstate(over="ignore"):
        relative = (float(ratio * np.exp(low) - 1), float(ratio * np.exp(high) - 1))
    return replace(found, relative=relative if np.isfinite(relative).all() else NONE)


def _studentised(
    deviations: Float[np.ndarray, " resample"],
    squares: Float[np.ndarray, " resample"],
    offset: Float[np.ndarray, " resample"],
    moves: Values,
    size: float,
    definition: Definition,
) -> tuple[float, float]:
    """Ends of the studentised interval of an estimate, about the estimate.

    `moves` is what each question moves the estimate by, in numbers of about `size`, and `deviations` how far its
    resampled values are from it. The variance of what moves a resampled value is `squares - offset`. Both ends are
    infinite where more resamples than a tail holds drew one question alone, which says nothing of the spread.
    """
    spread = moves.std()
    if spread <= _ROUNDING * size:  # the questions agree
        return 0.0, 0.0
    variances = squares - offset
    variances[variances <= _ROUNDING * squares] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(deviations == 0, 0.0, deviations / np.sqrt(variances))
    tail = (1 - definition.confidence) / 2
    low, high = np.quantile(t, [tail, 1 - tail], method="inverted_cdf")
    return (-high * spread, -low * spread) if np.isfinite([low, high]).all() else NONE
