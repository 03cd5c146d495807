"""What transplants say in a sentence: against counts by hand, and what must hold of it whatever was measured."""

import re
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from probing.metrics import Definition, Estimate, paired_score, resample_counts
from probing.metrics.bootstrap import of_means
from probing.transplant.account import Account, Moved, account, amount, beside, sentence, told
from probing.transplant.findings import Findings
from probing.transplant.units import DIRECTIONS, Direction, by_effect, singles, steps

QUICK = Definition(resamples=200)
PARTS = ["a0", "m0", "a1"]


def _right(count: int, n: int = 100) -> np.ndarray:
    return (np.arange(n) < count).astype(float)


def _graded(right: Mapping[str, int]) -> dict[str, dict[str, np.ndarray]]:
    """The first so many questions answered right; losses that follow."""
    return {unit: {"correct": _right(count), "loss": 1 - _right(count) / 2} for unit, count in right.items()}


INTO_BASE = {
    "base": 40, "tuned": 90, "weights:into-base:a0": 70, "weights:into-base:m0": 50, "weights:into-base:a1": 40,
    "weights:into-base:effect:2": 86, "weights:into-base:effect:3": 90,
}  # fmt: skip
INTO_TUNED = {
    "base": 40, "tuned": 90, "weights:into-tuned:a0": 90, "weights:into-tuned:m0": 90, "weights:into-tuned:a1": 88,
}  # fmt: skip


def _account(measured: Mapping[Direction, Mapping[str, int]], measure: str = "correct") -> Account:
    found = {way: Findings(_graded(right), definition=QUICK) for way, right in measured.items()}
    made = account(found, dict.fromkeys(found, PARTS), measure)  # type: ignore[arg-type]
    assert made is not None
    return made


def test_a_gain_that_one_part_carries_and_none_is_needed_for() -> None:
    made = _account({"into-base": INTO_BASE, "into-tuned": INTO_TUNED})
    assert made.change == Estimate(0.5, *paired_score(50, 0, 100))
    assert [one.part for one in made.put_in] == ["a0", "m0", "a1"]
    assert made.put_in[0].share is not None
    assert made.put_in[0].share.value == pytest.approx(30 / 50)
    assert made.together == 2, "46 of 50 are 92 %"
    assert made.taken_out[0].at_once == Estimate(-0.02, *paired_score(0, 2, 100, 1 - 0.05 / 3))
    assert not made.needed
    most = 100 * -paired_score(0, 2, 100, 1 - 0.05 / 3)[0]
    assert re.fullmatch(
        r"`a0` alone carries 60 % \(95 % interval \d\d to \d\d\) of the gain of 50\.0 points; 2 of 3 parts together "
        r"bring about 90 % of it; no single part is needed: taken out alone, none of 3 undoes any of it beyond "
        rf"question noise, and none more than {most:.1f} points\.",
        sentence(made),
    )


def test_parts_that_are_needed_are_said_and_so_is_what_stays_open() -> None:
    needed = INTO_TUNED | {"weights:into-tuned:m0": 60, "weights:into-tuned:a1": 70}
    made = _account({"into-tuned": needed})
    assert [one.part for one in made.needed] == ["m0", "a1"]
    assert re.fullmatch(
        r"Tuning moved right answers by \+50\.0 points \(95 % interval \+40\.\d to \+59\.\d\); taken out alone, `m0` "
        r"undoes 60 % \(95 % interval \d\d to \d\d\) of it, and 1 other some of it\.",
        sentence(made),
    )
    little = {"base": 84, "tuned": 90, **{unit: 88 for unit in INTO_TUNED if ":" in unit}}
    assert "whether a single part is needed is open: taken out alone, none of 3" in sentence(
        _account({"into-tuned": little})
    )


