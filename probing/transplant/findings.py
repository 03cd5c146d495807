"""What measured units say of a pair, with intervals over questions, and tables of that.

Each unit is compared with its host, on the same questions. Differences of shares of right answers have Tango's score
interval, those of mean losses the paired bootstrap's. What share of the gap between host and donor a unit closes is
(L_host - L_unit) / (L_host - L_donor), a ratio of means whose interval is of the paired bootstrap too; where the gap's
own interval holds zero, or a resample of it has the other sign, there is nothing to share.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from probing.metrics import (
    STUDENTISED_BELOW,
    Definition,
    Estimate,
    interval,
    paired_score,
    resample_counts,
)
from probing.metrics.bootstrap import Counts, of_means
from probing.transplant.units import (
    BASE,
    HOSTS,
    ORDERS,
    TUNED,
    Direction,
    Order,
    Unit,
    Values,
    What,
    in_order,
    singles,
    steps,
)
from probing.words import interval as in_brackets
from probing.words import with_interval

Measure = Literal["correct", "loss"]

MEASURES: tuple[Measure, ...] = get_args(Measure)

Ends = tuple[float, float]
"""Of an interval."""


@dataclass(frozen=True)
class Finding:
    """One unit beside its host."""

    unit: Unit
    loss: float
    """Nats per token of the shared text."""
    loss_change: Estimate
    """From the host's."""
    recovered: Estimate | None
    """The share of the gap in loss between host and donor; None where there may be no gap."""
    correct: float | None
    """The share of questions answered right, where they were asked."""
    correct_change: Estimate | None
    """From the host's."""

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        row = asdict(self) | asdict(self.unit)
        return {"unit": row.pop("name"), **{key: value for key, value in row.items() if key != "unit"}}


