r"""Whether an answer is right. Numbers are compared exactly: no rule but `number:TOLERANCE` takes two for one.

`math` is Hugging Face's math-verify, which finds the final answer (in `\boxed`, else the last expression) and compares
it with the reference by computer algebra. By itself it rounds decimals to 6 places, takes a difference below 1e-15 for
none and drops the base of a numeral; here decimals become fractions, the precision is as large as the numbers at hand
ask for, and bases count. tests/probing/test_grading measures how it agrees with a hand-checked list.

`last-number` reads the last number that is written, with its thousands separators, sign and exponent; each number of a
fraction, a range or a pair stands for itself.
"""

import math
import re
import threading
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_UP, Context, Decimal, InvalidOperation
from typing import Any

from probing.errors import QuestionError
from probing.questions.sets import VERDICTS, Question, last_boxed

# -- the last number ---------------------------------------------------------------------------------------------------

_COMMAND = re.compile(r"\\[a-zA-Z]+")

_SEPARATOR = r"(?:,(?:\\!)?|\{,\}|\\[,;:!]|[\u2009\u202f])"
"""Between groups of three digits, as text or LaTeX."""

_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])[-\u2212])?"  # behind a number, a word or a bracket it is an operator
    rf"(?:(?:[1-9]\d{{0,2}}(?:{_SEPARATOR}\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.)\]}}])\.\d+)"
    r"(?:[eE][-+\u2212]?\d+)?"
)

_FARTHEST = 10**12
"""The largest exponent of ten of what is taken for a number."""


