"""What is asked: question sets, prompt templates, and the grading of answers."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from probing.errors import QuestionError
from probing.jsonl import read_rows
from probing.pairs import QuestionSet

TEMPLATES = {
    "plain": "{q}",
    "deepseek-math": (
        "User: {q}\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:"
    ),
    "mistral": "[INST] {q}[/INST]",
    "qwen25-math-cot": (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n"
    ),
}
"""Prompt templates by name; `{q}` stands for the question."""


@dataclass(frozen=True)
class Question:
    """One question and the answer that is right."""

    id: str
    text: str
    reference: str


def prompt_for(question: Question, template: str) -> str:
    """The text that a model continues.

    Raises:
        QuestionError: there is no such template.
    """
    if template not in TEMPLATES:
        raise QuestionError(f"There is no prompt template '{template}'.", f"Templates: {', '.join(TEMPLATES)}.")
    return TEMPLATES[template].replace("{q}", question.text)


def load_questions(questions: QuestionSet) -> list[Question]:
    """The questions of a set, in the order of its file.

    Raises:
        QuestionError: the file is missing, empty, or a line of it (which is named) lacks a column or is not JSON.
    """
    loaded: dict[str, Question] = {}
    for where, row in read_rows(questions.file, QuestionError):
        try:
            columns = (row[questions.id], row[questions.question], row[questions.answer])
        except (KeyError, TypeError) as error:
            wanted = f"{questions.id}, {questions.question} and {questions.answer}"
            raise QuestionError(f"{where} does not have the columns {wanted}.", "Check pairs.toml.") from error
        question = Question(*map(str, columns))
        if question.id in loaded:
            raise QuestionError(f"{where} repeats the id '{question.id}'.", "Ids must be unique.")
        loaded[question.id] = question
    if not loaded:
        raise QuestionError(f"{questions.file} holds no questions.", "Give it at least one line.")
    return list(loaded.values())


def digest(questions: list[Question]) -> str:
    """Identity of the content of a question set."""
    rows = [[question.id, question.text, question.reference] for question in questions]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _same_last_number(answer: str, reference: str) -> bool:
    """The last number written in the answer equals the last in the reference; thousands separators are ignored."""
    number = _last_number(answer)
    return number is not None and number == _last_number(reference)


GRADERS: dict[str, Callable[[str, str], bool]] = {
    "last-number": _same_last_number,
    "exact": lambda answer, reference: answer.strip() == reference.strip(),
}
"""How an answer can be compared with the reference, by name."""


def grade(answer: str, reference: str, rule: str) -> bool:
    """Whether `answer` is right.

    Raises:
        QuestionError: there is no such grading rule.
    """
    if rule not in GRADERS:
        raise QuestionError(f"There is no grading rule '{rule}'.", f"Rules: {', '.join(GRADERS)}.")
    return GRADERS[rule](answer, reference)
