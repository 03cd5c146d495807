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


def texts(
    plan: Plan, side: str, answers: Sequence[Answer], cuts: Iterable[Selected]
) -> list[tuple[Selected, list[Sample]]]:
    """What a side's model is scored on at each cut; `answers` are those of `plan.author(side)`.

    Raises:
        RolloutError: one text is for both models, and their vocabularies differ.
        QuestionError: a question has no reference or counterpart that the method needs, or one of another length.
    """
    method = plan.spec.method
    if method.text != "own" and len({_vocabulary(plan.checkpoints[each]) for each in (*SIDES, side)}) > 1:
        raise RolloutError(
            "The models have different vocabularies, so the same tokens are not the same text for both.",
            "Score each model on its own answers.",
        )
    made = [(selected, samples(answers, selected)) for selected in cuts]
    if method.text != "shared-reference" and method.reference != "patch":
        return made
    tokenizer = load_tokenizer(plan.checkpoints[plan.author(side)])
    questions = {question.id: question for question in plan.questions}

    def finished(sample: Sample, cut: int) -> Sample:
        question = questions.get(sample.id)
        if question is None:
            raise QuestionError(
                f"Of the question '{sample.id}' only an answer is known, which was made elsewhere.",
                "Choose another text or reference.",
            )
        if method.text == "shared-reference":
            sample = _with_reference(sample, question, cut, tokenizer)
        return _with_counterpart(sample, question, plan, tokenizer) if method.reference == "patch" else sample

    return [(selected, [finished(sample, selected.cut) for sample in chosen]) for selected, chosen in made]


@lru_cache(maxsize=8)
def _vocabulary(checkpoint: Checkpoint) -> str:
    return vocabulary_digest(load_tokenizer(checkpoint))


def _with_reference(sample: Sample, question: Question, cut: int, tokenizer: Any) -> Sample:
    """The prompt, and the reference answer in the place of the model's."""
    answer = tuple(tokenizer.encode(question.reference, add_special_tokens=False))[:cut]
    if not answer:
        raise QuestionError(f"Question '{question.id}' has no reference answer.", "Choose another text.")
    return Sample(sample.id, sample.input_ids[: sample.answer_start] + answer, sample.answer_start, len(answer))


def _with_counterpart(sample: Sample, question: Question, plan: Plan, tokenizer: Any) -> Sample:
    """The sample, and beside it the same answer behind another question's prompt."""
    if question.counterpart is None:
        raise QuestionError(
            f"Question '{question.id}' has no counterpart, and the reference 'patch' is what is written on one.",
            "Name the column that has them in pairs.toml, or choose another reference.",
        )
    asked = prompt_for(replace(question, text=question.counterpart), plan.pair.template, tokenizer).tokens
    if len(asked) != sample.answer_start:
        raise QuestionError(
            f"The prompt of question '{question.id}' has {sample.answer_start} tokens, and its counterpart's "
            f"{len(asked)}.",
            "A counterpart has as many; choose another, or another reference.",
        )
    return replace(sample, counterpart=asked + sample.input_ids[sample.answer_start :])
