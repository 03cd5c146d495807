"""The references that are measured: each writer's mean, and what it writes on a counterpart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probing.architectures import HeadOutputs, Residual, Written, wide
from probing.attribution.attributor import Attributor
from probing.attribution.stand_ins import ZERO, References, StandIns
from probing.errors import SequenceError
from probing.method import Reference
from probing.sequences import Sample


@dataclass(frozen=True)
class Means(References):
    """The same for all samples: each writer's mean over them and their positions, the prompts' included."""

    means: StandIns

    def of(self, samples: Sequence[Sample]) -> StandIns:
        """The same for every batch."""
        return self.means


@dataclass(frozen=True)
class Counterparts(References):
    """What each writer writes on the sample's counterpart, position by position."""

    attributor: Attributor

    def of(self, samples: Sequence[Sample]) -> StandIns:
        """Those of one batch, in a pass over its counterparts."""
        seen = _Kept()
        self.attributor.watch([_counterpart(sample) for sample in samples], seen)
        return StandIns(seen.written, seen.values)


def find_references(
    attributor: Attributor,
    kind: Reference,
    samples: Sequence[Sample],
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> References:
    """The references of a kind for edges of the attributor's graph; means are measured, in a pass over all `samples`.

    Raises:
        SequenceError: a sample that the model cannot be fed, or that lacks the counterpart that is asked for.
    """
    if kind == "zero":
        return ZERO
    attributor.check(samples)
    if kind == "patch":
        for sample in samples:
            _counterpart(sample)
        return Counterparts(attributor)
    seen, done = _Sums(), 0
    for batch in attributor.batches(samples, batch_size):
        progress(done)
        chosen = [samples[i] for i in batch]
        seen.lengths = [len(sample.fed) for sample in chosen]
        attributor.watch(chosen, seen)
        done += len(batch)
    positions = sum(len(sample.fed) for sample in samples)
    dtype = torch.promote_types(attributor.model.dtype, torch.float32)
    return Means(
        StandIns(*({place: (total / positions).to(dtype) for place, total in sums.items()} for sums in seen.all))
    )


def _counterpart(sample: Sample) -> Sample:
    """The sample with its counterpart's tokens.

    Raises:
        SequenceError: it has none.
    """
    if sample.counterpart is None:
        raise SequenceError(
            f"Sequence '{sample.id}' has no counterpart, and the reference 'patch' is what is written on one.",
            "Give each sequence a counterpart of as many tokens, or choose another reference.",
        )
    return replace(sample, input_ids=sample.counterpart, counterpart=None)


class _Kept(Written):
    """Everything that is written in a pass; copies, to which some models add in place (Falcon)."""

    def __init__(self) -> None:
        self.written: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def wrote(self, writer: int, output: Residual) -> None:
        self.written[writer] = output.clone()

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        self.values[writers.start] = outputs.values.clone()


class _Sums(Written):
    """Sums of what is written, over samples and the positions that they feed."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.all: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})

    def wrote(self, writer: int, output: Residual) -> None:
        self._add(self.all[0], writer, output)

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        self._add(self.all[1], writers.start, outputs.values)

    def _add(self, sums: dict[int, Tensor], place: int, output: Residual) -> None:
        fed = torch.arange(output.shape[1]) < torch.tensor(self.lengths)[:, None]
        found = wide(output).masked_fill(~fed[..., None].to(output.device), 0).sum((0, 1), dtype=torch.float64)
        sums[place] = sums[place] + found if place in sums else found
