"""Taking answers that were made elsewhere into the store, as if they had been generated here."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from probing.errors import RolloutError
from probing.jobs.filling import Given, Source, fill
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Plan, Spec
from probing.jobs.progress import Progress
from probing.models import load_tokenizer
from probing.pairs import Registry
from probing.questions import Question, load_questions
from probing.rollout_files import Row, digest, read_rollouts
from probing.store import Store

AT_ONCE = 256
"""Answers in one batch."""


def import_rollouts(
    store: Store,
    spec: Spec,
    registry: Registry,
    path: Path,
    ungraded: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Spec:
    """Keep the answers of a file (see `rollout_files`), and return the job that uses them.

    Who is right is said by the file's column `cohort`; else the question set's references decide, found by the
    question's text; with `ungraded`, every row belongs to the cohort that the job asks for.

    Raises:
        PersonError: the file cannot be read, nothing says who is right, or a token is not in the vocabulary.
    """
    rows = read_rollouts(path)
    question_set = registry.question_set(spec.questions)
    if ungraded:
        rows = [replace(row, cohort=spec.selection.cohort) for row in rows]
    known: dict[str, Question] = {}
    if any(row.cohort is None for row in rows):
        known = {question.text.strip(): question for question in load_questions(question_set)}
    spec = replace(spec, rollouts=digest(rows))
    plan = make_plan(spec, registry)
    for side in SIDES:
        fill(store, plan, side, partial(_file, path, rows, side, plan, known), progress)
    return spec


def _file(path: Path, rows: list[Row], side: str, plan: Plan, known: dict[str, Question]) -> Source:
    """One side's answers in a file."""
    tokenizer = load_tokenizer(plan.checkpoints[side])

    def give(batch: list[int], say: Callable[[], None]) -> list[Given]:
        return [_given(rows[i], side, plan, tokenizer, known) for i in batch]

    return Source([row.id for row in rows], give, AT_ONCE, tokenizer, {"file": path.name})


def _given(row: Row, side: str, plan: Plan, tokenizer: Any, known: dict[str, Question]) -> Given:
    """One side's answer in a row."""
    prompt, tokens = row.tokens[side]
    outside = next((token for token in (*prompt, *tokens) if token >= len(tokenizer)), None)
    if outside is not None:
        raise RolloutError(
            f"{row.where} has token {outside} for {plan.name_of(side)}, which knows {len(tokenizer)}.",
            "Were these answers made with this pair?",
        )
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Given(_question(row, known), tokenizer.decode(prompt), prompt, tokens, text)


def _question(row: Row, known: dict[str, Question]) -> Question:
    """What a row's answers are judged by."""
    found = known.get(row.question.strip())
    if row.cohort is not None:
        return Question(row.id, row.question, found.reference if found else "", row.cohort)
    if found is None:
        raise RolloutError(
            f"{row.where} has no cohort, and its question is not in the question set.",
            "Name the set it comes from with --questions, add a column cohort, or use --ungraded.",
        )
    return found
