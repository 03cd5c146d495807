"""The references that are measured: each writer's mean, and what it writes on a counterpart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probing.architectures import HeadOutputs, Residual, WriterOutputs, Written, wide
from probing.attribution.attributor import Attributor
from probing.attribution.stand_ins import ZERO, Fixed, References, StandIns
from probing.errors import SequenceError
from probing.fitting import batch_by_batch
from probing.method import Reference
from probing.sequences import Sample


@dataclass(frozen=True)
class Counterparts:
    """What each writer writes on the sample's counterpart, position by position."""

    attributor: Attributor
    kind: Reference = "patch"

    def of(self, samples: Sequence[Sample]) -> StandIns:
        """Those of one batch, in a pass over its counterparts."""
        return written_on(self.attributor, [_counterpart(sample) for sample in samples])


def written_on(attributor: Attributor, samples: Sequence[Sample]) -> StandIns:
    """What each of a model's writers writes on some samples, in a pass over them: it may stand in for others.

    Raises:
        SequenceError: a sample that the model cannot be fed.
    """
    seen = WriterOutputs()
    attributor.watch(samples, seen)
    return StandIns(seen.written, {writers.start: heads.values for writers, heads in seen.heads.items()})


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
    total, done = _Sums(), 0

    def do(batch: list[int]) -> None:
        nonlocal done
        progress(done)
        chosen = [samples[i] for i in batch]
        part = _Sums([len(sample.fed) for sample in chosen])
        attributor.watch(chosen, part)
        total.add(part)
        done += len(batch)

    batch_by_batch(attributor.batches(samples, batch_size), do)
    positions = sum(len(sample.fed) for sample in samples)
    dtype = torch.promote_types(attributor.model.dtype, torch.float32)
    means = ({place: (one / positions).to(dtype) for place, one in sums.items()} for sums in total.all)
    return Fixed("mean", StandIns(*means))


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


class _Sums(Written):
    """Sums of what is written, over samples and the positions that they feed: so many of each."""

    def __init__(self, lengths: Sequence[int] = ()) -> None:
        self._lengths = torch.tensor(lengths)
        self.all: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})

    def wrote(self, writer: int, output: Residual) -> None:
        self.all[0][writer] = self._sum(output)

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        self.all[1][writers.start] = self._sum(outputs.values)

    def _sum(self, output: Residual) -> Tensor:
        fed = torch.arange(output.shape[1]) < self._lengths[:, None]
        return wide(output).masked_fill(~fed[..., None].to(output.device), 0).sum((0, 1), dtype=torch.float64)

    def add(self, other: "_Sums") -> None:
        """Take in those of other samples."""
        for mine, theirs in zip(self.all, other.all, strict=True):
            mine.update({place: mine[place] + one if place in mine else one for place, one in theirs.items()})
