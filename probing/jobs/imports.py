"""Taking answers that were made elsewhere into the store, as if they had been generated here."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from probing.errors import RolloutError
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Plan, Spec
from probing.models import load_tokenizer, pieces
from probing.pairs import Registry
from probing.questions import Question, is_right, load_questions
from probing.rollout_files import Row, digest, read_rollouts
from probing.rollouts import Answer
from probing.store import Store
from probing.store.spool import AnswerBatch

AT_ONCE = 256
"""Answers in one batch."""


def import_rollouts(store: Store, spec: Spec, registry: Registry, path: Path, ungraded: bool = False) -> Spec:
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
        key, checkpoint = plan.rollout_key(side), plan.checkpoints[side]
        if store.rollout_finished(key):
            continue
        started = time.monotonic()
        tokenizer = load_tokenizer(checkpoint)
        store.start_rollout(
            key, plan.name_of(side), checkpoint.identity, question_set.name, plan.rollout_settings(side), len(rows)
        )
        for start in range(0, len(rows), AT_ONCE):
            chosen = rows[start : start + AT_ONCE]
            answers = [_answer(row, side, plan, tokenizer, known) for row in chosen]
            store.spool.put(
                AnswerBatch(
                    key,
                    tuple(range(start, start + len(chosen))),
                    tuple(row.question for row in chosen),
                    tuple(_question(row, known).reference for row in chosen),
                    tuple(tokenizer.decode(answer.prompt_tokens) for answer in answers),
                    tuple(answers),
                    tuple(pieces(tokenizer, answer.prompt_tokens) for answer in answers),
                    tuple(pieces(tokenizer, answer.tokens) for answer in answers),
                )
            )
            store.ingest()
        store.finish_rollout(key, {"file": path.name}, time.monotonic() - started)
    return spec


def _answer(row: Row, side: str, plan: Plan, tokenizer: Any, known: dict[str, Question]) -> Answer:
    """One side's answer in a row, graded."""
    prompt, tokens = row.tokens[side]
    outside = next((token for token in (*prompt, *tokens) if token >= len(tokenizer)), None)
    if outside is not None:
        raise RolloutError(
            f"{row.where} has token {outside} for {plan.name_of(side)}, which knows {len(tokenizer)}.",
            "Were these answers made with this pair?",
        )
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    right = is_right(_question(row, known), side == "tuned", text, plan.question_set.grading)
    return Answer(row.id, prompt, tokens, text, right)


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
