"""What measured units say of a pair, with intervals over questions, and tables of that.

Each unit is compared with its host, on the same questions. Differences of shares of right answers have Tango's score
interval, those of mean losses the paired bootstrap's. What share of the gap between host and donor a unit closes is
(L_host - L_unit) / (L_host - L_donor), a ratio of means whose interval is of the paired bootstrap too; where the gap's
own interval holds zero, or a resample of it has the other sign, there is nothing to share.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from probing.metrics import Definition, paired_score, resample_counts
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
    by_effect,
    singles,
    steps,
)

Loss = Float[np.ndarray, " question"]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval over questions."""

    value: float
    low: float
    high: float


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


def tables(
    whats: Iterable[What],
    directions: Iterable[Direction],
    parts: Sequence[str],
    writers: Sequence[str],
    moved: Mapping[str, float],
    findings: Findings,
) -> Iterator[str]:
    """Lines of Markdown: of each direction a table of parts alone and, of weights, one of parts on top of each other.

    Raises:
        KeyError: a unit was not measured.
    """
    yield _alone(findings)
    for what in whats:
        for direction in directions:
            yield ""
            yield from _of_singles(what, direction, parts if what == "weights" else writers, moved, findings)
            if what == "weights":
                yield ""
                yield from _of_steps(direction, parts, findings)


def _alone(findings: Findings) -> str:
    told = []
    for unit in (BASE, TUNED):
        found = findings.of(unit)
        right = "" if found.correct is None else f"{found.correct:.1%} right, "
        told.append(f"{unit.name} {right}loss {found.loss:.3g}")
    return f"{findings.asked} questions; {'; '.join(told)} nats per token of the tuned model's answers."


def _of_singles(
    what: What, direction: Direction, parts: Sequence[str], moved: Mapping[str, float], findings: Findings
) -> Iterator[str]:
    host, donor = HOSTS[direction]
    yield f"One part of {donor} in {host}, {what}:"
    yield ""
    found = [findings.of(unit) for unit in singles(what, direction, parts)]
    asked = found[0].correct is not None
    answers = " right | points |" if asked else ""
    yield f"| part | moved by |{answers} loss | change | gap closed |"
    yield "|---" * (7 if asked else 5) + "|"
    for one in found:
        (part,) = one.unit.parts
        yield f"| {part} | {_moved(moved.get(part))} | {_cells(one)} |"


def _of_steps(direction: Direction, parts: Sequence[str], findings: Findings) -> Iterator[str]:
    host, donor = HOSTS[direction]
    for order in ORDERS:
        ordered = in_order(order, direction, parts, findings.values)
        yield f"Parts of {donor} added to {host} {_ORDERS[order]}, weights:"
        yield ""
        found = [findings.of(unit) for unit in (*singles("weights", direction, ordered[:1]),
                                                    *steps(direction, order, ordered))]  # fmt: skip
        asked = found[0].correct is not None
        yield f"| and | {'right | points | ' if asked else ''}loss | change | gap closed |"
        yield "|---" * (6 if asked else 4) + "|"
        for part, one in zip(ordered, found, strict=True):
            yield f"| {part} | {_cells(one)} |"
        yield ""


_ORDERS: dict[Order, str] = {
    "depth": "from the input to the logits", "effect": "by their single effects, the largest first",
}  # fmt: skip


def in_order(order: Order, direction: Direction, parts: Sequence[str], values: Mapping[str, Values]) -> Sequence[str]:
    """Parts in the order in which they are added."""
    return parts if order == "depth" else by_effect(direction, parts, values)


def _cells(one: Finding) -> str:
    cells = [f"{one.loss:.3g}", _signed(one.loss_change), _share(one.recovered)]
    if one.correct is not None and one.correct_change is not None:
        cells = [f"{one.correct:.1%}", _signed(one.correct_change, 100), *cells]
    return " | ".join(cells)


def _moved(share: float | None) -> str:
    return "–" if share is None else "0" if not share else f"{100 * share:.2g} %"


def _share(recovered: Estimate | None) -> str:
    return "no gap" if recovered is None else f"{100 * recovered.value:.0f} % " + _interval(recovered, 100, 0)


def _signed(estimate: Estimate, times: float = 1.0) -> str:
    width = times * (estimate.high - estimate.low)
    digits = max(0, 1 - math.floor(math.log10(width))) if 0 < width < math.inf else 1
    return f"{times * estimate.value:+.{digits}f} {_interval(estimate, times, digits)}"


def _interval(estimate: Estimate, times: float, digits: int) -> str:
    if not np.isfinite([estimate.low, estimate.high]).all():
        return "(no interval)"
    return f"({times * estimate.low:+.{digits}f} to {times * estimate.high:+.{digits}f})"
