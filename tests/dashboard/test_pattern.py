"""What is said of the paper's pattern: never a likelihood's number alone where the losses differ."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dashboard.pattern import Told, agreement, badge, direction, headline, in_short, subject
from dashboard.seeds import Band, beside
from probing.method import PAPERS, Method
from probing.metrics import PATTERN, Comparison
from probing.pairs import load_registry

NONE = (-math.inf, math.inf)

MARGIN, EXACT = Method(path="norm-exact", loss="margin"), Method(path="exact")
EXACT_MARGIN = replace(EXACT, loss="margin")


def moved(relative: float, low: float, high: float, base: float = 2.0) -> Comparison:
    """Over the base, the difference's interval is another than the relative one, which must not be taken for it."""
    ends = 1.5 * base * low, 1.5 * base * high
    return Comparison(base, base * (1 + relative), base * relative, relative, *ends, low, high)


STILL = moved(0.01, -0.1, 0.1)
UP, DOWN = moved(0.14, 0.09, 0.19), moved(-0.5, -0.6, -0.4)


def told(
    method: Method, intensity: Comparison, complexity: Comparison = STILL, kurtosis: Comparison = STILL,
    loss: Comparison = STILL, **more: object,
) -> Told:  # fmt: skip
    compared = dict(zip(PATTERN, (intensity, complexity, kurtosis), strict=True))
    return Told(method, {**compared, "gini": STILL, "loss": loss}, **more)  # type: ignore[arg-type]


def test_where_the_losses_agree_one_definition_says_what_moved_and_what_did_not() -> None:
    own = told(PAPERS, UP, moved(-0.3, -0.4, -0.2))
    own = replace(own, compared={**own.compared, "gini": moved(-0.1, -0.2, -0.05)})
    assert headline("GRPO", [own]) == (
        "GRPO raised intensity by 14 % (95 % interval 9.0 to 19 %) and lowered complexity by 30 % (95 % interval 20 to "
        "40 %); kurtosis did not move beyond question noise; the circuit is less concentrated."
    )
    still = told(PAPERS, STILL)
    assert headline("DPO", [still]) == "Intensity, complexity and kurtosis did not move beyond question noise."
    assert headline("DPO", [told(MARGIN, UP)]).startswith("By the margin DPO raised intensity by 14 %")


def test_without_a_relative_interval_the_difference_is_said() -> None:
    unsure = Comparison(0.1, 1.0, 0.9, None, 0.5, 1.2, *NONE)
    old = Comparison(2.0, 1.0, -1.0, -0.5, -1.2, -0.8, *NONE)
    assert headline("PPO", [told(PAPERS, old, kurtosis=unsure)]) == (
        "PPO lowered intensity by 1.00 (95 % interval 0.800 to 1.20) and raised kurtosis by 0.900 (95 % interval 0.500 "
        "to 1.20); complexity did not move beyond question noise."
    )


def test_a_fall_that_only_the_likelihood_sees_is_one_of_confidence() -> None:
    fell = moved(-0.76, -0.79, -0.73)
    found = [
        told(PAPERS, fell, loss=DOWN),
        told(MARGIN, UP, loss=DOWN),
        told(EXACT, moved(0.06, 0.04, 0.08), loss=DOWN),
        told(EXACT_MARGIN, moved(0.12, 0.1, 0.15), loss=DOWN),
    ]
    assert headline("GRPO", found) == (
        "By the paper's definition GRPO lowered intensity by 76 % (95 % interval 73 to 79 %); by the margin it rose by "
        "14 % (9.0 to 19 %) and with every edge really removed it rose by 6.0 % (likelihood, 4.0 to 8.0 %) and 12 % "
        "(margin, 10 to 15 %): the fall is one of confidence."
    )
    seen = headline("GRPO", [found[1], found[0]])
    assert seen == (
        "By the margin GRPO raised intensity by 14 % (95 % interval 9.0 to 19 %); by the paper's definition it fell by "
        "76 % (73 to 79 %): the fall is one of confidence."
    )
    assert headline("X", [found[0], told(MARGIN, DOWN, loss=DOWN)]).endswith(": the fall is more than confidence.")
    mixed = [found[0], told(MARGIN, DOWN, loss=DOWN), told(EXACT_MARGIN, UP, loss=DOWN)]
    assert headline("X", mixed).endswith(": they do not agree.")
    rose = [told(PAPERS, UP, loss=UP), told(MARGIN, STILL, loss=UP)]
    assert headline("X", rose).endswith(
        "by the margin it did not move beyond question noise: the rise is one of confidence."
    )
    assert headline("X", [told(PAPERS, UP, loss=DOWN), told(MARGIN, UP, loss=DOWN)]).endswith(": they agree.")


