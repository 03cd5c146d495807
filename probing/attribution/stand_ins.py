"""What stands in for what is removed, as every pass takes it: nothing, or something else for each writer.

Of a block that is divided into heads, what stands in is in the space of the values that its heads write by, so that a
head's stand-in is its share of them through its own columns of the projection, whose bias stays what it is; under a
reference of zero the bias goes too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from probing.architectures import HeadOutputs, Residual
from probing.method import Reference
from probing.sequences import Sample

_Of = Float[Tensor, "#sample #position width"]


@dataclass(frozen=True)
class StandIns:
    """What stands in for each writer in one batch, by its place among the writers; zero for those that are not named.

    What stands in for the values of a block's heads is named by the place of its first head.
    """

    written: Mapping[int, _Of] = field(default_factory=dict)
    values: Mapping[int, _Of] = field(default_factory=dict)

    def change(self, writer: int, output: Residual) -> Residual:
        """What replaces a writer's output, less the output."""
        instead = self.written.get(writer)
        return -output if instead is None else instead.to(output.device) - output

    def change_of_heads(self, writers: range, outputs: HeadOutputs) -> HeadOutputs:
        """The same of a block's heads."""
        return outputs.change(self.values.get(writers.start))


class References(Protocol):
    """What stands in, batch by batch."""

    @property
    def kind(self) -> Reference:
        """What methods call it."""

    def of(self, samples: Sequence[Sample]) -> StandIns:
        """For one batch."""


@dataclass(frozen=True)
class Fixed:
    """The same for every batch."""

    kind: Reference
    stand_ins: StandIns

    def of(self, samples: Sequence[Sample]) -> StandIns:
        """Whatever the batch."""
        return self.stand_ins


ZERO = Fixed("zero", StandIns())
"""Nothing stands in: what is removed is gone."""
