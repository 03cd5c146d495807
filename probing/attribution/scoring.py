"""The scores of samples that need not fit into one batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from probing.attribution.attributor import Attributor
from probing.attribution.references import find_references
from probing.fitting import batch_by_batch
from probing.method import PAPERS, Method
from probing.scores import Scores
from probing.sequences import Sample


def attribute(
    attributor: Attributor,
    samples: Sequence[Sample],
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    method: Method = PAPERS,
) -> Scores:
    """Scores of all `samples` in their order; `progress` is told the number finished after each batch.

    Raises:
        SequenceError: a sample that the model cannot score, or that lacks what the method needs.
        ModelError: as `Attributor.score` does.
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
        part = attributor.score([samples[i] for i in batch], method, references)
        edges[batch], loss[batch] = part.edges, part.loss
        done += len(batch)
        progress(done)

    batch_by_batch(attributor.batches(samples, batch_size), do)
    return Scores(graph, tuple(sample.id for sample in samples), edges, loss, method=method)
