"""Edges that are removed from a pass over a batch: every later block runs on what that leaves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probing.architectures import HeadOutputs, Intervention, Residual, rewriting, wide
from probing.attribution import ZERO, Attributor, Predictions, References, StandIns
from probing.graph import ResidualGraph
from probing.method import Loss
from probing.sequences import Sample


@dataclass(frozen=True)
class Removed:
    """Edges of a graph, by their numbers, and what stands in for their writers there."""

    edges: Iterable[int]
    stand_ins: StandIns


class Removal(Intervention):
    """Takes some edges out of what each reader reads, and puts what stands in for their writers there.

    Edges may be removed in several ways in one pass; one that is in several of them is removed as the last says.

    What writers write is what they do in this very pass. A reader reads the residual plus the changes of the writers
    that it loses; one that keeps fewer writers than it loses reads the sum of what it keeps and of what stands in, so
    that with nothing kept it is that alone, to the last digit. Heads behind a norm are removed before it, all those of
    a block together, and the norm runs on what is left.
    """

    def __init__(self, graph: ResidualGraph, ways: Sequence[Removed]) -> None:
        self._graph = graph
        way = np.full((len(graph.readers), len(graph.writers)), -1)
        writer, reader = graph.edge_index
        for number, removed in enumerate(ways):
            numbers = np.fromiter(removed.edges, int)
            way[reader[numbers], writer[numbers]] = number
        gone = way >= 0
        self._ways = [_Way(way == number, removed.stand_ins) for number, removed in enumerate(ways)]
        self._gone = gone
        self._anew = 2 * gone.sum(1) > graph.writers_before
        """Readers that read a sum made anew."""
        self._losing = np.flatnonzero(gone.any(1))
        kept = set(np.flatnonzero(np.where(self._anew[:, None], graph.mask.T, gone).any(0)).tolist())
        for layer in range(graph.layers):
            if kept.intersection(block := graph.attention_writers(layer)):
                kept.update(block)
        self._kept = np.array(sorted(kept), int)
        """Writers whose outputs are kept, a row of the buffers for each."""
        self._row = {writer: row for row, writer in enumerate(sorted(kept))}
        self._written = torch.empty(0, 0, 0, 0)
        self._bound: list[tuple[slice, HeadOutputs, Residual]] = []
        """Rows of the heads that a norm stands behind, and what they and it made."""

    # -- what is written -------------------------------------------------------------------------------------------

    def wrote(self, writer: int, output: Residual) -> None:
        """Keep it if it is to be taken out or summed up somewhere; a copy, to which some models add in place."""
        if writer in self._row:
            row = self._row[writer]
            self._room(output)[:, row].copy_(output)
            for way in self._ways:
                if (instead := way.stand_ins.written.get(writer)) is not None:
                    way.room_for(instead, self._written)[:, row].copy_(instead)

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        """Keep the heads of a block that are, as they are before a norm behind them."""
        if writers.start not in self._row:
            return
        rows = slice(self._row[writers.start], self._row[writers.start] + len(writers))
        if outputs.division.after is not None:
            self._bound.append((rows, outputs, whole.clone()))
            outputs = outputs.projected
        outputs.write(self._room(whole)[:, rows])
        for way in self._ways:
            if (instead := way.stand_ins.values.get(writers.start)) is not None:
                outputs.with_values(instead).write(way.room_for(instead, self._written)[:, rows])

    def _room(self, like: Residual) -> Float[Tensor, "sample row position width"]:
        """The buffer of what is written."""
        if not self._written.numel():
            samples, positions, width = like.shape
            self._written = wide(like).new_zeros(samples, len(self._kept), positions, width)
        return self._written

    # -- what is read ----------------------------------------------------------------------------------------------

    def reads(self, readers: range, residual: Residual) -> Mapping[int, Residual]:
        """What those that lose something read."""
        losing = [int(reader) for reader in self._losing if reader in readers]
        if not losing:
            return {}
        rows = int(np.searchsorted(self._kept, self._graph.writers_before[readers.start]))
        gone, *ways = (
            torch.from_numpy(edges[losing][:, self._kept[:rows]]).to(self._written)
            for edges in (self._gone, *(way.edges for way in self._ways))
        )
        anew = torch.from_numpy(self._anew[losing]).to(self._written)[:, None]
        take = anew - gone  # what is kept, once; or else what is gone, taken away
        found = (1 - anew)[..., None] * wide(residual).to(gone.device).view(self._written[:, :1].shape)
        free = torch.ones_like(gone)
        for block, outputs, whole in self._bound:
            if block.stop <= rows:
                free[:, block] = 0
                found = found + self._behind_norm(block, outputs, whole, gone, ways, anew)
        found = found + _summed(take * free, self._written) + self._standing_in([way * free for way in ways])
        return {reader: found[:, i].to(residual).view(residual.shape) for i, reader in enumerate(losing)}

    def _standing_in(
        self, ways: Sequence[Float[Tensor, "reader row"]], rows: slice = slice(None)
    ) -> Float[Tensor, "#sample reader #position #width"]:
        """The sum of what stands in for some rows, each way for what is removed so."""
        return sum(
            (_summed(gone, way.instead[:, rows]) for gone, way in zip(ways, self._ways, strict=True)), torch.zeros(())
        )

    def _behind_norm(
        self,
        block: slice,
        outputs: HeadOutputs,
        whole: Residual,
        gone: Float[Tensor, "reader row"],
        ways: Sequence[Float[Tensor, "reader row"]],
        anew: Float[Tensor, "reader 1"],
    ) -> Float[Tensor, "sample reader position width"]:
        """What readers read of a block's heads, behind the norm that runs on those that are left; less the whole block
        where that is in what they read already."""
        gone = gone[:, block]
        left = _summed(1 - gone, self._written[:, block]) + self._standing_in([way[:, block] for way in ways], block)
        losing = gone.amax(1, keepdim=True)[..., None]
        before = wide(whole)[:, None].to(left.device)
        return torch.where(losing > 0, outputs.added(left), before) - (1 - anew)[..., None] * before


class _Way:
    """One way in which edges are removed, and what stands in for their writers: a row for each writer that is kept."""

    def __init__(self, edges: Bool[np.ndarray, "reader writer"], stand_ins: StandIns) -> None:
        self.edges, self.stand_ins = edges, stand_ins
        self.instead = torch.empty(0, 0, 0, 0)

    def room_for(
        self, one: Float[Tensor, "#sample #position any"], written: Float[Tensor, "sample row position width"]
    ) -> Float[Tensor, "#sample row #position width"]:
        """The buffer of what stands in, as it is made for the first."""
        if not self.instead.numel():
            samples, positions = (1, 1, *one.shape[:-1])[-2:]
            self.instead = written.new_zeros(samples, written.shape[1], positions, written.shape[3])
        return self.instead


def _summed(
    shares: Float[Tensor, "reader row"], outputs: Float[Tensor, "sample more position width"]
) -> Float[Tensor, "sample reader position width"]:
    """Sums of the first rows of a buffer, as many as there are shares; zero of an empty one."""
    if not outputs.numel():
        return shares.new_zeros(1, len(shares), 1, 1)
    rows = outputs[:, : shares.shape[1]]
    return (shares @ rows.flatten(2)).view(len(rows), len(shares), *rows.shape[2:])


@contextmanager
def run_without(
    attributor: Attributor, samples: Sequence[Sample], edges: Iterable[int], references: References = ZERO
) -> Iterator[Predictions]:
    """Run one batch with some edges of the attributor's graph, by their numbers, removed; yields what the model says.

    With no edges it is the model itself, to the last bit.

    Raises:
        SequenceError: a sample that this model cannot score, or that lacks what the references need.
    """
    with run_with(attributor, samples, [Removed(edges, references.of(samples))]) as said:
        yield said


@contextmanager
def run_with(attributor: Attributor, samples: Sequence[Sample], ways: Iterable[Removed]) -> Iterator[Predictions]:
    """The same with edges removed in several ways, or in none; what stands in is that for these very samples.

    Raises:
        SequenceError: a sample that this model cannot score.
    """
    walked, granularity = attributor.architecture.graph, attributor.graph.granularity
    parts = [Removed(walked.parts_of(way.edges, granularity), way.stand_ins) for way in ways]
    hooks = rewriting(attributor.architecture, Removal(walked, parts)) if parts else nullcontext()
    with torch.no_grad(), attributor.running(samples, hooks) as said:
        yield said


def loss_without(
    attributor: Attributor,
    samples: Sequence[Sample],
    edges: Iterable[int],
    loss: Loss = "nll",
    references: References = ZERO,
) -> Float[np.ndarray, " sample"]:
    """Each sample's loss per scored token, with some edges of the attributor's graph really removed.

    `edges` are their numbers; with none, it is the model's own loss. The samples make one batch.

    Raises:
        SequenceError: as `run_without` does.
    """
    with run_without(attributor, samples, edges, references) as said:
        return said.losses(loss).cpu().numpy()
