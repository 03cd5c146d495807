"""One model's parts in the other."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float

from probing.errors import ModelError
from probing.jobs.measuring.bench import Bench, Measuring
from probing.jobs.plan import SIDES
from probing.jobs.tasks.transplant import Transplant, values_of
from probing.models import vocabulary_digest
from probing.sequences import Sample
from probing.transplant.measuring import Exam, Measurer
from probing.transplant.pairing import Pairing
from probing.transplant.units import BASE, ORDERS, TUNED, Order, Unit, in_order, singles, steps


def prepare(task: Transplant, bench: Bench) -> Measuring:
    """All parts, and what measures them. Which there are only the models say, so both are loaded.

    Raises:
        ModelError: the two models cannot exchange parts.
    """
    plan, both = bench.plan, bench.both()
    if len({vocabulary_digest(tokenizer) for _, tokenizer in both.values()}) > 1:
        raise ModelError(
            "The tokens of base and tuned model do not stand for the same texts.",
            "Parts can be exchanged between models of one vocabulary only.",
        )
    pairing = Pairing(*(both[side][0] for side in SIDES))
    answers = bench.answers("tuned")
    answers = [answers[place] for place in task.drawn(len(answers))]
    text = [Sample(a.question_id, a.prompt_tokens + a.tokens, len(a.prompt_tokens), len(a.tokens)) for a in answers]
    asked = {question.id: question for question in plan.questions}
    exam = None
    if task.what == "weights" and asked and all(question.cohort is None for question in asked.values()):
        model, tokenizer = both["tuned"][0].model, both["tuned"][1]
        exam = Exam(
            model, tokenizer, [asked[a.question_id] for a in answers], [a.prompt_tokens for a in answers],
            plan.question_set.grading, plan.pair.max_new_tokens, plan.pair.stop,
        )  # fmt: skip
    measurer = Measurer(pairing, text, exam)
    names = list(pairing.parts) if task.what == "weights" else list(pairing.base.architecture.graph.writers)
    alone = {unit.name: unit for unit in (BASE, TUNED, *singles(task.what, task.direction, names))}

    @cache
    def among(order: Order) -> dict[str, Unit]:
        """The steps in an order; that of effects is known when all single ones are in the store."""
        ordered = in_order(order, task.direction, names, values_of(bench.there()))
        return {unit.name: unit for unit in steps(task.direction, order, ordered)}

    def unit_of(name: str) -> Unit:
        order = next((order for order in ORDERS if f":{order}:" in name), None)
        return alone[name] if order is None else among(order)[name]

    def measure(units: Sequence[str], say: Callable[[], None]) -> dict[str, Float[np.ndarray, "unit id"]]:
        found = [measurer.measure(unit_of(name), say) for name in units]
        return {name: np.stack([values[name] for values in found]) for name in found[0]}

    later = [unit.name for order in ORDERS for unit in steps(task.direction, order, names)]
    units = [*alone, *(later if task.what == "weights" else [])]
    return Measuring(units, [a.question_id for a in answers], measure, 1, {"moved": pairing.moved})
