"""What really happens without some edges: the model runs again, and every later block with it."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from probing.architectures import HeadOutputs, Intervention, rewriting
from probing.architectures.taps import Residual
from probing.attribution import Attributor
from probing.graph import ResidualGraph
from probing.sequences import Sample


class Removal(Intervention):
    """Takes out of what each reader reads what some writers wrote: their edges are removed, zero in their place.

    A head of a block with a norm behind it is removed at the scale that the norm gave the whole block.
    """

    def __init__(self, graph: ResidualGraph, edges: Iterable[int]) -> None:
        self._gone: dict[int, list[int]] = {}
        writer, reader = graph.edge_index
        for edge in edges:
            self._gone.setdefault(int(reader[edge]), []).append(int(writer[edge]))
        self._wanted = {place for places in self._gone.values() for place in places}
        self._written: dict[int, Residual] = {}

    def wrote(self, writer: int, output: Residual) -> None:
        """Keep it if it is to be taken out somewhere; a copy, to which some models add in place (Falcon)."""
        if writer in self._wanted:
            self._written[writer] = output.clone()

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        """Keep the heads that are to be taken out somewhere."""
        wanted = self._wanted.intersection(writers)
        if wanted:
            parts = whole.new_empty(whole.shape[0], len(writers), *whole.shape[1:])
            outputs.write(parts)
            self._written.update({writer: parts[:, writer - writers.start] for writer in wanted})

    def reads(self, readers: range, residual: Residual) -> Mapping[int, Residual]:
        """The residual without what is removed."""
        changed = {}
        for reader in self._gone.keys() & set(readers):
            gone = torch.stack([self._written[writer].view(residual.shape) for writer in self._gone[reader]])
            changed[reader] = residual - gone.sum(0)
        return changed


def loss_without(
    attributor: Attributor, samples: Sequence[Sample], edges: Iterable[int]
) -> Float[np.ndarray, " sample"]:
    """Each sample's loss, in nats per scored token, with some edges of the attributor's graph really removed.

    `edges` are their numbers; with none, it is the model's own loss. The samples make one batch.

    Raises:
        SequenceError: a sample that this model cannot score.
    """
    walked = attributor.architecture.graph
    removal = Removal(walked, walked.parts_of(edges, attributor.graph.granularity))
    with torch.no_grad(), attributor.running(samples, rewriting(attributor.architecture, removal)) as said:
        return said.losses().cpu().numpy()
