import math

import pytest

from dashboard.words import (
    arrowed,
    bins_verdict,
    coverage_note,
    interval,
    relative_interval,
)
from probing.figures.theme import number, percent
from probing.metrics import LOW_COVERAGE, METRICS, Comparison
from probing.words import changed

NONE = (-math.inf, math.inf)


def _moved(relative: float, low: float, high: float, base: float = 2.0) -> Comparison:
    """Over the base, the difference's interval is another than the relative one, which must not be taken for it."""
    ends = 1.5 * base * low, 1.5 * base * high
    return Comparison(base, base * (1 + relative), base * relative, relative, *ends, low, high)


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.0011, False, "0.00110"),
        (0.000449, False, "4.49×10⁻⁴"),
        (357.4, True, "+357"),
        (-58.46, False, "−58.5"),
        (0.0, True, "0"),
        (123456.0, False, "1.23×10⁵"),
        (None, False, "–"),
        (float("nan"), False, "–"),
        (float("inf"), False, "–"),
    ],
)
def test_numbers_have_three_digits(value: float | None, signed: bool, text: str) -> None:
    assert number(value, signed) == text


def test_percentages_have_a_sign_and_sensible_digits() -> None:
    assert [percent(v) for v in (0.142, -0.0512, None)] == ["+14 %", "−5.1 %", "–"]
    assert percent(0.588, signed=False) == "59 %"


def test_a_change_has_an_arrow_only_beyond_question_noise() -> None:
    assert arrowed(_moved(0.14, 0.09, 0.19)) == "↑ +14 % (+9.0 to +19)"
    assert arrowed(_moved(-0.14, -0.19, -0.09)) == "↓ −14 % (−19 to −9.0)"
    assert arrowed(_moved(0.01, -0.1, 0.1)) == "· +1.0 % (−10 to +10)"
    assert arrowed(_moved(0.14, 0.09, 0.19), beyond_seeds=True) == "↑↑ +14 % (+9.0 to +19)"


def test_too_few_questions_for_an_interval_are_said_to_be() -> None:
    assert interval(Comparison(1.0, 2.0, 1.0, 1.0, *NONE, *NONE)) == "none: too few questions"


def test_where_a_share_of_the_base_has_no_interval_or_no_meaning_that_is_said() -> None:
    unsure = Comparison(0.1, 1.0, 0.9, None, 0.5, 1.2, *NONE)
    assert relative_interval(unsure) == "no share: the base may be zero"
    old = Comparison(2.0, 1.0, -1.0, -0.5, -1.2, -0.8, *NONE)
    assert relative_interval(old) == "−50 %, no interval"


def test_where_intervals_are_known_to_be_too_narrow_that_is_said_beside_the_number() -> None:
    said = {(metric, size) for size in (20, 50, 100) for metric in METRICS if coverage_note(metric, size)}
    assert said == {
        (metric, size)
        for metric, known in METRICS.items()
        for size, shares in known.coverage.items()
        if min(shares) < LOW_COVERAGE
    }
    assert ("distribution_kurtosis", 20) in said
    assert ("loss", 100) not in said
    share = min(METRICS["distribution_kurtosis"].coverage[20])
    assert f"{100 * share:.0f} %" in (coverage_note("distribution_kurtosis", 20) or "")


def test_whether_an_edge_changed_is_said_with_its_q_value() -> None:
    assert changed(0.05) == "changed (q = 0.05 over all edges)"
    assert changed(0.051) == "not changed (q = 0.051 over all edges)"
    assert changed(float("nan")) == "not tested: summarised by an earlier version"


def test_whether_complexity_hangs_on_the_bins_is_said() -> None:
    up, down, still = _moved(0.5, 0.4, 0.6), _moved(-0.5, -0.6, -0.4), _moved(0.0, -0.1, 0.1)
    assert bins_verdict({10: up, 100: up}) == "Complexity rose whatever the number of bins, from 10 to 100."
    assert bins_verdict({10: down, 100: still}) == "Complexity fell, but not beyond question noise with 100 bins."
    assert (
        bins_verdict({10: still, 100: still})
        == "Complexity did not move beyond question noise with any number of bins."
    )
    assert "rose with 10 bins and fell with 100 and 500" in bins_verdict({10: up, 100: down, 500: down})
