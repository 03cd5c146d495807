"""How much of a model its circuits keep: a curve over their sizes, the areas under it, and both with intervals.

Of a measure, m is the mean over questions: m(C) of a circuit, m(N) of the whole model and m(∅) of the model without
any edge. Then f(C) = (m(C) - m(∅)) / (m(N) - m(∅)), which is not clipped: a circuit may do better than the model, or
worse than nothing. Over the shares k of all edges that were asked for, by trapezoids,

- CPR = ∫ f dk and CMD = ∫ |1 - f| dk, from the smallest share above zero to the largest: of a circuit that is as good
  as the model at every size, 0.999 and 0 over MIB's;
- the same over ln k, divided by its range (1 and 0 of such a circuit): small circuits weigh as much as large ones.

Source: Mueller et al. 2025 (MIB, arXiv:2504.13151); its code takes |1 - f| at the sizes, and lays trapezoids through
that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probing.metrics.bootstrap import Estimate, interval, of_means, resample_counts
from probing.metrics.definition import Definition

AREAS = ("CPR", "CMD", "CPR over log k", "CMD over log k")
"""The areas under a curve."""

Values = Float[np.ndarray, " sample"]


@dataclass(frozen=True)
class Curve:
    """What is kept at each share, and in all."""

    shares: tuple[float, ...]
    f: tuple[Estimate, ...]
    areas: dict[str, Estimate]
    """By `AREAS`; none of fewer than two shares above zero."""

    def reaches(self, level: float) -> int | None:
        """The first place at which f is at least so much."""
        return next((place for place, f in enumerate(self.f) if f.value >= level), None)


def curve(
    values: Float[np.ndarray, "share sample"],
    none: Values,
    whole: Values,
    shares: Sequence[float],
    definition: Definition,
    under: Sequence[float] | None = None,
) -> Curve:
    """The curve of circuits of these shares, in rising order, with what is measured of each question; areas are laid
    `under` some of them, by default all.

    Intervals are paired over questions: a resample has the same ones in all three means. Those of f are as those of a
    relative difference are (`bootstrap.of_means`), those of areas are percentiles. There is none where the whole model
    is better than nothing in some resamples and worse in others; f is NaN where it is neither.
    """
    samples = len(whole)
    gained, most = (values - none).astype(np.float64), (whole - none).astype(np.float64)
    counts = resample_counts(samples, definition)
    f, denominators = kept(values, none, whole), counts @ most
    one_sided = (denominators > 0).all() or (denominators < 0).all()
    resampled = (counts @ gained.T) / (denominators[:, None] if one_sided else np.nan)
    places = [place for place, share in enumerate(shares) if under is None or share in under]
    laid = [shares[place] for place in places]
    found = areas(f[places], laid)
    ends = {name: interval(each, samples, definition) for name, each in areas(resampled[:, places], laid).items()}
    return Curve(
        tuple(shares),
        tuple(_share(value, row, most, counts, definition) for value, row in zip(f, gained, strict=True)),
        {name: Estimate(float(found[name]), float(low), float(high)) for name, (low, high) in ends.items()},
    )


def kept(values: Float[np.ndarray, "*row sample"], none: Values, whole: Values) -> Float[np.ndarray, "*row"]:
    """f of circuits; NaN or infinite where the whole model is as good as nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        f = (values - none).mean(-1, dtype=np.float64) / (whole - none).mean(dtype=np.float64)
    return f + 0.0  # there is no -0


def areas(f: Float[np.ndarray, "*row share"], shares: Sequence[float]) -> dict[str, Float[np.ndarray, "*row"]]:
    """The areas under curves over these shares, in rising order; shares of zero are left out."""
    k = np.array(shares)
    f, k = f[..., k > 0], k[k > 0]
    if len(k) < 2:
        return {}
    heights, log = (f, np.abs(1 - f)), np.log(k)
    linear = [np.trapezoid(height, k) for height in heights]
    return dict(zip(AREAS, [*linear, *(np.trapezoid(height, log) / np.ptp(log) for height in heights)], strict=True))


def _share(value: float, gained: Values, most: Values, counts: np.ndarray, definition: Definition) -> Estimate:
    """What a circuit keeps, as a share of what there is to keep."""
    low, high = of_means(most, gained, counts, definition).relative
    low, high = (1 + low, 1 + high) if most.mean() >= 0 else (1 - high, 1 - low)
    return Estimate(float(value), low, high)
