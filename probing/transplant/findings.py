"""What measured units say of a pair, with intervals over questions, and tables of that.

Each unit is compared with its host, on the same questions. Differences of shares of right answers have Tango's score
interval, those of mean losses the paired bootstrap's. What share of the gap between host and donor a unit closes is
(L_host - L_unit) / (L_host - L_donor), a ratio of means whose interval is of the paired bootstrap too; where the gap's
own interval holds zero, or a resample of it has the other sign, there is nothing to share.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from probing.metrics import Definition, Estimate, paired_score, resample_counts
from probing.metrics.bootstrap import Counts, Intervals, of_means
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
from probing.words import interval, with_interval

Loss = Float[np.ndarray, " question"]


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

    @property
    def asked(self) -> int:
        """How many questions."""
        return len(self.values[BASE.name]["loss"])

    @cached_property
    def _counts(self) -> Counts:
        return resample_counts(self.asked, self.definition)

    def of(self, unit: Unit) -> Finding:
        """What a unit changes in its host.

        Raises:
            KeyError: it was not measured.
        """
        host, donor = (self.values[name] for name in HOSTS[unit.direction])
        found = self.values[unit.name]
        change = Estimate(
            float((found["loss"] - host["loss"]).mean()), *self._means(host["loss"], found["loss"]).difference
        )
        correct, correct_change = None, None
        if "correct" in found and "correct" in host:
            moves = found["correct"].astype(float) - host["correct"]
            correct = float(found["correct"].mean())
            gained, lost = int((moves > 0).sum()), int((moves < 0).sum())
            correct_change = Estimate(float(moves.mean()), *paired_score(gained, lost, self.asked))
        recovered = self._recovered(host["loss"], found["loss"], donor["loss"])
        return Finding(unit, float(found["loss"].mean()), change, recovered, correct, correct_change)

    def moved_by(self, unit: Unit) -> float | None:
        """How far tuning moved the part that a unit is, or adds last; None for a model alone, and where unknown."""
        return self.moved.get(unit.parts[-1]) if unit.parts else None

    def _means(self, before: Loss, after: Loss) -> Intervals:
        return of_means(before, after, self._counts, self.definition)

    def _recovered(self, host: Loss, found: Loss, donor: Loss) -> Estimate | None:
        """The share of the gap: the relative difference of two means, of what is closed from what there is to close."""
        low, high = self._means(donor, host).difference
        if low <= 0 <= high:
            return None
        sign = 1 if low > 0 else -1
        gap, closed = sign * (host - donor), sign * (host - found)
        intervals = self._means(gap, closed)
        if not intervals.has_relative:
            return None
        return Estimate(float(closed.mean() / gap.mean()), *(1 + end for end in intervals.relative))


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
    return f"{share.value:.0f} % {interval(share, '.0f')}"


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * number for number in astuple(estimate)))


def _signed(estimate: Estimate) -> str:
    """As many digits as the interval is worth two of, or three of the number where it has none."""
    width, size = estimate.high - estimate.low, abs(estimate.value)
    told, worth = (width, 1) if width < math.inf else (size, 2)
    digits = max(0, worth - math.floor(math.log10(told))) if told > 0 else 1
    return with_interval(estimate, f"+.{digits}f")
