"""Taking answers that were made elsewhere into the store, as if they had been generated here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from probing.checkpoints import Checkpoint
from probing.errors import RolloutError
from probing.jobs.bench import Bench
from probing.jobs.crew import Alone, Team
from probing.jobs.filling import fill
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Spec
from probing.jobs.progress import Progress, silent
from probing.jobs.stages import Emit, Say, Stage
from probing.jobs.stages.answering import Given, Grading, graded
from probing.models import load_tokenizer
from probing.pairs import Registry
from probing.questions import Question, load_questions
from probing.rollout_files import Row, digest, read_rollouts
from probing.store import Store
from probing.store.leases import sign_of_life

AT_ONCE = 256
"""Answers in one batch."""


def import_rollouts(
    store: Store,
    spec: Spec,
    registry: Registry,
    path: Path,
    ungraded: bool = False,
    progress: Progress = silent,
) -> Spec:
    """Keep the answers of a file (see `rollout_files`), and return the job that uses them.

    Who is right is said by the file's column `cohort`; else the question set's references decide, found by the
    question's text; with `ungraded`, every row belongs to the cohort that the job asks for.

    Raises:
        PersonError: the file cannot be read, nothing says who is right, or a token is not in the vocabulary.
    """
    rows = read_rollouts(path)
    question_set = registry.question_set(spec.questions)
    if ungraded and spec.selection.cohort == "any":
        raise RolloutError("'any' is no cohort that ungraded answers can belong to.", "Name one with --cohort.")
    if ungraded:
        rows = [replace(row, cohort=spec.selection.cohort) for row in rows]
    known: dict[str, Question] = {}
    if any(row.cohort is None for row in rows):
        known = {question.text.strip(): question for question in load_questions(question_set)}
    spec = replace(spec, rollouts=digest(rows))
    plan = make_plan(spec, registry)
    team = Team(store, Alone(), progress)

    def source(side: str) -> tuple[Importing, list[str]]:
        key, checkpoint = plan.rollout_key(side), plan.checkpoints[side]
        grading = Grading(key, side == "base", question_set.grading)
        stage = Importing(key, tuple(rows), side, plan.name_of(side), checkpoint, known, grading, path.name)
        return stage, [row.id for row in rows]

    with sign_of_life(store.path, team.name):
        try:
            for side in SIDES:
                fill(team, plan, side, partial(source, side))
        finally:
            store.leases.give_back(team.name)
    return spec


@dataclass(frozen=True)
class Importing(Stage[int]):
    """One side's answers in a file; it is laid out as the number that is taken at once."""

    key: str
    rows: tuple[Row, ...]
    side: str
    model: str
    """Its name."""
    checkpoint: Checkpoint
    known: Mapping[str, Question]
    grading: Grading
    file: str

    def lay_out(self, bench: Bench) -> int:
        """The same wherever it is done."""
        return AT_ONCE

    def do(self, items: Sequence[str], bench: Bench, say: Say, emit: Emit) -> None:
        """Judge some answers."""
        tokenizer = bench.kept("tokenizer", lambda: load_tokenizer(self.checkpoint))
        wanted = set(items)
        given = [self._given(place, row, tokenizer) for place, row in enumerate(self.rows) if row.id in wanted]
        emit(graded(given, self.grading, tokenizer))

    def made(self, bench: Bench) -> dict[str, Any]:
        """By whom nobody knows."""
        return {"file": self.file}

    def _given(self, place: int, row: Row, tokenizer: Any) -> Given:
        prompt, tokens = row.tokens[self.side]
        outside = next((token for token in (*prompt, *tokens) if token >= len(tokenizer)), None)
        if outside is not None:
            raise RolloutError(
                f"{row.where} has token {outside} for {self.model}, which knows {len(tokenizer)}.",
                "Were these answers made with this pair?",
            )
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        return Given(place, _question(row, self.known), tokenizer.decode(prompt), prompt, tokens, text)


def _question(row: Row, known: Mapping[str, Question]) -> Question:
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
