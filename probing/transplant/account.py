"""What a pair's transplants say in a sentence: where a change comes in, how many parts it takes, whether one is needed.

The largest of many effects is large by chance too. So whether a part does anything, or is needed, is held against
intervals that are right for all parts at once (Bonferroni: each of 1 - 5 % / parts); those that are printed are of the
one number beside them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from math import floor, isfinite, log10

from probing.metrics import Estimate
from probing.transplant.findings import Findings, Measure
from probing.transplant.units import BASE, TUNED, Direction, Unit, What, in_order, singles, steps

REACHED = 0.9
"""The share of a change that parts together must bring about to count as all of it."""

Parts = Mapping[Direction, Sequence[str]]


@dataclass(frozen=True)
class Moved:
    """One part that was put into a host."""

    part: str
    change: Estimate
    """From the host."""
    at_once: Estimate
    """The same, with an interval that is right for all parts at once."""
    share: Estimate | None
    """Of what lies between host and donor, the share that it closes; None where that may be nothing."""


@dataclass(frozen=True)
class Account:
    """What transplants of a pair say of one measure."""

    measure: Measure
    base: float
    tuned: float
    change: Estimate
    """From base to tuned, over the questions of the direction that was measured on more."""
    put_in: tuple[Moved, ...] = ()
    """Into the base, the one that takes it furthest towards the tuned model first; empty where it was not measured."""
    taken_out: tuple[Moved, ...] = ()
    """Of the tuned model, the one that takes it furthest towards the base first."""
    together: int | None = None
    """How many parts, added to the base by their single effects, bring about `REACHED` of the change."""

    @property
    def is_sure(self) -> bool:
        """Whether base and tuned differ beyond question noise."""
        return not self.change.low <= 0 <= self.change.high

    @property
    def sign(self) -> int:
        """Of the change; that of an improvement where there is none."""
        if self.change.value == 0:
            return 1 if self.measure == "correct" else -1
        return 1 if self.change.value > 0 else -1

    @property
    def carrying(self) -> tuple[Moved, ...]:
        """The parts that alone bring the base towards the tuned model, over all at once beyond question noise."""
        return tuple(one for one in self.put_in if self.beyond(one, self.sign))

    @property
    def needed(self) -> tuple[Moved, ...]:
        """The parts without which the tuned model goes back, over all at once beyond question noise."""
        return tuple(one for one in self.taken_out if self.beyond(one, -self.sign))

    def beyond(self, moved: Moved, sign: int) -> bool:
        """Whether a part moved its host that way, over all at once beyond question noise."""
        return min(sign * moved.at_once.low, sign * moved.at_once.high) > 0


def account(
    findings: Mapping[Direction, Findings], parts: Parts, measure: Measure, what: What = "weights"
) -> Account | None:
    """What the directions that were measured say; None if none was, or not by this measure."""
    there = {way: found for way, found in findings.items() if measure in found.measures and parts.get(way)}
    if not there:
        return None
    most = max(there.values(), key=lambda found: found.asked)
    change = most.change(replace(TUNED, direction="into-base"), measure)
    alone = Account(measure, most.mean(BASE, measure), most.mean(TUNED, measure), change)
    for way, found in there.items():
        towards = alone.sign if way == "into-base" else -alone.sign
        confidence = 1 - (1 - found.definition.confidence) / len(parts[way])
        moved = [_moved(found, unit, measure, confidence) for unit in singles(what, way, parts[way])]
        moved.sort(key=lambda one: -round(towards * one.change.value, 12))
        alone = replace(alone, put_in=tuple(moved)) if way == "into-base" else replace(alone, taken_out=tuple(moved))
    if what == "weights" and alone.is_sure and "into-base" in there:
        return replace(alone, together=_together(there["into-base"], parts["into-base"], measure))
    return alone


def _moved(found: Findings, unit: Unit, measure: Measure, confidence: float) -> Moved:
    (part,) = unit.parts
    change, at_once = found.change(unit, measure), found.change(unit, measure, confidence)
    return Moved(part, change, at_once, found.share(unit, measure))


def _together(found: Findings, parts: Sequence[str], measure: Measure) -> int | None:
    """Steps may be missing where a job was stopped."""
    ordered = in_order("effect", "into-base", parts, found.values)
    units = [*singles("weights", "into-base", ordered[:1]), *steps("into-base", "effect", ordered)]
    base, tuned = found.mean(BASE, measure), found.mean(TUNED, measure)
    for count, unit in enumerate(units, 1):
        if (found.mean(unit, measure) - base) / (tuned - base) >= REACHED:
            return count
    return None


# -- in words ----------------------------------------------------------------------------------------------------------


def sentence(found: Account) -> str:
    """What was found, in Markdown."""
    clauses = _of_a_change(found) if found.is_sure else _of_none(found)
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def beside(pair: str, moved: Moved, measure: Measure) -> str:
    """What a part does when it is put in within another pair, of this name, in Markdown."""
    return f"{pair} moves `{moved.part}` by {told(moved.change, measure)}."


_NOUNS: dict[tuple[Measure, int], str] = {
    ("correct", 1): "gain", ("correct", -1): "drop", ("loss", -1): "fall of the loss", ("loss", 1): "rise of the loss",
}  # fmt: skip

_WHOSE: dict[Measure, str] = {"correct": "right answers", "loss": "the loss"}


def _of_a_change(found: Account) -> Iterator[str]:
    noun, by = _NOUNS[found.measure, found.sign], amount(found.change.value, found.measure)
    if not found.put_in:
        yield f"tuning moved {_WHOSE[found.measure]} by {told(found.change, found.measure)}"
    else:
        many = len(found.put_in)
        if found.carrying:
            first = found.carrying[0]
            yield f"`{first.part}` alone carries {_share(first)} of the {noun} of {by}"
        else:
            yield f"none of {many} parts alone carries any of the {noun} of {by} beyond question noise"
        if found.together is not None and found.together > 1:
            yield f"{found.together} of {many} parts together bring about {100 * REACHED:.0f} % of it"
    if found.needed:
        first, others = found.needed[0], len(found.needed) - 1
        more = f", and {others} other{'s' if others > 1 else ''} some of it" if others else ""
        yield f"taken out alone, `{first.part}` undoes {_share(first)} of it{more}"
    elif found.taken_out:
        most = max(-found.sign * end for one in found.taken_out for end in (one.at_once.low, one.at_once.high))
        none = f"taken out alone, none of {len(found.taken_out)} undoes any of it beyond question noise"
        if most < abs(found.change.value):
            yield f"no single part is needed: {none}, and none more than {amount(most, found.measure)}"
        else:
            yield f"whether a single part is needed is open: {none}, which is as wide as the {noun}"


def _of_none(found: Account) -> Iterator[str]:
    yield (
        f"tuning moved {_WHOSE[found.measure]} by {told(found.change, found.measure)}: within question noise, so there "
        "is nothing to share among parts"
    )
    for how, moved in (("put in", found.put_in), ("taken out", found.taken_out)):
        if moved:
            first = max(moved, key=lambda one: abs(one.change.value))
            yield f"{how} alone, `{first.part}` moves {_IT[found.measure]} most, by {told(first.change, found.measure)}"


_IT: dict[Measure, str] = {"correct": "them", "loss": "it"}


def _share(moved: Moved) -> str:
    if moved.share is None:
        return "a part"
    value, low, high = (f"{100 * number:.0f}".replace("-", "−") for number in astuple(moved.share))
    finite = isfinite(moved.share.low) and isfinite(moved.share.high)
    return f"{value} % ({f'95 % interval {low} to {high}' if finite else 'no interval'})"


def told(change: Estimate, measure: Measure) -> str:
    """A change with its 95 % interval."""
    scale, unit = (100, " points") if measure == "correct" else (1, "")
    finite = isfinite(change.low) and isfinite(change.high)
    width = scale * (change.high - change.low) if finite else abs(scale * change.value)
    digits = max(1, 1 - floor(log10(width))) if width > 0 else 1
    value, low, high = (f"{scale * number:+.{digits}f}".replace("-", "−") for number in astuple(change))
    return f"{value}{unit} ({f'95 % interval {low} to {high}' if finite else 'no interval'})"


def amount(change: float, measure: Measure) -> str:
    """The size of a change."""
    return f"{100 * abs(change):.1f} points" if measure == "correct" else f"{abs(change):.2g}"