def _decimal(text: str) -> Decimal | None:
    """The number that a text is, exactly; None if it is none, or of an absurd size."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) <= _FARTHEST else None


def _last_number(text: str) -> Decimal | None:
    found = _NUMBER.findall(_COMMAND.sub(" ", text))
    return _decimal(re.sub(_SEPARATOR, "", found[-1]).replace("\u2212", "-")) if found else None


def _same_last_number(answer: str, reference: str, tolerance: Decimal = Decimal(0)) -> bool:
    """The last number written in the answer equals the last in the reference, or is within T × max(1, |it|) of it."""
    number, wanted = _last_number(answer), _last_number(reference)
    if number is None or wanted is None:
        return False
    if not tolerance:
        return number == wanted
    # The bound has no more digits than this, so the difference rounded up to as many is below it just if it is itself.
    digits = len(wanted.as_tuple().digits) + len(tolerance.as_tuple().digits)
    exactly = Context(prec=digits, rounding=ROUND_UP, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
    bound = exactly.multiply(tolerance, max(Decimal(1), wanted.copy_abs()))
    return exactly.subtract(number, wanted).copy_abs() <= bound


def _tolerance(rule: str) -> Decimal:
    tolerance = _decimal(rule.removeprefix("number:"))
    if tolerance is None or tolerance < 0:
        raise QuestionError(f"'{rule}' does not name a tolerance.", "Write for example number:0.01.")
    return tolerance


# -- mathematics -------------------------------------------------------------------------------------------------------

_PATIENCE = 5
"""Seconds that one comparison by computer algebra may take."""

_MOST_DIGITS = 4000
"""Of numbers that are worked out; larger ones are compared as they are written."""

_BASED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)_(?:\{\s*(\d+)\s*\}|(\d))")
"""A numeral with its base."""

_WORDS = re.compile(
    r"(\\(?:text(?:normal|bf|it|rm)?|mbox|math(?:rm|it|bf)))(\{(?!\s*,?\s*(?:and|or)\s*\})[^{}]*\})"
    r"(?!(?:\^\d|\^\{\d\})?\s*(?:[}$]|\\[\])]|$))"
)
"""Words within a formula, such as the unit of the first of two numbers."""

_DOLLARS = re.compile(r"(?<!\\)\$+")

_SCIENTIFIC = re.compile(r"(?<!\d)(\d+(?:\.\d*)?|\.\d+)[eE]([-+]?\d+)")


def _plain(text: str) -> str:
    """The text with what math-verify misreads written otherwise."""
    text = text.replace("\u2212", "-")
    text = re.sub(r"(?<!\\)\\\$", "", text)  # money
    text = re.sub(r"(?<=\d)\\,(?=\d{3}(?!\d))", "", text)  # between thousands, not a product
    text = re.sub(r"\\(?:text(?:normal|bf|it|rm)?|mbox|math(?:rm|it|bf))\{\s*(-?\d[\d.,]*)\s*\}", r" \1 ", text)  # bold
    text = _WORDS.sub(r"\1 \2", text)  # from the first brace of a unit on, all would be left out
    return _SCIENTIFIC.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    """A number without its exponent of ten, or, where that is long, with a power in its place."""
    return f"{Decimal(found[0]):f}" if len(found[2]) < 4 else rf"{found[1]} \cdot 10^{{{found[2]}}}"


def _same_mathematics(answer: str, reference: str) -> bool:
    """The answer is the reference, as it is written or by computer algebra."""
    wanted, said = ((last_boxed(text) or text).strip() for text in (reference, answer))
    if wanted and said == wanted:
        return True
    wanted, found = _plain(_formula(wanted)), _plain(answer)
    if _BASED.search(wanted) and _BASED.search(_plain(said)):  # where one states no base, the question gives it
        wanted, found = (_BASED.sub(r"n_{\1,\2\3}", text) for text in (wanted, found))
    return _equal(wanted, found)


def _formula(reference: str) -> str:
    """What is to be found of a reference: its formula, where it holds a single one, else all of it."""
    parts = _DOLLARS.split(reference)
    alone = parts[1] if len(parts) == 3 and parts[1].strip() else "".join(parts)
    return re.sub(r"^\s*\\approx|\.?\s*$", "", alone)


def _equal(formula: str, answer: str) -> bool:
    """What math-verify finds in an answer is this formula."""
    import sympy
    from math_verify import LatexExtractionConfig, parse, verify

    patience = _PATIENCE if threading.current_thread() is threading.main_thread() else None  # it needs a signal
    in_box = [LatexExtractionConfig(try_extract_without_anchor=False)]  # a part of what it holds is no answer
    wanted = parse(rf"\boxed{{{formula}}}", in_box, parsing_timeout=patience)
    if "\\boxed" in answer:
        found = parse(_DOLLARS.sub("", answer), in_box, parsing_timeout=patience)
    else:
        found = parse(answer, parsing_timeout=patience)
    try:
        digits = max((_digits(one) for one in wanted), default=0) + max((_digits(one) for one in found), default=0)
        if digits > _MOST_DIGITS:
            return False
        wanted, found = ([_exact(one) for one in several] for several in (wanted, found))
    except Exception:  # SymPy raises what it likes over nonsense; math-verify's own functions catch that
        return False
    # Fractions that differ, and have so many digits together, do so before the place of that number; roots need more.
    precision = 15 + 2 * math.ceil(digits)

    def same(one: Any, other: Any) -> bool:
        return verify(one, other, numeric_precision=precision, allow_set_relation_comp=True, timeout_seconds=patience)

    def alike(one: Any, other: Any) -> bool:
        if not same(one, other):
            return False
        if not (isinstance(one, sympy.Eq) and isinstance(other, sympy.Eq)) or _is_solved(one, patience):
            return True
        return same(one.lhs, other.lhs) and same(one.rhs, other.rhs)

    return any(alike(one, other) for one in wanted for other in found)


def _is_solved(equation: Any, patience: int | None) -> bool:
    """Whether anything solves an equation; math-verify takes two that nothing solves for the same."""
    import sympy
    from math_verify.errors import TimeoutException
    from math_verify.utils import timeout

    try:
        return bool(timeout(patience)(sympy.solve)(equation, equation.free_symbols))
    except (Exception, TimeoutException):
        return False


def _digits(expression: Any) -> float:
    """How many decimal digits the numbers of an expression have when it is worked out, at most."""
    import sympy

    if isinstance(expression, str):
        return 0
    if isinstance(expression, sympy.MatrixBase):
        return sum(map(_digits, expression.flat()))
    if isinstance(expression, sympy.Rational):
        return (int(expression.p).bit_length() + int(expression.q).bit_length()) * math.log10(2)
    if isinstance(expression, sympy.Float):
        _, _, exponent, bits = expression._mpf_
        return (abs(exponent) + bits) * math.log10(2)
    parts = [_digits(part) for part in expression.args]
    if isinstance(expression, sympy.Pow | sympy.exp | sympy.factorial):
        return parts[0] * 10 ** min(parts[-1], 9) + parts[-1]
    return sum(parts)


def _exact(expression: Any) -> Any:
    """The expression with its decimals as fractions, and of an equation between numbers the last."""
    import sympy

    if isinstance(expression, sympy.MatrixBase):
        return expression.applyfunc(_exact)
    if isinstance(expression, sympy.Float):
        return sympy.Rational(str(expression))
    if isinstance(expression, str) or not expression.has(sympy.Float, sympy.Eq):
        return expression
    if isinstance(expression, sympy.Eq) and not expression.free_symbols:
        return _exact(expression.rhs)
    parts = map(_exact, getattr(expression, "_unsorted_args", expression.args))  # of math-verify's own sets and chains
    as_written = isinstance(expression, sympy.Add | sympy.Mul | sympy.Pow | sympy.core.relational.Relational)
    return expression.func(*parts, evaluate=False) if as_written else expression.func(*parts)


# -- rules -------------------------------------------------------------------------------------------------------------

GRADERS: dict[str, Callable[[str, str], bool]] = {
    "math": _same_mathematics,
    "last-number": _same_last_number,
    "exact": lambda answer, reference: answer.strip() == reference.strip(),
}
"""How an answer can be compared with the reference, by name; `number:T` allows a difference of T × max(1, |it|)."""


def grade(answer: str, reference: str, rule: str) -> bool:
    """Whether `answer` is right.

    Raises:
        QuestionError: there is no such grading rule.
    """
    if rule.startswith("number:"):
        return _same_last_number(answer, reference, _tolerance(rule))
    if rule not in GRADERS:
        known = ", ".join((*GRADERS, "number:TOLERANCE", "none"))
        raise QuestionError(f"There is no grading rule '{rule}'.", f"Rules: {known}.")
    return GRADERS[rule](answer, reference)


def is_right(question: Question, tuned: bool, answer: str, rule: str) -> bool:
    """Whether an answer of the base, or of the tuned model, is right: as its question's cohort says, or by grading."""
    if question.cohort is not None:
        return VERDICTS[question.cohort][tuned]
    return grade(answer, question.reference, rule)