def test_a_drop_is_one_and_a_loss_that_falls_is_named() -> None:
    worse = {name: 100 - right for name, right in INTO_BASE.items()}
    assert sentence(_account({"into-base": worse})).startswith("`a0` alone carries 60 % (")
    assert "of the drop of 50.0 points; 2 of 3 parts" in sentence(_account({"into-base": worse}))
    assert "of the fall of the loss of 0.25;" in sentence(_account({"into-base": INTO_BASE}, "loss"))
    assert "of the rise of the loss of 0.25;" in sentence(_account({"into-base": worse}, "loss"))


def test_without_a_gain_nothing_is_shared() -> None:
    still = {"base": 50, "tuned": 51, **{unit: 50 for unit in INTO_BASE if ":" in unit}, "weights:into-base:m0": 55}
    ends = [f"{100 * end:+.1f}".replace("-", "−") for gained in (1, 5) for end in paired_score(gained, 0, 100)]
    assert sentence(_account({"into-base": still})) == (
        f"Tuning moved right answers by +1.0 points (95 % interval {ends[0]} to {ends[1]}): within question noise, so "
        "there is nothing to share among parts; put in alone, `m0` moves them most, by +5.0 points (95 % interval "
        f"{ends[2]} to {ends[3]})."
    )
    scattered = {**INTO_BASE, "weights:into-base:a0": 41, "weights:into-base:m0": 41}
    assert sentence(_account({"into-base": scattered})).startswith(
        "None of 3 parts alone carries any of the gain of 50.0 points beyond question noise; 2 of 3 parts together"
    )


def test_a_part_that_moves_few_questions_for_sure_carries_more_than_one_that_moves_many_to_and_fro() -> None:
    right = {**INTO_BASE, "weights:into-base:a0": 40, "weights:into-base:m0": 52}
    values = _graded(right)
    values["weights:into-base:a0"]["correct"][:] = [0] * 25 + [1] * 15 + [1] * 40 + [0] * 20  # 40 gained, 25 lost
    found: dict[Direction, Findings] = {"into-base": Findings(values, definition=QUICK)}
    made = account(found, {"into-base": PARTS}, "correct")
    assert made is not None
    assert [one.part for one in made.put_in] == ["a0", "m0", "a1"]
    assert [one.part for one in made.carrying] == ["m0"]
    assert sentence(made).startswith("`m0` alone carries 24 % (")


def test_what_was_not_measured_is_not_spoken_of() -> None:
    values = {name: {"loss": found["loss"]} for name, found in _graded(INTO_BASE).items()}
    found = Findings(values, definition=QUICK)
    assert account({"into-base": found}, {"into-base": PARTS}, "correct") is None
    assert account({}, {}, "loss") is None
    made = account({"into-base": found}, {"into-base": PARTS}, "loss")
    assert made is not None
    assert "needed" not in sentence(made)
    renamed = {name.replace("weights", "activations"): each for name, each in values.items() if "effect" not in name}
    written = account({"into-base": Findings(renamed, definition=QUICK)}, {"into-base": PARTS}, "loss", "activations")
    assert written is not None
    assert written.together is None
    assert sentence(written).startswith("`a0` alone carries 60 %")


def test_another_pair_is_told_by_the_same_part() -> None:
    moved = Moved("a0", Estimate(0.03, 0.0106, 0.0639), Estimate(0.03, -0.01, 0.08), None)
    assert beside("More SFT", moved, "correct") == "More SFT moves `a0` by +3.0 points (95 % interval +1.1 to +6.4)."
    assert told(Estimate(-0.0177, -0.0187, -0.0167), "loss") == "−0.0177 (95 % interval −0.0187 to −0.0167)"
    assert told(Estimate(-0.0177, -np.inf, np.inf), "loss") == "−0.018 (no interval)"
    assert told(Estimate(0.0, 0.0, 0.0), "loss") == "+0.0 (95 % interval +0.0 to +0.0)"
    assert [amount(-0.03, "correct"), amount(0.0673, "loss")] == ["3.0 points", "0.067"]


