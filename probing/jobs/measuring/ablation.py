"""Edges that are really removed, one at a time."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from probing.ablation import effects
from probing.jobs.measuring.bench import Bench, Measuring
from probing.jobs.tasks.ablation import EFFECT, Check

AT_ONCE = 32
"""Edges between two looks at whether the job should go on."""


def prepare(check: Check, bench: Bench) -> Measuring:
    """The edges of a side's run, and what measures their effects on its samples, by the loss and reference of its
    scores."""
    scores, samples = bench.scores(check.side), bench.samples(check.side)
    number = {scores.graph.edges[edge]: edge for edge in check.edges(scores)}

    def measure(units: Sequence[str], say: Callable[[], None]) -> dict[str, Float[np.ndarray, "unit id"]]:
        attributor, _ = bench.model(check.side)
        edges = [number[unit] for unit in units]
        references, loss = bench.references(check.side, samples, say), bench.plan.spec.method.loss
        by_sample = effects(attributor, samples, edges, loss, references, progress=lambda done: say())
        return {EFFECT: by_sample.T.astype(np.float32)}

    return Measuring(list(number), [sample.id for sample in samples], measure, AT_ONCE)