@dataclass(frozen=True)
class Findings:
    """What has been measured, unit by unit, `base` and `tuned` among them."""

    values: Mapping[str, Values]
    moved: Mapping[str, float | None] = field(default_factory=dict)
    """How far tuning moved each part: the norm of the difference over the base's norm; None from zero."""
    definition: Definition = field(default_factory=Definition)

    _known: dict[tuple[Any, ...], dict[str, Ends]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def asked(self) -> int:
        """How many questions."""
        return len(self.values[BASE.name]["loss"])

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What was measured of both models."""
        return tuple(m for m in MEASURES if all(m in self.values[unit.name] for unit in (BASE, TUNED)))

    def of(self, unit: Unit) -> Finding:
        """What a unit changes in its host.

        Raises:
            KeyError: it was not measured.
        """
        graded = "correct" in self.values[unit.name] and "correct" in self.measures
        return Finding(
            unit,
            self.mean(unit, "loss"),
            self.change(unit, "loss"),
            self.share(unit, "loss"),
            self.mean(unit, "correct") if graded else None,
            self.change(unit, "correct") if graded else None,
        )

    def moved_by(self, unit: Unit) -> float | None:
        """How far tuning moved the part that a unit is, or adds last; None for a model alone, and where unknown."""
        return self.moved.get(unit.parts[-1]) if unit.parts else None

    def mean(self, unit: Unit, measure: Measure) -> float:
        """The share of right answers, or the mean loss."""
        return float(self.values[unit.name][measure].mean(dtype=np.float64))

    def change(self, unit: Unit, measure: Measure, confidence: float | None = None) -> Estimate:
        """A unit's mean less its host's; the interval is of the definition's confidence, or of another."""
        confidence = confidence or self.definition.confidence
        host, found = (self._values(name, measure) for name in (HOSTS[unit.direction][0], unit.name))
        moves = found - host
        if measure == "correct":
            gained, lost = int((moves > 0).sum()), int((moves < 0).sum())
            return Estimate(float(moves.mean()), *paired_score(gained, lost, self.asked, confidence))
        names = self._like(unit, "loss")
        ends = self._kept((names, confidence), lambda: self._changes(unit.direction, names, confidence))
        return Estimate(float(moves.mean()), *ends[unit.name])

    def share(self, unit: Unit, measure: Measure) -> Estimate | None:
        """The share that a unit closes of what lies between host and donor; None where that may be nothing."""
        names = self._like(unit, measure)
        ends = self._kept((names, measure), lambda: self._shares(unit.direction, names, measure))
        if unit.name not in ends:
            return None
        host, donor = (float(self._values(name, measure).mean()) for name in HOSTS[unit.direction])
        found = self.mean(unit, measure)
        return Estimate((host - found) / (host - donor), *ends[unit.name])

    # Intervals of all single parts, or of all steps, of a direction are made together: a page shows hundreds.

    def _kept(self, key: tuple[Any, ...], make: Callable[[], dict[str, Ends]]) -> dict[str, Ends]:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _changes(self, direction: Direction, names: Sequence[str], confidence: float) -> dict[str, Ends]:
        definition = replace(self.definition, confidence=confidence)
        host = self._values(HOSTS[direction][0], "loss")
        counts = _counts(self.asked, self.definition)
        found = [self._values(name, "loss") for name in names]
        if self.asked < STUDENTISED_BELOW:
            ends = [of_means(host, each, counts, definition).difference for each in found]
            return dict(zip(names, ends, strict=True))
        moves = np.stack([each - host for each in found], axis=1)
        return _by_name(names, interval(counts @ moves / self.asked, self.asked, definition))

    def _shares(self, direction: Direction, names: Sequence[str], measure: Measure) -> dict[str, Ends]:
        """Of what each unit closes of the gap: as the relative difference of two means, plus one."""
        counts = _counts(self.asked, self.definition)
        host, donor = (self._values(name, measure) for name in HOSTS[direction])
        low, high = of_means(donor, host, counts, self.definition).difference
        if low <= 0 <= high:
            return {}
        sign = 1 if low > 0 else -1
        gap, closed = sign * (host - donor), [sign * (host - self._values(name, measure)) for name in names]
        if self.asked < STUDENTISED_BELOW:
            found = [of_means(gap, each, counts, self.definition) for each in closed]
            return {
                name: (1 + each.relative[0], 1 + each.relative[1])
                for name, each in zip(names, found, strict=True)
                if each.has_relative
            }
        gaps = counts @ gap
        if not (gaps > 0).all():
            return {}
        shares = (counts @ np.stack(closed, axis=1)) / gaps[:, None]
        return _by_name(names, interval(shares, self.asked, self.definition))

    def _like(self, unit: Unit, measure: Measure) -> tuple[str, ...]:
        """The units that have a measure and are of the same direction and kind: single parts, or steps."""

        def is_alike(name: str) -> bool:
            what, _, rest = name.partition(":")
            way, _, part = rest.partition(":")
            return name in HOSTS[unit.direction] or (
                what == unit.what and way == unit.direction and (":" in part) == (len(unit.parts) > 1)
            )

        return tuple(name for name, found in self.values.items() if measure in found and is_alike(name))

    def _values(self, name: str, measure: Measure) -> Float[np.ndarray, " question"]:
        return self.values[name][measure].astype(np.float64)


_MOST_KEPT = 500
"""Questions up to which resamples are kept, as the transplants that are shown together mostly have as many."""


def _counts(asked: int, definition: Definition) -> Counts:
    return (_kept_counts if asked <= _MOST_KEPT else resample_counts)(asked, definition)


_kept_counts = lru_cache(maxsize=1)(resample_counts)


def _by_name(names: Sequence[str], ends: tuple[np.ndarray, np.ndarray]) -> dict[str, Ends]:
    return dict(zip(names, zip(*(end.tolist() for end in ends), strict=True), strict=True))


# -- tables ------------------------------------------------------------------------------------------------------------


def table(what: What, direction: Direction, parts: Sequence[str], findings: Findings) -> Iterator[str]:
    """Lines of Markdown: parts alone and, of weights, on top of each other.

    Raises:
        KeyError: a unit was not measured.
    """
    host, donor = HOSTS[direction]
    alone = "; ".join(_alone(findings.of(unit)) for unit in (BASE, TUNED))
    yield f"One part of {donor} in {host}, {what}, {findings.asked} questions ({alone}):"
    yield ""
    moved = findings.moved if what == "weights" else None  # what a part writes does not follow from its weights alone
    yield from _rows("part", parts, [findings.of(unit) for unit in singles(what, direction, parts)], moved)
    for order in ORDERS if what == "weights" else ():
        ordered = in_order(order, direction, parts, findings.values)
        units = (*singles(what, direction, ordered[:1]), *steps(direction, order, ordered))
        yield ""
        yield f"Parts of {donor} added to {host} {_ORDERS[order]}:"
        yield ""
        yield from _rows("and", ordered, [findings.of(unit) for unit in units])


_ORDERS: dict[Order, str] = {
    "depth": "from the input to the logits", "effect": "by their single effects, the largest first",
}  # fmt: skip


def _alone(one: Finding) -> str:
    right = "" if one.correct is None else f"{one.correct:.1%} right, "
    return f"{one.unit.name} {right}loss {one.loss:.3g}"


def _rows(
    heading: str, parts: Sequence[str], found: Sequence[Finding], moved: Mapping[str, float | None] | None = None
) -> Iterator[str]:
    """A table with a row for each part, and how far it moved where that is given."""
    headings = [heading, *(["moved by"] if moved else []), *(["right", "points"] if found[0].correct_change else [])]
    yield f"| {' | '.join([*headings, 'loss', 'change', 'gap closed'])} |"
    yield "|---" * (len(headings) + 3) + "|"
    for part, one in zip(parts, found, strict=True):
        cells = [part, *([_moved(moved.get(part))] if moved else []), *_cells(one)]
        yield f"| {' | '.join(cells)} |"


def _cells(one: Finding) -> Iterator[str]:
    if one.correct is not None and one.correct_change is not None:
        yield f"{one.correct:.1%}"
        yield _signed(_percent(one.correct_change))
    yield f"{one.loss:.3g}"
    yield _signed(one.loss_change)
    yield _share(one.recovered)


def _moved(share: float | None) -> str:
    return "–" if share is None else "0" if not share else f"{100 * share:.2g} %"


def _share(recovered: Estimate | None) -> str:
    if recovered is None:
        return "no gap"
    share = _percent(recovered)
    return f"{share.value:.0f} % {in_brackets(share, '.0f')}"


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * number for number in astuple(estimate)))


def _signed(estimate: Estimate) -> str:
    """As many digits as the interval is worth two of, or three of the number where it has none."""
    width, size = estimate.high - estimate.low, abs(estimate.value)
    told, worth = (width, 1) if width < math.inf else (size, 2)
    digits = max(0, worth - math.floor(math.log10(told))) if told > 0 else 1
    return with_interval(estimate, f"+.{digits}f")
