"""The scores of samples by any method: estimates of what removing each edge does, or what it really does."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from probing.ablation import effects_by_loss, loss_without
from probing.attribution import ZERO, Attributor, References, find_references
from probing.fitting import batch_by_batch
from probing.method import PAPERS, Method, told_together
from probing.scores import Scores
from probing.sequences import Sample

AT_ONCE = 4096
"""Edges and samples that are removed between two looks at how far it is."""


def together(method: Method) -> list[Method]:
    """The methods whose scores are made by the same passes, the one asked for first."""
    if method.path != "exact":
        return [method]
    return [replace(method, loss=loss) for loss in told_together(method.loss)]


def samples_at_once(method: Method, edges: int, fit: int) -> int:
    """How many samples make a batch of a method, if so many fit into one pass, in a graph of so many edges."""
    return max(1, min(fit, AT_ONCE // edges)) if method.path == "exact" else fit


def score(
    attributor: Attributor,
    samples: Sequence[Sample],
    method: Method = PAPERS,
    references: References = ZERO,
    progress: Callable[[], None] = lambda: None,
) -> list[Scores]:
    """Scores of one batch by each of the methods `together` with one; meanwhile `progress` is called now and then.

    Raises:
        SequenceError: a sample that the model cannot score, or that lacks what the method needs.
        ModelError: as `Attributor.score` does, or a loss is not finite.
    """
    if method.path != "exact":
        return [attributor.score(samples, method, references)]
    made = together(method)
    found = effects_by_loss(
        attributor, samples, range(attributor.graph.size), [one.loss for one in made], references,
        progress=lambda done: progress(),
    )  # fmt: skip
    ids, loss = tuple(sample.id for sample in samples), loss_without(attributor, samples, [])
    return [
        Scores(attributor.graph, ids, edges.astype(np.float32), loss.astype(np.float32), method=one)
        for one, edges in zip(made, found, strict=True)
    ]


def attribute(
    attributor: Attributor,
    samples: Sequence[Sample],
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    method: Method = PAPERS,
) -> Scores:
    """Scores of all `samples` in their order, which need not fit into one batch; `progress` is told the number finished
    after each.

    Raises:
        SequenceError: a sample that the model cannot score, or that lacks what the method needs.
        ModelError: as `score` does.
    """
    attributor.check(samples)
    method = replace(method, granularity=attributor.graph.granularity)
    references = find_references(attributor, method.reference, samples, batch_size)
    graph = attributor.graph
    edges = np.zeros((len(samples), graph.size), np.float32)
    loss = np.zeros(len(samples), np.float32)
    done = 0

    def do(batch: list[int]) -> None:
        nonlocal done
        part, *_ = score(attributor, [samples[i] for i in batch], method, references)
        edges[batch], loss[batch] = part.edges, part.loss
        done += len(batch)
        progress(done)

    batch_by_batch(attributor.batches(samples, batch_size), do)
    return Scores(graph, tuple(sample.id for sample in samples), edges, loss, method=method)
