"""Measuring a unit: the loss on a text that both models read, and the answers, given anew and graded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from transformers import PreTrainedModel

from probing.errors import QuestionError
from probing.fitting import batch_by_batch
from probing.models import answer, answers_at_once, ended
from probing.questions import Question, grade
from probing.sequences import Sample
from probing.transplant.pairing import Pairing
from probing.transplant.patching import patched_loss, read
from probing.transplant.units import Unit

Say = Callable[[], None]

NOTHING: Mapping[int, Sequence[int]] = MappingProxyType({})


@dataclass(frozen=True)
class Exam:
    """Questions as one model is asked them, whoever answers: its prompts, its end tokens, its tokenizer.

    Raises:
        QuestionError: the question set says who is right instead of how to grade.
    """

    model: PreTrainedModel
    """Whose end tokens count."""
    tokenizer: Any
    questions: Sequence[Question]
    prompts: Sequence[tuple[int, ...]]
    """Each question's."""
    grading: str
    max_new_tokens: int
    stop: str | None = None

    def __post_init__(self) -> None:
        """Refuse questions that new answers cannot be graded by."""
        if any(question.cohort is not None for question in self.questions):
            raise QuestionError(
                "This question set says who answered right, so answers that are given anew cannot be graded.",
                "Choose one with reference answers, or exchange activations only.",
            )

    def take(
        self, model: PreTrainedModel, say: Say = lambda: None, known: Mapping[int, Sequence[int]] = NOTHING
    ) -> Float[np.ndarray, " question"]:
        """1 for each question that a model answers right, else 0.

        `known` has, for some places of questions, tokens that this model is known to begin its answer with: where that
        ends in them, it is not asked.
        """
        size = answers_at_once(model, self.prompts, self.max_new_tokens)
        right = np.zeros(len(self.prompts))

        def mark(place: int, text: str) -> None:
            right[place] = grade(text, self.questions[place].reference, self.grading)

        def do(batch: list[int]) -> None:
            say()
            fed = [self.prompts[place] for place in batch]
            said = answer(model, self.tokenizer, fed, self.max_new_tokens, self.stop, say)
            for place, (_, text) in zip(batch, said, strict=True):
                mark(place, text)

        with _ending_as(model, self.model):
            texts = {place: self._text(model, tokens) for place, tokens in known.items()}
            for place, text in texts.items():
                if text is not None:
                    mark(place, text)
            places = [place for place in range(len(right)) if texts.get(place) is None]
            batch_by_batch([places[i : i + size] for i in range(0, len(places), size)], do)
        return right

    def _text(self, model: PreTrainedModel, tokens: Sequence[int]) -> str | None:
        found = ended(tokens, model, self.tokenizer, self.max_new_tokens, self.stop)
        return found and found[1]


@contextmanager
def _ending_as(model: PreTrainedModel, other: PreTrainedModel) -> Iterator[None]:
    """A model whose answers end where another's do."""
    own = model.generation_config
    model.generation_config = other.generation_config
    try:
        yield
    finally:
        model.generation_config = own


@dataclass
class Measurer:
    """Measures units of a pair that is in memory, one at a time.

    `samples` are the text, one for each question, in the questions' order. Without an `exam` only the loss is measured.
    What is the same model as one that was measured is not run again: parts that tuning did not move make no difference.
    Nor is a model asked for an answer that the text has and that it would give: in the pass that reads the text, each
    of its tokens was the most likely one.
    """

    pairing: Pairing
    samples: Sequence[Sample]
    exam: Exam | None = None
    _known: dict[tuple[str, frozenset[str]], dict[str, np.ndarray]] = field(default_factory=dict)

    def measure(self, unit: Unit, say: Say = lambda: None) -> dict[str, Float[np.ndarray, " question"]]:
        """The unit's `loss` and, of weights, where there is an exam, `correct`; `say` is called now and then meanwhile.

        Raises:
            SequenceError: a sample that these models cannot score.
        """
        if unit.what == "activations":
            host, donor = self.pairing.ends(unit.direction)
            (loss,) = self._over(lambda batch: (patched_loss(host, donor, unit.parts, batch),), say)
            return {"loss": loss}
        moved = frozenset(part for part in unit.parts if self.pairing.moved[part] != 0)
        key = (unit.direction, moved)
        if key not in self._known:
            with self.pairing.exchanged(unit.direction, moved) as attributor:
                loss, own = self._over(lambda batch: read(attributor, batch), say)
                found = {"loss": loss}
                if self.exam is not None:
                    known = {i: self.samples[i].scored for i in np.flatnonzero(own).tolist()}
                    found["correct"] = self.exam.take(attributor.model, say, known)
            self._known[key] = found
        return self._known[key]

    def _over(
        self, of_batch: Callable[[list[Sample]], tuple[Shaped[np.ndarray, " sample"], ...]], say: Say
    ) -> list[Float[np.ndarray, " question"]]:
        """What batches give, over all samples."""
        found: dict[int, tuple[Any, ...]] = {}

        def do(batch: list[int]) -> None:
            say()
            found.update(zip(batch, zip(*of_batch([self.samples[i] for i in batch]), strict=True), strict=True))

        batch_by_batch(self.pairing.base.batches(self.samples), do)
        rows = (found[place] for place in range(len(self.samples)))
        return [np.array(values, float) for values in zip(*rows, strict=True)]
