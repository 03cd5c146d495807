"""How finely a model is looked at, and how its attention is divided."""

from dataclasses import dataclass
from typing import Literal

Granularity = Literal["projections", "blocks", "heads"]
"""Whether an attention block is one writer and its projections read apart, or it reads as one too, or all its heads
write and read."""

COARSENESS: dict[Granularity, int] = {"heads": 0, "projections": 1, "blocks": 2}
"""Granularities from the finest to the coarsest."""

MOST_LAYERS = 1000
"""Of a model that is believed."""

MOST_HEADS = 1024
"""Of a layer that is believed."""


@dataclass(frozen=True)
class Heads:
    """How a layer's attention is divided."""

    queries: int
    """Heads; each writes, and has a query of its own."""
    groups: int
    """Heads of keys and values, each shared by equally many queries."""
    bias: bool = False
    """Whether the block writes something that is no head's."""

    @property
    def believable(self) -> bool:
        """Whether a layer may be divided so."""
        counts = (self.queries, self.groups)
        return (
            all(type(count) is int and 0 < count <= MOST_HEADS for count in counts)
            and self.queries % self.groups == 0
            and type(self.bias) is bool
        )
