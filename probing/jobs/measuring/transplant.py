"""One model's parts in the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from probing.errors import ModelError
from probing.jobs.bench import Bench
from probing.jobs.measuring.stage import Ground, Measuring, Units, Values
from probing.jobs.plan import SIDES, Wanted
from probing.jobs.stages import Say
from probing.jobs.tasks.transplant import Transplant, values_of
from probing.models import vocabulary_digest
from probing.questions import Question
from probing.rollouts import Answer
from probing.sequences import Sample
from probing.store.records import Measurements
from probing.transplant.measuring import Exam, Measurer
from probing.transplant.pairing import Pairing
from probing.transplant.units import BASE, ORDERS, TUNED, Order, Unit, in_order, singles, steps
from probing.transplant.units import Values as OfUnit


@dataclass(frozen=True)
class Transplanting(Measuring):
    """All parts of one model in the other, alone and, of weights, one after the other."""

    key: str
    wanted: tuple[Wanted, Wanted]
    """Of base and tuned model."""
    task: Transplant
    answers: tuple[Answer, ...]
    """The tuned model's."""
    questions: tuple[Question, ...]
    """Those that are answered again; none where answers cannot be graded."""
    grading: str
    max_new_tokens: int
    stop: str | None
    alone: Mapping[str, OfUnit] = field(default_factory=dict)
    """What single parts were found to do, once that is known."""

    def lay_out(self, bench: Bench) -> Units:
        """All parts. Which there are only the models say, so both are loaded.

        Raises:
            ModelError: the two models cannot exchange parts.
        """
        pairing, names = self._pairing(bench), self._names(bench)
        task = self.task
        alone = (BASE, TUNED, *singles(task.what, task.direction, names))
        later = [unit for order in ORDERS for unit in steps(task.direction, order, names)]
        phases = (alone, later) if task.what == "weights" else (alone,)
        return Units(
            tuple(tuple(unit.name for unit in phase) for phase in phases),
            tuple(answer.question_id for answer in self.answers), 1, {"moved": pairing.moved},
        )  # fmt: skip

    def after(self, found: Measurements) -> Self:
        """With what single parts do: it decides the order in which they are added."""
        return replace(self, alone=values_of(found))

    def measure(self, units: Sequence[str], bench: Bench, say: Say) -> Values:
        """Measure some parts."""
        measurer = bench.kept("measurer", lambda: self._measurer(bench))
        found = [measurer.measure(self._unit(name, bench), say) for name in units]
        return {name: np.stack([values[name] for values in found]) for name in found[0]}

    def _unit(self, name: str, bench: Bench) -> Unit:
        task, names = self.task, self._names(bench)

        def among(order: Order) -> list[Unit]:
            return steps(task.direction, order, in_order(order, task.direction, names, self.alone))

        order = next((order for order in ORDERS if f":{order}:" in name), None)
        there = [BASE, TUNED, *singles(task.what, task.direction, names)] if order is None else among(order)
        return next(unit for unit in there if unit.name == name)

    def _names(self, bench: Bench) -> list[str]:
        pairing = self._pairing(bench)
        return list(pairing.parts if self.task.what == "weights" else pairing.base.architecture.graph.writers)

    def _both(self, bench: Bench) -> dict[str, Any]:
        return dict(zip(SIDES, bench.both(*self.wanted), strict=True))

    def _pairing(self, bench: Bench) -> Pairing:
        def find() -> Pairing:
            both = self._both(bench)
            if len({vocabulary_digest(tokenizer) for _, tokenizer in both.values()}) > 1:
                raise ModelError(
                    "The tokens of base and tuned model do not stand for the same texts.",
                    "Parts can be exchanged between models of one vocabulary only.",
                )
            return Pairing(*(both[side][0] for side in SIDES))

        return bench.kept("pairing", find)

    def _measurer(self, bench: Bench) -> Measurer:
        read = ((a.question_id, a.prompt_tokens + a.tokens, len(a.prompt_tokens), len(a.tokens)) for a in self.answers)
        text = [Sample(*one) for one in read]
        exam = None
        if self.questions:
            attributor, tokenizer = self._both(bench)["tuned"]
            exam = Exam(
                attributor.model, tokenizer, self.questions, [a.prompt_tokens for a in self.answers], self.grading,
                self.max_new_tokens, self.stop,
            )  # fmt: skip
        return Measurer(self._pairing(bench), text, exam)


def prepare(task: Transplant, ground: Ground) -> Transplanting:
    """All parts, on the questions that are drawn."""
    plan, every = ground.plan, ground.answers("tuned")
    answers = tuple(every[place] for place in task.drawn(len(every)))
    asked = {question.id: question for question in plan.questions}
    graded = task.what == "weights" and asked and all(question.cohort is None for question in asked.values())
    questions = tuple(asked[a.question_id] for a in answers) if graded else ()
    wanted = ground.wanted("base"), ground.wanted("tuned")
    how = plan.question_set.grading, plan.pair.max_new_tokens, plan.pair.stop
    return Transplanting(ground.key, wanted, task, answers, questions, *how)
