"""Grading: numbers exactly, and `math` as a person judges, on pairs of answer and reference judged by hand."""

import json
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from probing.errors import QuestionError
from probing.pairs import load_registry
from probing.questions import grade, load_questions

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "questions"

CASES: list[tuple[str, str, bool]] = [
    # numbers
    (r"The answer is $\boxed{42}$.", "42", True),
    (r"The answer is $\boxed{43}$.", "42", False),
    ("So there are 42 of them.", "42", True),
    (r"\boxed{-7}", "-7", True),
    (r"\boxed{7}", "-7", False),
    (r"\boxed{0.5}", r"\frac{1}{2}", True),
    (r"\boxed{.5}", "0.5", True),
    (r"\boxed{3.0}", "3", True),
    (r"\boxed{3.01}", "3", False),
    (r"\boxed{1e3}", "1000", True),
    (r"\boxed{2 \times 10^{3}}", "2000", True),
    (r"First I get $\boxed{5}$. No: $\boxed{6}$.", "6", True),
    # thousands
    (r"\boxed{1,234}", "1234", True),
    (r"\boxed{1{,}234}", "1234", True),
    (r"\boxed{1\,234\,567}", "1234567", True),
    (r"\boxed{12,34}", "1234", False),
    ("She earns $1,250 a week.", "1250", True),
    # fractions, mixed numbers
    (r"\boxed{\frac{2}{4}}", r"\frac{1}{2}", True),
    (r"\boxed{\dfrac{3}{7}}", r"\frac{3}{7}", True),
    (r"\boxed{\tfrac37}", r"\frac{3}{7}", True),
    (r"\boxed{3/7}", r"\frac{3}{7}", True),
    (r"\boxed{\frac{7}{3}}", r"\frac{3}{7}", False),
    (r"\boxed{-\frac{1}{3}}", r"\frac{-1}{3}", True),
    (r"\boxed{2\frac{1}{2}}", r"\frac{5}{2}", True),
    (r"\boxed{0.333}", r"\frac{1}{3}", False),
    # roots, powers, constants
    (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", True),
    (r"\boxed{\sqrt{2}/2}", r"\frac{1}{\sqrt{2}}", True),
    (r"\boxed{\frac{\pi}{2}}", r"\pi/2", True),
    (r"\boxed{2^{10}}", "1024", True),
    (r"\boxed{\sqrt[3]{8}}", "2", True),
    (r"\boxed{e^2}", r"e^{2}", True),
    (r"\boxed{\log_2 8}", "3", True),
    (r"\boxed{5!}", "120", True),
    # algebra
    (r"\boxed{(x+1)^2}", "x^2+2x+1", True),
    (r"\boxed{x^2-1}", "(x-1)(x+1)", True),
    (r"\boxed{x^2+1}", "(x-1)(x+1)", False),
    (r"\boxed{10-4n}", "$10-4 n$", True),
    (r"\boxed{-4n+10}", "$10-4 n$", True),
    (r"\boxed{x = 5}", "5", True),
    (r"\boxed{5}", "x=5", True),
    (r"\boxed{y = 2x + 3}", "y=2x+3", True),
    (r"\boxed{y = 2x - 3}", "y=2x+3", False),
    (r"\boxed{a+b}", "b+a", True),
    # equations that nothing solves, or that need no solving
    (r"\boxed{x^2 + 50 = 1}", "x^2 + 50 = 0", False),
    (r"\boxed{50 + x^2 = 0}", "x^2 + 50 = 0", True),
    (r"\boxed{2y = 4x + 6}", "y = 2x + 3", True),
    (r"\boxed{I = e^{-t} \sin 31t}", r"I = e^{-t} \sin 30t", False),
    (r"\boxed{\frac{183}{16} = 11.4375}", "11.4375", True),
    (r"\boxed{\frac{1}{3} = 0.3}", r"\frac{1}{2} = 0.5", False),
    # pairs, tuples, lists, sets
    (r"\boxed{(3, \frac{\pi}{2})}", r"\left( 3, \frac{\pi}{2} \right)", True),
    (r"\boxed{(\frac{\pi}{2}, 3)}", r"\left( 3, \frac{\pi}{2} \right)", False),
    (r"\boxed{1, 2, 3}", "1,2,3", True),
    (r"\boxed{3, 2, 1}", "1,2,3", True),
    (r"\boxed{\{1, 2\}}", r"\{2, 1\}", True),
    (r"\boxed{\{1, 2, 3\}}", r"\{1, 2\}", False),
    (r"\boxed{x = 1 \text{ or } x = 2}", "1,2", True),
    # intervals
    (r"\boxed{[0, 1)}", "[0,1)", True),
    (r"\boxed{(0, 1)}", "[0,1)", False),
    (r"\boxed{(-\infty, 2]}", r"(-\infty,2]", True),
    (r"\boxed{(-\infty, 0) \cup (0, \infty)}", r"(-\infty,0)\cup(0,\infty)", True),
    (r"\boxed{x > 3}", r"(3,\infty)", True),
    (r"\boxed{x \ge 3}", r"(3,\infty)", False),
    # percent, units, money
    (r"\boxed{50\%}", "50", True),
    (r"\boxed{50\%}", r"50\%", True),
    (r"\boxed{0.5}", r"50\%", True),
    (r"\boxed{10 \text{ cm}}", "10", True),
    (r"\boxed{10\text{ cm}^2}", "10", True),
    (r"\boxed{\$18}", "18", True),
    (r"\boxed{90^\circ}", "90", True),
    (r"\boxed{6 \text{ hours}}", "6", True),
    # matrices, complex numbers
    (
        r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}}",
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        True,
    ),
    (
        r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}}",
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        False,
    ),
    (r"\boxed{3+4i}", "4i+3", True),
    (r"\boxed{3-4i}", "3+4i", False),
    # very small, very large, very close
    (r"\boxed{\frac{1}{2^{98}}}", "2^{-98}", True),
    (r"\boxed{1/2^{98}}", "1/2^{99}", False),
    (r"\boxed{\left(\frac{1}{2^{98}}, 1\right)}", r"\left(\frac{1}{2^{99}}, 1\right)", False),
    (r"\boxed{0.0000001}", "0.0000002", False),
    (r"\boxed{0.0000001}", "10^{-7}", True),
    ("It is 0.0000001.", "0.0000002", False),
    (r"\boxed{9007199254740993}", "9007199254740992", False),
    (r"\boxed{1.00000000000000000001}", "1", False),
    (r"\boxed{0.33333333}", r"\frac{1}{3}", False),
    (r"\boxed{0.25}", r"\frac{1}{4}", True),
    (r"\boxed{1.41421356237309504880168872420969807856967}", r"\sqrt{2}", False),
    (r"\boxed{\sqrt{2}+\sqrt{3}}", r"\sqrt{5+2\sqrt{6}}", True),
    (r"\boxed{0.50000001x}", r"\frac{x}{2}", False),
    (r"\boxed{0.5x + 1}", r"\frac{x}{2} + 1", True),
    (r"\boxed{x < 0.1}", r"x < \frac{1}{10}", True),
    (r"\boxed{\{0.1, 0.2\}}", r"\{\frac{1}{5}, \frac{1}{10}\}", True),
    (r"\boxed{\begin{pmatrix} 0.5 \\ 1 \end{pmatrix}}", r"\begin{pmatrix} \frac{1}{2} \\ 1 \end{pmatrix}", True),
    (
        r"\boxed{\begin{pmatrix} 0.50000001 \\ 1 \end{pmatrix}}",
        r"\begin{pmatrix} \frac{1}{2} \\ 1 \end{pmatrix}",
        False,
    ),
    (r"\boxed{9e400}", "8e400", False),
    ("The answer is 1e3", "1", False),
    # bases
    (r"\boxed{52_9}", "52_9", True),
    (r"\boxed{52_{9}}", "52_9", True),
    (r"\boxed{52_9}", "52_8", False),
    (r"\boxed{6_8 \cdot 7_8 = 52_8}", "52_8", True),
    (r"\boxed{52_9, 101_2}", "52_9, 101_3", False),
    (r"It is $52_9$.", "52_8", False),
    (r"\boxed{52}", "52_8", True),
    (r"\boxed{999}", "4343_6", False),
    # a minus sign of its own
    ("\u22125", "-5", True),
    ("\u22125", "5", False),
    ("\\boxed{\u22125}", "5", False),
    # intervals and inequalities
    (r"\boxed{-1 < x \le 3}", "(-1,3]", True),
    (r"\boxed{(-1,3]}", r"-1 < x \le 3", True),
    (r"\boxed{3 \ge x > -1}", "(-1,3]", True),
    (r"\boxed{-1 < x < 3}", "(-1,3]", False),
    (r"\boxed{-1 \le x \le 3}", "(-1,3]", False),
    (r"\boxed{-1 < x \le 4}", "(-1,3]", False),
    (r"\boxed{0.5 < x \le 1}", r"\left(\frac{1}{2}, 1\right]", True),
    (r"\boxed{x \in [1, 2)}", r"1 \le x < 2", True),
    # more money, approximations, references that are sentences
    (r"\boxed{\$36}", r"\$36", True),
    (r"\boxed{36}", r"\$36", True),
    (r"\boxed{37}", r"\$36", False),
    (r"\boxed{18.9}", r"\$18.90", True),
    (r"\boxed{32348}", r"\$32,\!348", True),
    ("She pays $36.", r"\$36", True),
    (r"\boxed{17.1}", r"$\approx 17.10 \mathrm{ft}$", True),
    (r"\boxed{0}", r"$x=0, \frac{5 \pm \sqrt{61}}{18}$", False),
    (r"\boxed{x=0, \frac{5 \pm \sqrt{61}}{18}}", r"$x=0, \frac{5 \pm \sqrt{61}}{18}$", True),
    (r"\boxed{x=0, \frac{5 \pm \sqrt{61}}{18}}", r"x=0, \frac{5 \pm \sqrt{61}}{18}", True),
    (r"\boxed{x=0, \frac{5 \pm \sqrt{61}}{19}}", r"x=0, \frac{5 \pm \sqrt{61}}{18}", False),
    (r"\boxed{2}", "2 seconds.", True),
    # more percent and units
    (r"\boxed{12.5\%}", "0.125", True),
    (r"\boxed{12.5}", r"12.5\%", True),
    (r"\boxed{10 \text{ m}}", r"10 \text{ cm}", False),
    (r"\boxed{x = \mathbf{7}}", "x = 6", False),
    (r"\boxed{x = \mathbf{6}}", "x = 6", True),
    (r"\boxed{3 \text{ cm}, 5 \text{ cm}}", r"3 \text{ cm}, 6 \text{ cm}", False),
    (r"\boxed{4 \mathrm{ft} \times 13 \mathrm{ft}}", r"4 \mathrm{ft} \times 12 \mathrm{ft}", False),
    # words, nothing
    ("I do not know.", "42", False),
    ("", "42", False),
    (r"\boxed{}", "42", False),
    (r"\boxed{\text{odd}}", r"\text{odd}", True),
    (r"\boxed{\text{even}}", r"\text{odd}", False),
]

