"""What removing each of many edges, alone, does to a loss: exactly, and for about 0.4 forward passes each.

An edge that is removed changes nothing before its reader. So one pass with nothing removed says what its writer wrote
and what the reader's layer was given, and the pass without the edge goes on from there: most edges enter late layers.
The rows of a pass are pairs of a sample and an edge, and all edges of one pass enter the same reader.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probing.architectures import (
    HeadOutputs,
    Intervention,
    LayerOutputs,
    Residual,
    WriterOutputs,
    keeping,
    rewriting,
    skipping,
    watching,
    wide,
)
from probing.attribution import ZERO, Attributor, Predictions, References, StandIns
from probing.errors import ModelError
from probing.fitting import batch_by_batch
from probing.method import Loss
from probing.sequences import Sample


def effects(
    attributor: Attributor,
    samples: Sequence[Sample],
    edges: Iterable[int],
    loss: Loss = "nll",
    references: References = ZERO,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    found: Float[np.ndarray, "sample edge"] | None = None,
) -> Float[np.ndarray, "sample edge"]:
    """Each sample's loss without each of some edges of the attributor's graph, alone, minus its loss.

    `found` is as `effects_by_loss` has it, of the one loss.

    Raises:
        SequenceError: a sample that this model cannot score, or that lacks what the references need.
        ModelError: a loss is not finite.
    """
    given = None if found is None else found[None]
    return effects_by_loss(attributor, samples, edges, [loss], references, batch_size, progress, given)[0]


def effects_by_loss(
    attributor: Attributor,
    samples: Sequence[Sample],
    edges: Iterable[int],
    losses: Sequence[Loss],
    references: References = ZERO,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    found: Float[np.ndarray, "loss sample edge"] | None = None,
) -> Float[np.ndarray, "loss sample edge"]:
    """The same for several losses, which the same passes tell.

    `edges` are their numbers. A batch has at most `batch_size` rows, or as many as fit. After each, `progress` is told
    how many pairs of a sample and an edge are done; what is `found` is written into the array of that name, if there is
    one, whose finished numbers are not made again: others are not numbers (NaN).

    Raises:
        SequenceError: a sample that this model cannot score, or that lacks what the references need.
        ModelError: a loss is not finite.
    """
    attributor.check(samples)
    numbers = np.fromiter(edges, int)
    if found is None:
        found = np.full((len(losses), len(samples), len(numbers)), np.nan)
    rows = batch_size or attributor.batch_that_fits(samples)
    into = _Readers(attributor)

    def do(batch: list[int]) -> None:
        wanted = np.flatnonzero(np.isnan(found[:, batch]).any((0, 1)))
        if not len(wanted):
            return
        clean = _Clean(attributor, [samples[i] for i in batch], losses, references)
        for reader, places in into.grouped(numbers, wanted):
            at_once = max(1, rows // len(batch))

            def remove(places: list[int], reader: int = reader) -> None:
                writers = into.writer[numbers[places]].tolist()
                found[np.ix_(range(len(losses)), batch, places)] = clean.without(writers, into.parts[reader])
                progress(int(np.isfinite(found[0]).sum()))

            batch_by_batch([places[i : i + at_once] for i in range(0, len(places), at_once)], remove)

    progress(int(np.isfinite(found[0]).sum()))
    batch_by_batch(attributor.batches(samples, rows), do)
    return found


class _Readers:
    """Where edges of a graph go in the one that is walked, in which one may be several of the same writer."""

    def __init__(self, attributor: Attributor) -> None:
        graph, walked = attributor.graph, attributor.architecture.graph
        place, (writer, reader) = walked.places_in(graph), walked.edge_index
        self.reader = graph.edge_index[1]
        """Of each edge."""
        self.writer = np.zeros(graph.size, int)
        """Of each edge, where it is walked."""
        self.writer[place] = writer
        self.parts: dict[int, list[int]] = {}
        """What each reader is made of."""
        for one, part in np.unique(np.stack([self.reader[place], reader]), axis=1).T.tolist():
            self.parts.setdefault(one, []).append(part)

    def grouped(self, numbers: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, list[int]]]:
        """Places of some of the edges of these numbers by their readers, for each in the order in which they write."""
        readers, writers = self.reader[numbers[places]], self.writer[numbers[places]]
        for reader in np.unique(readers):
            mine = readers == reader
            yield int(reader), places[mine][np.argsort(writers[mine], kind="stable")].tolist()


class _Clean:
    """A pass over a batch with nothing removed, from any place of which others go on."""

    def __init__(
        self, attributor: Attributor, samples: Sequence[Sample], losses: Sequence[Loss], references: References
    ) -> None:
        self._attributor, self._samples, self._losses = attributor, samples, losses
        self._architecture = attributor.architecture
        self._outputs = WriterOutputs()
        self._made: tuple[range, Tensor] = range(0), torch.empty(0)
        self._stand_ins = references.of(samples)
        graph = self._architecture.graph
        self._layers = LayerOutputs(len(samples))
        hooks = _together(keeping(self._architecture, self._layers), watching(self._architecture, self._outputs))
        with torch.no_grad(), attributor.running(samples, hooks) as said:
            self._whole = self._losses_of(said)
        self._layer_of = [record.layer for record in graph.reader_records]
        """The layer of each reader; None for what is behind the last."""

    @torch.no_grad()
    def without(self, writers: Sequence[int], readers: Sequence[int]) -> Float[np.ndarray, "loss sample writer"]:
        """Losses with the edges from each writer, alone, to all these readers removed, minus those with none."""
        first = self._first(readers[0])
        rows = torch.arange(len(self._samples)).repeat(len(writers))
        together = self._outputs.written[0].device  # blocks may be on several
        changes = torch.stack([self._change(writer).to(together) for writer in writers]).flatten(0, 1)
        hooks = _together(
            skipping(self._architecture, self._layers, first, rows),
            rewriting(self._architecture, _Moved(readers, changes)),
        )
        with self._attributor.running(list(self._samples) * len(writers), hooks) as said:
            losses = self._losses_of(said).view(len(self._losses), len(writers), -1)
        if not bool(torch.isfinite(losses).all()):
            raise ModelError("Without an edge, this model's loss is not finite.", "Try --dtype float32.")
        return (losses - self._whole[:, None]).transpose(1, 2).double().cpu().numpy()

    def _losses_of(self, said: Predictions) -> Float[Tensor, "loss row"]:
        return torch.stack([said.losses(loss) for loss in self._losses])

    def _first(self, reader: int) -> int:
        """The layer from which a pass is to go on."""
        layer = self._layer_of[reader]
        layer = self._architecture.layers if layer is None else layer
        return max(first for first in range(layer + 1) if self._attributor.resumable[first] or not first)

    def _change(self, writer: int) -> Residual:
        """What takes the place of a writer's output, less the output."""
        written, heads = self._outputs.written, self._outputs.heads
        if writer in written:
            return self._stand_ins.change(writer, wide(written[writer]))
        writers, outputs = next(block for block in heads.items() if writer in block[0])
        if self._made[0] != writers:
            self._made = writers, _changes_of_heads(writers, outputs, self._stand_ins, written[0])
        return self._made[1][:, writer - writers.start]


