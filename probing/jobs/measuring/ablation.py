"""Edges that are really removed, one at a time."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from probing.ablation import loss_without
from probing.attribution import Attributor
from probing.errors import TaskError
from probing.fitting import batch_by_batch
from probing.jobs.measuring.bench import Bench, Measuring
from probing.jobs.tasks.ablation import EFFECT, Check
from probing.sequences import Sample

AT_ONCE = 16
"""Edges between two looks at whether the job should go on."""


def prepare(check: Check, bench: Bench) -> Measuring:
    """The edges of a side's run, and what measures their effects on its samples.

    Raises:
        TaskError: its scores are of another removal than can be done.
    """
    method = bench.plan.spec.method
    if (method.loss, method.reference) != ("nll", "zero"):
        raise TaskError(
            f"These scores are of the {method.loss} with {method.reference} in an edge's place, and edges are removed "
            "with zero in their place, and measured by the nll.",
            "Ask for ablations with the loss nll and the reference zero.",
        )
    scores, samples = bench.scores(check.side), bench.samples(check.side)
    number = {scores.graph.edges[edge]: edge for edge in check.edges(scores)}

    def measure(units: Sequence[str], say: Callable[[], None]) -> dict[str, Float[np.ndarray, "unit id"]]:
        attributor, _ = bench.model(check.side)
        return {EFFECT: _effects(attributor, samples, [number[unit] for unit in units], say)}

    return Measuring(list(number), [sample.id for sample in samples], measure, AT_ONCE)


def _effects(
    attributor: Attributor, samples: Sequence[Sample], edges: Sequence[int], say: Callable[[], None]
) -> Float[np.ndarray, "edge sample"]:
    """Each sample's loss without each edge, minus its loss."""
    found = np.zeros((len(edges), len(samples)), np.float32)

    def do(batch: list[int]) -> None:
        part = [samples[place] for place in batch]
        whole = loss_without(attributor, part, [])
        for row, edge in enumerate(edges):
            say()
            found[row, batch] = loss_without(attributor, part, [edge]) - whole

    batch_by_batch(attributor.batches(samples), do)
    return found