DISAGREES = {
    CASES.index((r"\boxed{12.5}", r"12.5\%", True)),  # of whole numbers only, a percentage may lack its sign
    CASES.index((r"\boxed{10 \text{ m}}", r"10 \text{ cm}", False)),  # units are not compared
}
"""Cases in which `math` judges otherwise than a person."""


def test_there_are_enough_cases_of_both_kinds() -> None:
    assert len(CASES) >= 120
    assert sum(not right for *_, right in CASES) >= 40


@pytest.mark.parametrize("case", range(len(CASES)))
def test_math_grading_agrees_with_a_person(case: int) -> None:
    answer, reference, right = CASES[case]
    assert grade(answer, reference, "math") is (right if case not in DISAGREES else not right)


# -- the last number ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12 13 06 632", "632"),
        ("12 13 06 0632", "632"),
        ("the total is 1,234.", "1234"),
        (r"9{,}500", "9500"),
        (r"9\,500", "9500"),
        (r"\$32,\!348", "32348"),
        ("9\u202f500", "9500"),
        ("-1,234,567.89", "-1234567.89"),
        ("12,34", "34"),
        ("1,2345", "2345"),
        ("(1,2)", "2"),
        ("(1, 200)", "200"),
        (".5", "0.5"),
        ("x=.5", "0.5"),
        ("-.5", "-0.5"),
        ("see No.5", "5"),
        ("wait...5", "5"),
        ("version 3.5.2", "2"),
        ("it costs 3.50", "3.5"),
        ("so x = -5", "-5"),
        ("so x = \u22125", "-5"),
        (r"x\le-5", "-5"),
        ("$-5$", "-5"),
        ("2*(-3)", "-3"),
        ("5-7", "7"),
        ("5\u22127", "7"),
        ("x-7", "7"),
        ("(3)-7", "7"),
        ("5 - 7", "7"),
        ("1/2", "2"),
        ("2.5e3", "2500"),
        ("1e\u22125", "0.00001"),
        ("-0", "0"),
        ("9007199254740993", "9007199254740993"),
        ("9e999", "9e999"),
        ("90e998", "9e999"),
        ("1e999999999", "10e999999998"),
        ("7 apples, then 8", "8"),
    ],
)
def test_the_last_number_is_read_as_it_is_written(text: str, number: str) -> None:
    assert grade(text, number, "last-number")
    assert grade(number, text, "last-number")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"9{,}500", "500"),
        (".5", "5"),
        ("\u22125", "5"),
        ("(1,2)", "12"),
        ("5-7", "-7"),
        ("9007199254740993", "9007199254740992"),
        ("9e999", "8e999"),
        ("1e-400", "0"),
        ("1e999999999", "1e999999998"),
        ("0.1", "0.1000000000000000000000000000001"),
        ("no idea", "7"),
        ("", "7"),
        ("7", "no number"),
        ("7 apples, then 8", "7"),
    ],
)
def test_another_last_number_is_wrong(answer: str, reference: str) -> None:
    assert not grade(answer, reference, "last-number")


