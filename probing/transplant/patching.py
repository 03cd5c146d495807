"""What the donor writes at some parts in place of what the host writes there, on a text that both read.

Every reader after a part reads residual - what the host wrote + what the donor wrote. Later blocks are the host's, and
run on what was changed. A head's is its own values through the donor's own columns of the output projection.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Bool, Float

from probing.architectures import HeadOutputs, Intervention, rewriting
from probing.architectures.taps import Residual
from probing.attribution import Attributor
from probing.attribution.passes import Predictions
from probing.graph import ResidualGraph
from probing.sequences import Sample


class Kept(Intervention):
    """Keeps what some writers write and changes nothing."""

    def __init__(self, wanted: Iterable[int]) -> None:
        self.written: dict[int, Residual] = {}
        self._wanted = set(wanted)

    def wrote(self, writer: int, output: Residual) -> None:
        """Keep a copy, as some models add in place (Falcon)."""
        if writer in self._wanted:
            self.written[writer] = output.clone()

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        """Keep the heads that are wanted."""
        if wanted := self._wanted.intersection(writers):
            parts = whole.new_empty(whole.shape[0], len(writers), *whole.shape[1:])
            outputs.write(parts)
            self.written.update({writer: parts[:, writer - writers.start] for writer in wanted})


class Patch(Kept):
    """Lets every reader read, for some writers, what stands in for what they wrote."""

    def __init__(self, graph: ResidualGraph, stand_ins: Mapping[int, Residual]) -> None:
        super().__init__(stand_ins)
        self._before, self._stand_ins = graph.writers_before, stand_ins

    def reads(self, readers: range, residual: Residual) -> Mapping[int, Residual]:
        """The residual with the stand-ins of all that was written before."""
        changed = {}
        for reader in readers:
            if past := [writer for writer in self._stand_ins if writer < self._before[reader]]:
                moves = [self._stand_ins[writer].to(residual) - self.written[writer].to(residual) for writer in past]
                changed[reader] = residual + torch.stack(moves).sum(0).view(residual.shape)
        return changed


def patched_loss(
    host: Attributor, donor: Attributor, writers: Sequence[str], samples: Sequence[Sample]
) -> Float[np.ndarray, " sample"]:
    """Each sample's loss in the host, in nats per scored token, with what the donor writes at some writers.

    The samples make one batch.

    Raises:
        SequenceError: a sample that these models cannot score.
    """
    graph = host.architecture.graph
    kept = Kept(graph.writers.index(writer) for writer in writers)
    donor.watch(samples, kept)
    return loss_of(host, samples, rewriting(host.architecture, Patch(graph, kept.written)))


@torch.no_grad()
def loss_of(
    attributor: Attributor, samples: Sequence[Sample], hooks: AbstractContextManager | None = None
) -> Float[np.ndarray, " sample"]:
    """Each sample's loss, in nats per scored token, in one batch that runs under some hooks.

    Raises:
        SequenceError: a sample that the model cannot score.
    """
    with attributor.running(samples, hooks or nullcontext()) as said:
        return _losses(said)


@torch.no_grad()
def read(
    attributor: Attributor, samples: Sequence[Sample]
) -> tuple[Float[np.ndarray, " sample"], Bool[np.ndarray, " sample"]]:
    """Each sample's loss as `loss_of` gives it, and whether the model would say what is scored by itself.

    Raises:
        SequenceError: a sample that the model cannot score.
    """
    with attributor.running(samples, nullcontext()) as said:
        return _losses(said), said.own().cpu().numpy()


def _losses(said: Predictions) -> Float[np.ndarray, " sample"]:
    return said.losses().double().cpu().numpy()
