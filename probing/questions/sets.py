"""Question sets: JSON lines or Parquet, in a file or in a data set on the Hugging Face hub."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from probing.errors import QuestionError
from probing.hub import fetch
from probing.jsonl import as_text, check_size, read_rows
from probing.pairs import QuestionSet


@dataclass(frozen=True)
class Question:
    """One question and the answer that is right."""

    id: str
    text: str
    reference: str
    cohort: str | None = None
    """Who is right, where the set says it and answers are not graded."""
    counterpart: str | None = None
    """Another question, of as many tokens, on which a reference is read."""


VERDICTS = {
    "both_correct": (True, True),
    "both_wrong": (False, False),
    "base_only": (True, False),
    "tuned_only": (False, True),
}
"""Whether the base and the tuned model are right, by the name of the cohort."""


def load_questions(questions: QuestionSet) -> list[Question]:
    """The questions of a set, in the order of its file or files.

    Without a column for ids, a question's is its number in the set, from 1. A question that is there again as it was,
    as in a file with a line for each way of scoring it (lm-eval's), is one.

    Raises:
        QuestionError: a file is missing, is something else or is empty, the hub does not deliver it, or a line (which
            is named) lacks a column or a reference, has neither text nor a number there, or repeats another's id.
    """
    loaded: dict[str, Question] = {}
    for path in _files(questions):
        for where, row in _rows(path):
            question = _question(questions, where, row, len(loaded) + 1)
            if loaded.get(question.id, question) != question:
                raise QuestionError(f"{where} repeats the id '{question.id}'.", "Each question must have its own.")
            loaded[question.id] = question
    if not loaded:
        raise QuestionError(f"{questions.source} holds no questions.", "Give it at least one line.")
    return list(loaded.values())


def _question(questions: QuestionSet, where: str, row: Any, number: int) -> Question:
    if not isinstance(row, dict):
        raise QuestionError(f"{where} is not a JSON object.", "Each line should be one, with its columns.")
    graded = questions.cohort is None
    last = questions.answer if graded else questions.cohort
    wanted = [column for column in (questions.id, questions.question, last) if column]
    beside = {questions.answer, *([questions.counterpart] if questions.counterpart else [])}
    found = {column: _at(row, column, where) for column in {*wanted, *beside}}
    missing = [column for column in wanted if found[column] is None]
    if missing:
        columns = f"the columns {', '.join(wanted)}" if len(missing) > 1 else f"the column {missing[0]}"
        raise QuestionError(
            f"{where} does not have {columns}. It has {', '.join(map(str, row))}.", "Name its columns in pairs.toml."
        )

    def text(column: str) -> str:
        value = found[column]
        if isinstance(value, dict) and value:
            first = f"{column}.{next(iter(value))}"
            parts = ", ".join(map(str, value))
            raise QuestionError(
                f"{where} has a structure ({parts}) in its column {column}.", f"Name one of its parts, such as {first}."
            )
        return as_text(value, column, where, QuestionError)

    if isinstance(found[questions.question], list):
        found[questions.question] = _only_message(found[questions.question], questions.question, where)
    asked = text(questions.question)
    other = questions.counterpart
    counterpart = None if other is None or found[other] is None else text(other)
    name = text(questions.id) if questions.id else f"{number:05}"
    if not graded:
        assert questions.cohort is not None
        cohort = text(questions.cohort)
        if cohort not in VERDICTS:
            raise QuestionError(f"{where} has the cohort '{cohort[:60]}'.", f"Cohorts: {', '.join(VERDICTS)}.")
        return Question(
            name, asked, "" if found[questions.answer] is None else text(questions.answer), cohort, counterpart
        )
    reference = _FINAL[questions.final](text(questions.answer))
    if reference is None or not reference.strip():
        raise QuestionError(
            f"{where} has no final answer in its column {questions.answer}.", f"'{questions.final}' was looked for."
        )
    return Question(name, asked, reference, counterpart=counterpart)


def _at(row: dict[str, Any], column: str, where: str) -> Any:
    """What a column holds; `a.b` is the part b of the structure in column a, where there is no column of that name."""
    names = [column] if column in row else column.split(".")
    try:
        value = row.get(names[0])
        value = value.as_py() if isinstance(value, pa.Scalar) else value
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise QuestionError(f"{where} has something unreadable in its column {names[0]}.", "Is it UTF-8?") from error
    for name in names[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _only_message(messages: list[Any], column: str, where: str) -> Any:
    """The text of a chat that is one message of the user (verl's layout)."""
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if roles == ["user"]:
        return messages[0].get("content")
    if roles and None not in roles:
        raise QuestionError(
            f"{where} has a chat in its column {column} ({', '.join(map(str, roles))}).",
            "A question is one message of the user; a pair's template says what stands around it.",
        )
    return messages


def last_boxed(text: str) -> str | None:
    r"""What the last `\boxed{}` holds; braces inside it count, those that are to be seen (`\{`) do not."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for found in re.finditer(r"\\.|[{}]", text[start + len("\\boxed") :], flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : start + len("\\boxed") + found.start()]
    return None


def _after_hashes(text: str) -> str | None:
    found = re.findall(r"^####\s*(.+)$", text, flags=re.MULTILINE)
    return found[-1].strip() if found else None


_FINAL = {"whole": lambda text: text, "boxed": last_boxed, "hashes": _after_hashes}
"""Where in its column a reference stands: all of it, in the last \\boxed{}, or behind #### (GSM8K)."""


def _files(questions: QuestionSet) -> list[Path]:
    if questions.file is not None:
        return [questions.file]
    assert questions.hub is not None
    folder = fetch(questions.hub, "dataset", questions.hub_revision, questions.hub_files, QuestionError)
    found = sorted({path for pattern in questions.hub_files for path in folder.glob(pattern)})
    if not found:
        raise QuestionError(
            f"The data set '{questions.hub}' has no file like {', '.join(questions.hub_files)}.", "Check hub_files."
        )
    return found


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix != ".parquet":
        yield from read_rows(path, QuestionError)
        return
    try:
        check_size(path, QuestionError)
        parts = pyarrow.parquet.read_metadata(path)
        unpacked = sum(parts.row_group(i).total_byte_size for i in range(parts.num_row_groups))
        check_size(path, QuestionError, unpacked)
        table = pyarrow.parquet.read_table(path)
    except FileNotFoundError as error:
        raise QuestionError(f"Cannot read {path}: No such file or directory.", "Check the path.") from error
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is no text
        raise QuestionError(f"{path} is not a complete Parquet file.", "Was it cut short?") from error
    number = 0
    for part in table.to_batches():
        for row in zip(*part.columns, strict=True):
            number += 1
            yield f"Row {number} of {path}", dict(zip(part.schema.names, row, strict=True))


def digest(questions: list[Question]) -> str:
    """Identity of the content of a question set."""
    rows = [
        [question.id, question.text, question.reference, *([question.cohort] if question.cohort else [])]
        for question in questions
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]