def _changes_of_heads(
    writers: range, outputs: HeadOutputs, stand_ins: StandIns, like: Residual
) -> Float[Tensor, "sample writer position width"]:
    """What each of a block's heads, alone, changes in what the block adds to the residual; a norm behind them runs on
    what is left of them."""
    samples, positions, width = like.shape
    changes = wide(outputs.values).new_empty(samples, len(writers), positions, width)
    stand_ins.change_of_heads(writers, outputs).projected.write(changes)
    if outputs.division.after is None:
        return changes * outputs.scale
    parts = torch.empty_like(changes)
    outputs.projected.write(parts)
    whole = parts.sum(1, keepdim=True)
    return outputs.added(whole + changes) - outputs.added(whole)


@contextmanager
def _together(*hooks: AbstractContextManager[None]) -> Iterator[None]:
    """All of them, set where a pass begins, which no other does meanwhile."""
    with ExitStack() as stack:
        for each in hooks:
            stack.enter_context(each)
        yield


class _Moved(Intervention):
    """Some readers read the residual with something added."""

    def __init__(self, readers: Sequence[int], changes: Residual) -> None:
        self._readers, self._changes = readers, changes

    def reads(self, readers: range, residual: Residual) -> Mapping[int, Residual]:
        """The same to each of them."""
        mine = [reader for reader in self._readers if reader in readers]
        if not mine:
            return {}
        moved = wide(residual) + self._changes.to(residual.device).view(residual.shape)
        return dict.fromkeys(mine, moved.to(residual.dtype))
