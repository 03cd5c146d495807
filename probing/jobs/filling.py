"""Filling a rollout with one side's answers, batch by batch, whether they are generated or were made elsewhere."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from probing.fitting import batch_by_batch
from probing.jobs.plan import Plan
from probing.jobs.progress import Progress
from probing.models import pieces
from probing.questions import Question, is_right
from probing.rollouts import Answer
from probing.store import Store
from probing.store.spool import AnswerBatch


@dataclass(frozen=True)
class Given:
    """What a model was asked and said, not graded yet."""

    question: Question
    prompt: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Source:
    """Where the answers of one side come from."""

    ids: Sequence[str]
    """The questions, in the order of their set."""
    give: Callable[[list[int], Callable[[], None]], list[Given]]
    """The answers to the questions at some places in `ids`; meanwhile it calls what it is given, to say it is alive."""
    at_once: int
    tokenizer: Any
    provenance: dict[str, Any]


def fill(store: Store, plan: Plan, side: str, find: Callable[[], Source], report: Progress) -> None:
    """Take the answers of a source into the store, unless they are all there; `find` is called only if they are not."""
    key = plan.rollout_key(side)
    if store.rollouts.finished(key):
        return
    started = time.monotonic()
    source = find()
    total = len(source.ids)
    store.rollouts.start(key, plan.name_of(side), plan.checkpoints[side].identity, plan.question_set.name,
                        plan.rollout_settings(side), total)  # fmt: skip
    answered = store.rollouts.answered(key)
    done = 0

    def do(batch: list[int]) -> None:
        nonlocal done
        say = partial(report, f"{plan.name_of(side)} answers", done, total)
        say()
        done += len(batch)
        if all(source.ids[i] in answered for i in batch):
            return
        store.spool.put(_graded(source.give(batch, say), key, batch, plan, side, source.tokenizer))
        store.batches.ingest()

    batch_by_batch([list(range(total))[i : i + source.at_once] for i in range(0, total, source.at_once)], do)
    store.rollouts.finish(key, source.provenance, time.monotonic() - started)


def _graded(given: list[Given], key: str, places: list[int], plan: Plan, side: str, tokenizer: Any) -> AnswerBatch:
    """Answers as the store keeps them: graded, and with the text of each token."""
    rule = plan.question_set.grading
    return AnswerBatch(
        key,
        tuple(places),
        tuple(one.question.text for one in given),
        tuple(one.question.reference for one in given),
        tuple(one.prompt for one in given),
        tuple(
            Answer(g.question.id, g.prompt_tokens, g.tokens, g.text, is_right(g.question, side != "base", g.text, rule))
            for g in given
        ),
        tuple(pieces(tokenizer, one.prompt_tokens) for one in given),
        tuple(pieces(tokenizer, one.tokens) for one in given),
    )
