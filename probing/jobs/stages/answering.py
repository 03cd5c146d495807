"""Answers that models give."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probing.jobs.bench import Bench
from probing.jobs.plan import Wanted
from probing.jobs.stages.stage import Emit, Say, Stage
from probing.models import answer, answers_at_once, pieces
from probing.questions import Prompt, Question, is_right, prompt_for
from probing.rollouts import Answer
from probing.serving.tokens import Said
from probing.store.spool import AnswerBatch


@dataclass(frozen=True)
class Grading:
    """Whose answers are judged, and by which rule."""

    key: str
    """Of the rollout."""
    is_base: bool
    rule: str


@dataclass(frozen=True)
class Given:
    """What a model was asked and said, not graded yet."""

    place: int
    """Of the question in its set."""
    question: Question
    prompt: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Answering(Stage[int]):
    """Greedy answers of one model to questions, graded; it is laid out as the number that is answered at once."""

    key: str
    wanted: Wanted
    questions: tuple[Question, ...]
    grading: Grading
    template: str
    max_new_tokens: int
    stop: str | None

    def lay_out(self, bench: Bench) -> int:
        """As many as fit."""
        prompts = [prompt.tokens for prompt in self._prompts(bench).values()]
        return answers_at_once(bench.load(self.wanted)[0].model, prompts, self.max_new_tokens)

    def do(self, items: Sequence[str], bench: Bench, say: Say, emit: Emit) -> None:
        """Answer some questions."""
        _, tokenizer = bench.load(self.wanted)
        prompts = self._prompts(bench)
        places = {question.id: place for place, question in enumerate(self.questions)}

        def together(ids: list[str]) -> None:
            said = self._said([prompts[name] for name in ids], [places[name] for name in ids], bench, say)
            given = [
                Given(places[name], self.questions[places[name]], prompts[name].text, prompts[name].tokens, *one)
                for name, one in zip(ids, said, strict=True)
            ]
            emit(graded(given, self.grading, tokenizer))

        bench.in_batches(items, together)

    def _said(self, prompts: list[Prompt], _places: list[int], bench: Bench, say: Say) -> list[Said]:
        """What the model says to prompts, which are of questions at some places."""
        attributor, tokenizer = bench.load(self.wanted)
        fed = [prompt.tokens for prompt in prompts]
        return answer(attributor.model, tokenizer, fed, self.max_new_tokens, self.stop, say)

    def _prompts(self, bench: Bench) -> dict[str, Prompt]:
        """By question."""

        def find() -> dict[str, Prompt]:
            _, tokenizer = bench.load(self.wanted)
            return {question.id: prompt_for(question, self.template, tokenizer) for question in self.questions}

        return bench.kept("prompts", find)


def graded(given: Sequence[Given], grading: Grading, tokenizer: Any) -> AnswerBatch:
    """Answers as the store keeps them: graded, and with the text of each token."""

    def right(one: Given) -> bool:
        return is_right(one.question, not grading.is_base, one.text, grading.rule)

    return AnswerBatch(
        grading.key,
        tuple(one.place for one in given),
        tuple(one.question.text for one in given),
        tuple(one.question.reference for one in given),
        tuple(one.prompt for one in given),
        tuple(Answer(one.question.id, one.prompt_tokens, one.tokens, one.text, right(one)) for one in given),
        tuple(pieces(tokenizer, one.prompt_tokens) for one in given),
        tuple(pieces(tokenizer, one.tokens) for one in given),
    )
