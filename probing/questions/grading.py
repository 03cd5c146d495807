"""Whether an answer is right.

`math` is Hugging Face's math-verify: it finds the final answer (in `\\boxed`, else the last expression) and compares it
with the reference by computer algebra. tests/probing/test_grading measures how it agrees with a hand-checked list.
"""

import math
import re
import threading
from collections.abc import Callable

from probing.errors import QuestionError
from probing.questions.sets import VERDICTS, Question

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")

_THIN_SPACE = re.compile(r"(?<=\d)\\,(?=\d{3}(?!\d))")
"""Between groups of three digits, which math-verify would take for a product."""

_PATIENCE = 5
"""Seconds that one comparison by computer algebra may take."""


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _same_last_number(answer: str, reference: str, tolerance: float = 0.0) -> bool:
    """The last number written in the answer equals the last in the reference; thousands separators are ignored."""
    number, wanted = _last_number(answer), _last_number(reference)
    if number is None or wanted is None:
        return False
    return number == wanted or abs(number - wanted) <= tolerance * max(1.0, abs(wanted))


def _same_mathematics(answer: str, reference: str) -> bool:
    """The final expression of the answer is the reference, by computer algebra."""
    from math_verify import parse, verify

    patience = _PATIENCE if threading.current_thread() is threading.main_thread() else None  # it needs a signal
    marked = reference if "\\boxed" in reference or "$" in reference else f"${reference}$"
    wanted, found = (parse(_THIN_SPACE.sub("", text), parsing_timeout=patience) for text in (marked, answer))
    return bool(wanted) and bool(found) and verify(wanted, found, timeout_seconds=patience)


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


def _tolerance(rule: str) -> float:
    try:
        tolerance = float(rule.removeprefix("number:"))
    except ValueError:
        tolerance = -1.0
    if not 0 <= tolerance < math.inf:
        raise QuestionError(f"'{rule}' does not name a tolerance.", "Write for example number:0.01.")
    return tolerance