def test_what_really_happens_to_the_likelihood_decides_only_where_nothing_else_does() -> None:
    fell = told(PAPERS, DOWN, loss=DOWN)
    little = told(EXACT, moved(-0.02, -0.03, -0.01), loss=DOWN)
    assert headline("X", [fell, little]).endswith("more than confidence.")
    assert headline("X", [fell, little, told(EXACT_MARGIN, STILL, loss=DOWN)]).endswith(
        "the fall is one of confidence."
    )


def test_where_nothing_else_is_known_the_loss_is_said_and_what_is_missing() -> None:
    assert headline("GRPO", [told(PAPERS, DOWN, loss=DOWN)]) == (
        "By the paper's definition GRPO lowered intensity by 50 % (95 % interval 40 to 60 %), but the loss fell by "
        "50 % (40 to 60 %), and this may be confidence alone: what the margin says, and what removing edges really "
        "does, has not been computed."
    )
    beside_loss = headline("GRPO", [told(PAPERS, UP, loss=DOWN)])
    assert "while the loss fell by 50 %" in beside_loss
    assert "confidence" not in beside_loss


def test_an_estimate_from_some_edges_is_said_to_be_one() -> None:
    real = Told(EXACT, {"activation_intensity": UP}, estimated=True)
    said = headline("GRPO", [told(PAPERS, DOWN, loss=DOWN), real])
    assert "it rose by 14 % (9.0 to 19 %), as estimated from some edges: the fall is one of confidence" in said


CHANGES = st.builds(
    lambda middle, low, high: moved(middle, middle - low, middle + high),
    st.floats(-0.9, 2), st.floats(0.001, 0.5), st.floats(0.001, 0.5),
)  # fmt: skip
METHODS = st.sampled_from([PAPERS, MARGIN, EXACT, EXACT_MARGIN, Method(path="eap-ig"), Method(reference="mean")])
ANY = st.builds(told, METHODS, CHANGES, CHANGES, CHANGES, CHANGES)


@given(st.lists(ANY, min_size=1, max_size=4, unique_by=lambda one: one.method))
def test_a_likelihoods_number_never_stands_alone_where_the_losses_differ(found: list[Told]) -> None:
    said = headline("GRPO", found)
    if found[0].is_likelihood and found[0].compared["loss"].direction:
        beside_it = all(of.phrase in said or of.method.path == "exact" for of in found[1:])
        assert ("has not been computed" in said and "the loss" in said) if len(found) == 1 else beside_it
        assert "complexity" not in said
        assert "kurtosis" not in said


@given(ANY)
def test_only_what_does_not_fall_with_the_loss_goes_against_the_pattern(one: Told) -> None:
    said = [badge(one, metric)[0] for metric in PATTERN] + [in_short(one)]
    if one.method.loss == "nll":
        assert not any("against" in words for words in said)
        moves = [metric for metric in PATTERN if one.compared[metric].direction]
        with_it = [metric for metric in moves if one.compared[metric].direction == one.compared["loss"].direction]
        assert all(badge(one, metric)[0].endswith("with the loss") for metric in with_it)
    else:
        assert not any("loss" in words for words in said)


