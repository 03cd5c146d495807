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
from probing.jsonl import check_size, read_rows
from probing.pairs import QuestionSet


@dataclass(frozen=True)
class Question:
    """One question and the answer that is right."""

    id: str
    text: str
    reference: str
    cohort: str | None = None
    """Who is right, where the set says it and answers are not graded."""


VERDICTS = {
    "both_correct": (True, True),
    "both_wrong": (False, False),
    "base_only": (True, False),
    "tuned_only": (False, True),
}
"""Whether the base and the tuned model are right, by the name of the cohort."""


def load_questions(questions: QuestionSet) -> list[Question]:
    """The questions of a set, in the order of its file or files.

    Without a column for ids, a question's is its number in the set, from 1.

    Raises:
        QuestionError: a file is missing, is something else or is empty, the hub does not deliver it, or a line (which
            is named) lacks a column or a reference, or repeats an id.
    """
    loaded: dict[str, Question] = {}
    for path in _files(questions):
        for where, row in _rows(path):
            question = _question(questions, where, row, len(loaded) + 1)
            if question.id in loaded:
                raise QuestionError(f"{where} repeats the id '{question.id}'.", "Ids must be unique.")
            loaded[question.id] = question
    if not loaded:
        raise QuestionError(f"{questions.source} holds no questions.", "Give it at least one line.")
    return list(loaded.values())


def _question(questions: QuestionSet, where: str, row: Any, number: int) -> Question:
    graded = questions.cohort is None
    last = questions.answer if graded else questions.cohort
    wanted = [column for column in (questions.id, questions.question, last) if column]
    missing = [column for column in wanted if not isinstance(row, dict) or row.get(column) is None]
    if missing:
        there = f"It has {', '.join(map(str, row))}." if isinstance(row, dict) else "It is not a JSON object."
        columns = f"the columns {', '.join(wanted)}" if len(missing) > 1 else f"the column {missing[0]}"
        raise QuestionError(f"{where} does not have {columns}. {there}", "Name its columns in pairs.toml.")
    name = str(row[questions.id]) if questions.id else f"{number:05}"
    if not graded:
        cohort = str(row[questions.cohort])
        if cohort not in VERDICTS:
            raise QuestionError(f"{where} has the cohort '{cohort[:60]}'.", f"Cohorts: {', '.join(VERDICTS)}.")
        return Question(name, str(row[questions.question]), str(row.get(questions.answer) or ""), cohort)
    reference = _FINAL[questions.final](str(row[questions.answer]))
    if reference is None:
        raise QuestionError(
            f"{where} has no final answer in its column {questions.answer}.", f"'{questions.final}' was looked for."
        )
    return Question(name, str(row[questions.question]), reference)


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
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"Row {number} of {path}", row


def digest(questions: list[Question]) -> str:
    """Identity of the content of a question set."""
    rows = [
        [question.id, question.text, question.reference, *([question.cohort] if question.cohort else [])]
        for question in questions
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]