@pytest.mark.parametrize(
    ("answer", "reference", "tolerance", "right"),
    [
        ("about 3.14", "3.14159", "0.01", True),
        ("about 3.0", "3.14159", "0.01", False),
        ("1,010", "1000", "0.01", True),
        ("1010.0000000000000000001", "1000", "0.01", False),
        ("none", "1", "0.5", False),
        ("0.3", "0.1", "0.2", True),  # in binary fractions it is not
        ("0.3000000000000000000001", "0.1", "0.2", False),
        ("5", "5", "0", True),
        ("-1", "1e999999999", "1", False),  # 1e999999999 + 1 is beyond it by one
        ("1", "1e999999999", "1", True),
        ("1e999999999", "1", "0.5", False),
    ],
)
def test_a_number_within_tolerance(answer: str, reference: str, tolerance: str, right: bool) -> None:
    assert grade(answer, reference, f"number:{tolerance}") is right


@pytest.mark.parametrize("rule", ["number:", "number:x", "number:-1", "number:inf", "number:nan"])
def test_a_tolerance_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(QuestionError, match="does not name a tolerance"):
        grade("1", "1", rule)


@pytest.mark.parametrize("rule", ["math", "last-number", "number:0.5"])
@pytest.mark.parametrize(
    "absurd",
    ["1e999999999", "1E-999999999", "9" * 20_000, "1e" + "9" * 5000, "9^{9^{9^{9}}}", "100000000!", "2^{-10^{10}}"],
)
def test_an_absurd_number_costs_no_time(absurd: str, rule: str, caplog: pytest.LogCaptureFixture) -> None:
    started = time.process_time()
    assert not grade(rf"\boxed{{{absurd}}}", "5", rule)
    assert time.process_time() - started < 3, "the libraries may be loaded for it"
    assert "Timeout" not in caplog.text