def test_how_the_metrics_moved_is_said_in_short() -> None:
    assert in_short(told(MARGIN, UP, UP, DOWN)) == "follows"
    assert in_short(told(MARGIN, DOWN, DOWN, UP)) == "against"
    assert in_short(told(MARGIN, UP, DOWN)) == "mixed (1 with, 1 against)"
    assert in_short(told(PAPERS, STILL)) == "within question noise"
    assert in_short(told(PAPERS, DOWN, DOWN, UP, loss=DOWN)) == "falls with the loss"
    assert in_short(told(PAPERS, UP, UP, DOWN, loss=UP)) == "rises with the loss"
    assert in_short(told(PAPERS, UP, DOWN)) == "mixed (1 with, 1 by likelihood)"
    sure = told(PAPERS, UP, UP, UP, loss=DOWN)
    assert [direction(sure, metric) for metric in PATTERN] == ["follows", "follows", "likelihood"]
    assert badge(sure, "distribution_kurtosis")[0] == "rises as the loss falls"
    assert badge(told(PAPERS, DOWN), "activation_intensity")[0] == "falls, by likelihood"


def test_one_sentence_says_whether_definitions_agree_and_what_seeds_do() -> None:
    paper = told(PAPERS, DOWN, DOWN, UP, loss=DOWN)
    wide, narrow = Band(-0.4, 0.4, 2), Band(0.0, 0.05, 2)
    bands = dict(zip(PATTERN, (wide, narrow, wide), strict=True))
    sure = [
        told(method, UP, UP, kurtosis, loss=DOWN, bands=bands)
        for method, kurtosis in ((MARGIN, STILL), (EXACT_MARGIN, UP))
    ]
    assert agreement([paper, *sure]) == (
        "The definitions do not agree on intensity, complexity and kurtosis; those that do not fall with the loss find "
        "intensity up, complexity up and kurtosis up or unmoved. By them complexity is beyond the seed band."
    )
    assert agreement([paper, told(MARGIN, DOWN, DOWN, UP)]) == (
        "All 2 definitions agree: intensity down, complexity down and kurtosis up."
    )
    assert agreement([paper]) == ""


def test_the_seed_band_is_the_range_of_what_seeds_do_with_zero_inside() -> None:
    band = Band.of([0.37, -0.03])
    assert band == Band(-0.03, 0.37, 2)
    assert Band.of([0.37, 0.2]) == Band(0.0, 0.37, 2)
    assert (Band.of([]), Band.of([0.3, None])) == (None, None)
    assert band is not None
    assert beside(band, UP) == "Smaller than another seed moves it (seeds: −3.0 to +37 %)."
    assert beside(band, DOWN) == "Beyond the seed band (−3.0 to +37 %)."
    assert (
        beside(band, moved(0.4, 0.3, 0.5)) == "Outside the seed band (−3.0 to +37 %), into which its interval reaches."
    )
    assert beside(band, Comparison(0.1, 1.0, 0.9, None, 0.5, 1.2, *NONE)) is None
    assert beside(None, UP) is None
    assert Band(0.0, 0.37, 1).words == "0 to +37 %"


@given(st.lists(st.floats(-0.9, 3), min_size=1, max_size=5), CHANGES)
def test_a_change_is_beyond_the_band_only_if_no_seed_lies_in_its_interval(
    seeds: list[float], change: Comparison
) -> None:
    band = Band.of(seeds)
    assert band is not None
    inside = [seed for seed in (0.0, *seeds) if change.relative_low <= seed <= change.relative_high]
    assert not (band.place(change) == "beyond" and inside)
    assert (band.place(change) == "within") == (band.low <= change.relative <= band.high)


def test_a_control_is_not_called_by_its_algorithm() -> None:
    pairs = load_registry().pairs
    assert [subject(pairs[name]) for name in ("grpo", "seed", "sft-more")] == ["GRPO", "another seed", "further SFT"]
