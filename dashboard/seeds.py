"""The seed band: how far other seeds move what a pair's base is, beside which every difference stands.

Models that were trained alike from other seeds differ from a pair's base as well. The band is the range of their
relative changes, with zero inside: a tuned model within it lies no further from its base than another seed would.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from dashboard import data
from dashboard.view import Seed, View, seeds
from probing.figures.theme import percent
from probing.metrics import Comparison

Place = Literal["within", "across", "beyond"]
"""Of a change: inside the band; outside, though its interval reaches in; or outside with all of its interval."""


@dataclass(frozen=True)
class Band:
    """The range of some seeds' relative changes, zero included."""

    low: float
    high: float
    seeds: int

    @staticmethod
    def of(changes: Iterable[float | None]) -> "Band | None":
        """The band of some changes; None if there are none, or one of them has no share of its base."""
        found = list(changes)
        known = [change for change in found if change is not None]
        if not known or len(known) < len(found):
            return None
        return Band(min(0.0, *known), max(0.0, *known), len(known))

    def place(self, change: Comparison) -> Place | None:
        """Where a change lies; None if it has no share of its base."""
        if change.relative is None:
            return None
        if change.relative_low > self.high or change.relative_high < self.low:
            return "beyond"
        return "within" if self.low <= change.relative <= self.high else "across"

    @property
    def words(self) -> str:
        """Its ends."""
        low, high = (percent(end).removesuffix(" %") if end else "0" for end in (self.low, self.high))
        return f"{low} to {high} %"


def bands_of(found: Iterable[Seed]) -> dict[str, Band]:
    """The band of every metric that has one."""
    changes: dict[str, list[float | None]] = {}
    for seed in found:
        for metric, comparison in seed.compared().items():
            changes.setdefault(metric, []).append(comparison.relative)
    bands = {metric: Band.of(values) for metric, values in changes.items()}
    return {metric: band for metric, band in bands.items() if band is not None}


def bands(view: View) -> dict[str, Band]:
    """The same at a view's cut and by its rules."""
    return bands_of(seeds(view))


def beside(band: Band | None, change: Comparison) -> str | None:
    """A sentence on a change beside what seeds do; None where nothing is known of it."""
    place = band and band.place(change)
    if band is None or place is None:
        return None
    if place == "within":
        return f"Smaller than another seed moves it (seeds: {band.words})."
    if place == "beyond":
        return f"Beyond the seed band ({band.words})."
    return f"Outside the seed band ({band.words}), into which its interval reaches."


def about(band: Band) -> str:
    """What the band is."""
    many = f"{band.seeds} models that were" if band.seeds > 1 else "A model that was"
    return f"{many} trained like the base from other seeds differ{'' if band.seeds > 1 else 's'} from it by that much."


Ends = tuple[Float[np.ndarray, " group"], Float[np.ndarray, " group"]]
"""Of each group's band, in the unit of its intensity."""


def of_groups(view: View, by: str) -> Ends | None:
    """By how much seeds move the intensity of each group of a view's breakdown; None where no seeds are known.

    Seeds have questions of their own, so what counts is the share of a group's own base by which they move it.
    """
    own = data.breakdown(*view.keys, by)
    changes = [np.zeros(len(own.labels))]
    for seed in seeds(view):
        if seed.row.base_run is None or seed.row.tuned_run is None:
            continue
        found = data.breakdown(seed.row.base_run, seed.row.tuned_run, by)
        if found.labels == own.labels:
            base, tuned = found.base.mean(1), found.tuned.mean(1)
            with np.errstate(divide="ignore", invalid="ignore"):
                changes.append((base / tuned if seed.backwards else tuned / base) - 1)
    if len(changes) == 1:
        return None
    shares = np.nan_to_num(np.array(changes), posinf=0.0)
    base = own.base.mean(1)
    return shares.min(0) * base, shares.max(0) * base