# -- what holds of all -------------------------------------------------------------------------------------------------

RULES = st.sampled_from(["math", "last-number", "exact", "number:0"])


@given(st.integers() | st.integers(-(10**60), 10**60), RULES)
def test_a_whole_number_is_right_for_itself(number: int, rule: str) -> None:
    assert grade(str(number), str(number), rule)


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30) | st.integers(1, 3), st.booleans(), RULES)
def test_whole_numbers_that_differ_are_wrong(number: int, other: int, near: bool, rule: str) -> None:
    other = number + other if near else other
    assume(number != other)
    assert not grade(str(other), str(number), rule)
    assert not grade(rf"\boxed{{{other}}}", str(number), rule)


_FRACTIONS = st.fractions(max_denominator=10**25)


@given(
    _FRACTIONS, _FRACTIONS | st.fractions(min_value=Fraction(1, 10**25), max_value=Fraction(1, 10**20)), st.booleans()
)
def test_fractions_are_right_for_their_equals_alone(number: Fraction, other: Fraction, near: bool) -> None:
    other = number + other if near else other
    written = rf"\frac{{{number.numerator}}}{{{number.denominator}}}"
    assert grade(rf"\boxed{{{7 * number.numerator}/{7 * number.denominator}}}", written, "math")
    right = grade(rf"\boxed{{\frac{{{other.numerator}}}{{{other.denominator}}}}}", written, "math")
    assert right is (number == other)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12), st.integers(1, 9))