@st.composite
def _measured(draw: st.DrawFn) -> tuple[dict[Direction, Findings], list[str]]:
    """Anything that a job may have found of a few parts, in one direction or both."""
    n, parts = draw(st.integers(1, 60)), [f"a{layer}" for layer in range(draw(st.integers(1, 4)))]
    graded, ways = draw(st.booleans()), draw(st.sampled_from([*((way,) for way in DIRECTIONS), DIRECTIONS]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def values() -> dict[str, np.ndarray]:
        level = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
        loss = {"loss": np.float32(1.5 - level) + draw(st.sampled_from([0, 0.2])) * rng.random(n, np.float32)}
        return loss | ({"correct": (rng.random(n) < level).astype(np.float32)} if graded else {})

    whole = {"base": values(), "tuned": values()}
    found = {}
    for way in ways:
        units = singles("weights", way, parts) + steps(way, "depth", parts) + steps(way, "effect", parts)
        found[way] = Findings(whole | {unit.name: values() for unit in units}, definition=QUICK)
    return found, parts


@settings(max_examples=60, deadline=None)
@given(measured=_measured(), measure=st.sampled_from(["correct", "loss"]))
def test_whatever_was_measured_the_sentence_says_no_more(
    measured: tuple[dict[Direction, Findings], list[str]], measure: str
) -> None:
    found, parts = measured
    made = account(found, dict.fromkeys(found, parts), measure)  # type: ignore[arg-type]
    assume(made is not None)
    assert made is not None
    text = sentence(made)
    assert re.fullmatch(r"[A-Z`].*\.", text)
    assert not re.search(r"nan|inf\b|None ", text.replace("None of", ""))
    any_of = next(iter(found.values())).values
    base, tuned = (any_of[side][measure].mean(dtype=float) for side in ("base", "tuned"))
    assert (made.base, made.tuned) == (base, tuned)
    assert ("nothing to share" in text) == (not made.is_sure)
    assert ("taken out" in text) == ("into-tuned" in found)
    assert set(re.findall(r"`(\w+)`", text)) <= set(parts)
    if "into-base" in found:
        of = {part: found["into-base"].values[f"weights:into-base:{part}"] for part in parts}
        moves = {part: values[measure].mean(dtype=float) - base for part, values in of.items()}
        towards = made.sign * moves[made.put_in[0].part]
        assert towards == pytest.approx(max(made.sign * move for move in moves.values()))
        if made.together is not None:
            order = by_effect("into-base", parts, found["into-base"].values)
            names = [order[0], *(f"effect:{count}" for count in range(2, len(parts) + 1))]
            means = [
                found["into-base"].values[f"weights:into-base:{name}"][measure].mean(dtype=float) for name in names
            ]
            reached = [(mean - base) / (tuned - base) >= 0.9 for mean in means]
            assert reached.index(True) + 1 == made.together
    for one in made.needed:
        assert -made.sign * one.change.value > 0, "a part that is needed takes the tuned model back"
    if made.needed:
        assert "no single part is needed" not in text


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 120), seed=st.integers(0, 2**32))
def test_intervals_of_all_units_together_are_those_of_each_alone(n: int, seed: int) -> None:
    rng, definition = np.random.default_rng(seed), Definition(resamples=100)
    names = ["base", "tuned", *(f"weights:into-base:{part}" for part in PARTS)]
    values = {name: {"loss": 2 - place + rng.random(n)} for place, name in enumerate(names)}
    found, counts = Findings(values, definition=definition), resample_counts(n, definition)
    base, tuned = (values[side]["loss"] for side in ("base", "tuned"))
    for unit in singles("weights", "into-base", PARTS):
        mine = values[unit.name]["loss"]
        change, share = found.change(unit, "loss"), found.share(unit, "loss")
        alone = of_means(base, mine, counts, definition).difference
        np.testing.assert_allclose([change.low, change.high], alone, rtol=1e-9, atol=1e-12)
        of_gap = of_means(base - tuned, base - mine, counts, definition)
        low, high = of_means(tuned, base, counts, definition).difference
        assert (share is not None) == (of_gap.has_relative and not low <= 0 <= high)
        if share is not None:
            np.testing.assert_allclose([share.low - 1, share.high - 1], of_gap.relative, rtol=1e-9, atol=1e-12)
