"""Edges that are really removed, one at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from probing.ablation import effects_by_loss
from probing.attribution import Attributor, References, find_references
from probing.errors import TaskError
from probing.jobs.measuring.bench import Bench, Measuring
from probing.jobs.tasks.ablation import Check
from probing.jobs.tasks.edge import SCORE, OneEdge
from probing.method import told_together
from probing.scoring import attribute
from probing.sequences import Sample

AT_ONCE = 32
"""Edges between two looks at whether the job should go on."""

Values = dict[str, Float[np.ndarray, "unit id"]]


def prepare(check: Check, bench: Bench) -> Measuring:
    """The edges of a side's run, and what measures their effects on its samples, by the loss and reference of its
    scores."""
    scores = bench.scores(check.side)
    wanted = set(check.drawn(scores.ids))
    samples = [sample for sample in bench.samples(check.side) if sample.id in wanted]
    number = {scores.graph.edges[edge]: edge for edge in check.edges(scores)}

    def measure(units: Sequence[str], say: Callable[[], None]) -> Values:
        attributor, _ = bench.model(check.side)
        return _removed(bench, attributor, samples, bench.references(check.side, samples, say), number, units, say)

    return Measuring(list(number), [sample.id for sample in samples], measure, AT_ONCE)


def prepare_one(task: OneEdge, bench: Bench) -> Measuring:
    """An edge, or those between heads that it is made of, and what measures them.

    Raises:
        TaskError: the graph has no such edge, or its heads cannot be told apart.
    """
    scores, samples = bench.scores(task.side), bench.samples(task.side)
    try:
        whole = scores.graph.number(task.edge)
    except ValueError:
        raise TaskError(f"The model's graph has no edge '{task.edge}'.", "Choose one that the page lists.") from None
    divided: Attributor | None = None

    def of_heads() -> Attributor:
        nonlocal divided
        divided = divided or Attributor(bench.model(task.side)[0].model, "heads")
        return divided

    number = {task.edge: whole}
    if task.parts == "heads":
        graph = of_heads().graph
        parts = graph.parts_of([whole], scores.graph.granularity)
        number = dict(zip(graph.names(parts), parts.tolist(), strict=True))
        if len(number) < 2:
            raise TaskError(f"The edge '{task.edge}' is between no heads that can be told apart.", "Choose another.")

    def measure(units: Sequence[str], say: Callable[[], None]) -> Values:
        if task.parts == "whole":
            attributor, references = bench.model(task.side)[0], bench.references(task.side, samples, say)
            return _removed(bench, attributor, samples, references, number, units, say)
        method = replace(bench.plan.spec.method, granularity="heads")
        # Those of the bench are of the run's graph, whose writers have other places.
        references = find_references(of_heads(), method.reference, samples, progress=lambda done: say())
        found = _removed(bench, of_heads(), samples, references, number, units, say)
        if method.path == "exact":
            return found | {SCORE: found[method.loss]}
        estimates = attribute(of_heads(), samples, None, lambda done: say(), method)
        return found | {SCORE: estimates.edges[:, [number[unit] for unit in units]].T}

    at_once = AT_ONCE if task.parts == "whole" else len(number)
    return Measuring(list(number), [sample.id for sample in samples], measure, at_once)


def _removed(
    bench: Bench, attributor: Attributor, samples: Sequence[Sample], references: References,
    number: Mapping[str, int], units: Sequence[str], say: Callable[[], None],
) -> Values:  # fmt: skip
    edges, losses = [number[unit] for unit in units], told_together(bench.plan.spec.method.loss)
    found = effects_by_loss(attributor, samples, edges, losses, references, progress=lambda done: say())
    return {loss: values.T.astype(np.float32) for loss, values in zip(losses, found, strict=True)}
