"""Answers made elsewhere, in the JSON lines that the paper's authors use, so that nothing is generated twice.

A line is one question with the tokens of both models' answers:

    {"idx": 7, "question": "...",
     "base_prompt_tokens": [...], "base_answer_tokens": [...], "base_answer_tokens_range": [41, 167],
     "rl_prompt_tokens": [...], "rl_answer_tokens": [...], "rl_answer_tokens_range": [41, 151]}

A range says where in prompt + answer the answer lies, its end excluded. Who was right is in none of these columns:
their files hold one cohort each. A column `cohort` may say it; where it does not, answers are graded like any others.

Source: the code of arXiv:2509.21044.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probing.errors import RolloutError
from probing.files import whole
from probing.jsonl import as_text, read_rows
from probing.questions import VERDICTS
from probing.rollouts import Answer, cohort_of

NAMES = {"base": "base", "tuned": "rl"}
"""How the columns call the two sides."""

_LARGEST = 2**31


@dataclass(frozen=True)
class Row:
    """One question, and each side's prompt and answer tokens."""

    id: str
    question: str
    tokens: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    cohort: str | None
    where: str
    """The words that name its line."""


def read_rollouts(path: Path) -> list[Row]:
    """The rows of a file.

    Raises:
        RolloutError: the file is missing, empty or not JSON lines, a column is missing or holds something else (the
            line is named), or an id repeats.
    """
    rows: dict[str, Row] = {}
    for where, content in read_rows(path, RolloutError):
        row = _row(content, where)
        if row.id in rows:
            raise RolloutError(f"{where} repeats the idx '{row.id}'.", "Each question must have its own.")
        rows[row.id] = row
    if not rows:
        raise RolloutError(f"{path} holds no answers.", "Give it at least one line.")
    return list(rows.values())


def _row(content: Any, where: str) -> Row:
    wanted = ["idx", "question", *(f"{name}_{part}_tokens" for name in NAMES.values() for part in ("prompt", "answer"))]
    missing = [column for column in wanted if not isinstance(content, dict) or content.get(column) is None]
    if missing:
        raise RolloutError(f"{where} lacks {', '.join(missing)}.", "See the README for the format.")
    tokens = {}
    for side, name in NAMES.items():
        prompt, answer = (_tokens(content, f"{name}_{part}_tokens", where) for part in ("prompt", "answer"))
        stated = content.get(f"{name}_answer_tokens_range")
        if stated is not None and stated != [len(prompt), len(prompt) + len(answer)]:
            raise RolloutError(
                f"{where} has {name}_answer_tokens_range {str(stated)[:60]}, but its answer lies at "
                f"[{len(prompt)}, {len(prompt) + len(answer)}] of prompt + answer.",
                "Leave the range out, or make it again.",
            )
        tokens[side] = (prompt, answer)
    cohort = content.get("cohort")
    if cohort is not None and not (isinstance(cohort, str) and cohort in VERDICTS):
        raise RolloutError(f"{where} has the cohort '{str(cohort)[:60]}'.", f"Cohorts: {', '.join(VERDICTS)}.")
    name, question = (as_text(content[column], column, where, RolloutError) for column in ("idx", "question"))
    return Row(name, question, tokens, cohort, where)


def _tokens(content: dict[str, Any], column: str, where: str) -> tuple[int, ...]:
    tokens = content[column]
    if not isinstance(tokens, list) or not tokens or not all(type(t) is int and 0 <= t < _LARGEST for t in tokens):
        raise RolloutError(f"{where} has no list of token ids in {column}.", "See the README for the format.")
    return tuple(tokens)


def digest(rows: Iterable[Row]) -> str:
    """Identity of the answers in a file."""
    content = [[row.id, row.question, row.tokens, row.cohort] for row in rows]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def write_rollouts(path: Path, questions: Mapping[str, str], base: list[Answer], tuned: list[Answer]) -> None:
    """Write both sides' answers to the same questions (text by id); complete or not at all.

    Raises:
        RolloutError: the place cannot be written.
    """
    with whole(path, RolloutError) as part, part.open("w", encoding="utf-8") as file:
        for b, t in zip(base, tuned, strict=True):
            row: dict[str, Any] = {"idx": b.question_id, "question": questions[b.question_id]}
            for side, answer in (("base", b), ("tuned", t)):
                name, start = NAMES[side], len(answer.prompt_tokens)
                row[f"{name}_prompt_tokens"] = answer.prompt_tokens
                row[f"{name}_answer_tokens"] = answer.tokens
                row[f"{name}_answer_tokens_range"] = [start, start + len(answer.tokens)]
            file.write(json.dumps(row | {"cohort": cohort_of(b, t)}) + "\n")