def test_decimals_that_differ_in_a_far_place_are_wrong(number, digit: int) -> None:
    written = f"{number:f}"
    for rule in ("math", "last-number"):
        assert grade(rf"\boxed{{{written}000}}", written, rule)
        assert not grade(rf"\boxed{{{written}{digit}}}", written, rule)


@given(st.text(), RULES)
def test_whatever_is_no_blank_is_right_for_itself(text: str, rule: str) -> None:
    assume(text.strip())
    assume(rule in ("math", "exact") or re.search(r"\d", text))
    assert grade(text, text, rule)


# -- the real question sets --------------------------------------------------------------------------------------------


def _references(name: str) -> tuple[list[str], str]:
    """The references of a registered set whose file is on this machine, and its rule."""
    declared = load_registry().question_set({"math500": "math-500", "college_math": "college-math"}.get(name, name))
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("the file is not on this machine")
    found = load_questions(declared.model_copy(update={"file": path, "hub": None}))
    return [question.reference for question in found], declared.grading


def _with_another_last(kind: str, reference: str) -> str | None:
    """The reference with the last of its digits, or of its letters, replaced by the next one; None without any.

    The exponent of a unit and letters that spell a command are not compared; nor is what follows an ≈.
    """
    unit = r"\\(?:text|mbox|mathrm)\{[^}]*\}\^(?:\d|\{\d\})"
    found = list(re.finditer(rf"{unit}|\\approx.*|\\[a-zA-Z]+|({kind})", reference, flags=re.DOTALL))
    last = next((one for one in reversed(found) if one[1]), None)
    if last is None:
        return None
    following = {"9": "0", "z": "a", "Z": "A"}.get(last[1]) or chr(ord(last[1]) + 1)
    return reference[: last.start(1)] + following + reference[last.end(1) :]


@pytest.mark.parametrize("name", ["gsm8k", "math500", "college_math"])
def test_every_reference_of_the_real_sets_is_right_by_its_own_rule(name: str) -> None:
    references, rule = _references(name)
    assert [each for each in references if not grade(rf"So it is \boxed{{{each}}}.", each, rule)] == []


@pytest.mark.parametrize(("name", "every"), [("gsm8k", 2), ("math500", 1), ("college_math", 100)])
def test_references_of_the_real_sets_with_another_last_digit_are_wrong(name: str, every: int) -> None:
    references, rule = _references(name)
    changed = [(each, _with_another_last(r"\d", each)) for each in references[::every]]
    assert sum(other is not None for _, other in changed) > 0.8 * len(changed)
    assert [each for each, other in changed if other and grade(rf"\boxed{{{other}}}", each, rule)] == []


def test_references_without_a_digit_and_with_another_last_letter_are_wrong() -> None:
    references, rule = _references("math500")
    changed = [(each, _with_another_last("[a-zA-Z]", each)) for each in references if not re.search(r"\d", each)]
    assert sum(other is not None for _, other in changed) >= 10
    assert [each for each, other in changed if other and grade(rf"\boxed{{{other}}}", each, rule)] == []


def test_real_solutions_are_graded_as_right_and_those_of_other_questions_as_wrong() -> None:
    path = SHARED / "math500.jsonl"
    if not path.exists():
        pytest.skip("the file is not on this machine")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][:60]
    right = [grade(row["solution"], row["answer"], "math") for row in rows]
    assert sum(right) >= 58
    other = [grade(row["solution"], rows[i - 1]["answer"], "math") for i, row in enumerate(rows)]
    assert sum(other) <= 3
