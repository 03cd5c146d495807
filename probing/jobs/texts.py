"""What is scored of each selected question, token by token: whose answer it is, and what its counterpart is."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from probing.checkpoints import Checkpoint
from probing.errors import QuestionError, RolloutError
from probing.jobs.plan import SIDES, Plan
from probing.models import load_tokenizer, vocabulary_digest
from probing.questions import Question, prompt_for
from probing.rollouts import Answer, Selected, samples
from probing.sequences import Sample


def check(plan: Plan) -> None:
    """Find out before anybody answers whether the method has what it needs of the models and of every question.

    Raises:
        RolloutError: one text is for both models, and their vocabularies differ.
        QuestionError: a question has no reference or counterpart that the method needs, or one of another length, or
            the questions are not known.
    """
    method = plan.spec.method
    if method.text != "own" and len({_vocabulary(plan.checkpoints[side]) for side in (*SIDES, *plan.steps)}) > 1:
        raise RolloutError(
            "The models have different vocabularies, so the same tokens are not the same text for both.",
            "Score each model on its own answers.",
        )
    if method.text != "shared-reference" and method.reference != "patch":
        return
    if not plan.questions:
        raise QuestionError(
            "Of questions whose answers were made elsewhere, neither references nor counterparts are known.",
            "Choose another text or reference.",
        )
    tokenizer = load_tokenizer(plan.checkpoints["base"])
    for question in plan.questions:
        if method.text == "shared-reference":
            _reference(question, tokenizer)
        if method.reference == "patch":
            asked = prompt_for(question, plan.pair.template, tokenizer).tokens
            _counterpart(question, len(asked), plan, tokenizer)


def texts(
    plan: Plan, side: str, answers: Sequence[Answer], cuts: Iterable[Selected]
) -> list[tuple[Selected, list[Sample]]]:
    """What a side's model is scored on at each cut, of a plan that was checked; `answers` are those of
    `plan.author(side)`.

    Raises:
        QuestionError: as `check` does.
    """
    method = plan.spec.method
    made = [(selected, samples(answers, selected)) for selected in cuts]
    if method.text != "shared-reference" and method.reference != "patch":
        return made
    tokenizer = load_tokenizer(plan.checkpoints[plan.author(side)])
    questions = {question.id: question for question in plan.questions}

    def finished(sample: Sample, cut: int) -> Sample:
        start, answer = sample.answer_start, sample.input_ids[sample.answer_start :]
        if method.text == "shared-reference":
            answer = _reference(questions[sample.id], tokenizer)[:cut]
        asked = sample.input_ids[:start]
        if method.reference != "patch":
            return Sample(sample.id, asked + answer, start, len(answer))
        other = _counterpart(questions[sample.id], start, plan, tokenizer)
        return Sample(sample.id, asked + answer, start, len(answer), other + answer)

    return [(selected, [finished(sample, selected.cut) for sample in chosen]) for selected, chosen in made]


@lru_cache(maxsize=8)
def _vocabulary(checkpoint: Checkpoint) -> str:
    return vocabulary_digest(load_tokenizer(checkpoint))


def _reference(question: Question, tokenizer: Any) -> tuple[int, ...]:
    """The tokens of the reference answer."""
    answer = tuple(tokenizer.encode(question.reference, add_special_tokens=False))
    if not answer:
        raise QuestionError(f"Question '{question.id}' has no reference answer.", "Choose another text.")
    return answer


def _counterpart(question: Question, tokens: int, plan: Plan, tokenizer: Any) -> tuple[int, ...]:
    """The prompt of the question's counterpart, which must have so many tokens."""
    if question.counterpart is None:
        raise QuestionError(
            f"Question '{question.id}' has no counterpart, and the reference 'patch' is what is written on one.",
            "Name the column that has them in pairs.toml, or choose another reference.",
        )
    asked = prompt_for(replace(question, text=question.counterpart), plan.pair.template, tokenizer).tokens
    if len(asked) != tokens:
        raise QuestionError(
            f"The prompt of question '{question.id}' has {tokens} tokens, and its counterpart's {len(asked)}.",
            "A counterpart has as many; choose another, or another reference.",
        )
    return asked
