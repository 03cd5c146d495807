"""How `math` grading agrees with a person: pairs of answer and reference, judged by hand."""

import pytest

from probing.questions import grade

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
    # words, nothing
    ("I do not know.", "42", False),
    ("", "42", False),
    (r"\boxed{}", "42", False),
    (r"\boxed{\text{odd}}", r"\text{odd}", True),
    (r"\boxed{\text{even}}", r"\text{odd}", False),
]

DISAGREES = {
    CASES.index((r"\boxed{1e3}", "1000", True)),  # e is Euler's number
    CASES.index((r"\boxed{x > 3}", r"(3,\infty)", True)),  # an open ray is read as a pair
}
"""Cases in which `math` judges otherwise than a person; all are right answers that it does not recognise."""


def test_there_are_enough_cases_of_both_kinds() -> None:
    assert len(CASES) >= 60
    assert sum(not right for *_, right in CASES) >= 15


@pytest.mark.parametrize("case", range(len(CASES)))
def test_math_grading_agrees_with_a_person(case: int) -> None:
    answer, reference, right = CASES[case]
    assert grade(answer, reference, "math") is (right if case not in DISAGREES else not right)
