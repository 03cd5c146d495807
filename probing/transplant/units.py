"""What can be measured of a pair, by name.

`base` and `tuned` are the models as they are. `weights:into-base:a0` is the base with the tuned model's `a0` (what that
part gains), `weights:into-tuned:a0` the tuned model with the base's (what it loses). `activations:into-base:a0` is the
base that reads, of what `a0` writes, what the tuned model writes there on the same text. In the cumulative form
`weights:into-base:depth:3` has the first three parts from the input to the logits, and `weights:into-base:effect:3` the
three whose single effects are largest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

What = Literal["weights", "activations"]
Direction = Literal["into-base", "into-tuned"]
Order = Literal["depth", "effect"]

WHATS: tuple[What, ...] = ("weights", "activations")
DIRECTIONS: tuple[Direction, ...] = ("into-base", "into-tuned")
ORDERS: tuple[Order, ...] = ("depth", "effect")

HOSTS: dict[Direction, tuple[str, str]] = {"into-base": ("base", "tuned"), "into-tuned": ("tuned", "base")}
"""The units that are host and donor alone."""

Values = Mapping[str, Float[np.ndarray, " question"]]
"""A unit's measures, each over the same questions: `loss` in nats per token of the text that both models read, and
`correct`, 0 or 1, of answers given anew."""


@dataclass(frozen=True)
class Unit:
    """Some parts of one model in the other."""

    name: str
    what: What
    direction: Direction
    parts: tuple[str, ...]


BASE, TUNED = Unit("base", "weights", "into-base", ()), Unit("tuned", "weights", "into-tuned", ())
"""The models as they are."""


def singles(what: What, direction: Direction, parts: Sequence[str]) -> list[Unit]:
    """Each part alone."""
    return [Unit(f"{what}:{direction}:{part}", what, direction, (part,)) for part in parts]


def parts_among(names: Sequence[str], what: What, direction: Direction) -> list[str]:
    """The parts that stand alone in some units, by these units' names."""
    start = f"{what}:{direction}:"
    return [
        name.removeprefix(start) for name in names if name.startswith(start) and ":" not in name.removeprefix(start)
    ]


def steps(direction: Direction, order: Order, parts: Sequence[str]) -> list[Unit]:
    """The first two, three, ... of parts in an order, until all are in the host; the first alone is among `singles`."""
    return [
        Unit(f"weights:{direction}:{order}:{count}", "weights", direction, tuple(parts[:count]))
        for count in range(2, len(parts) + 1)
    ]


def by_effect(direction: Direction, parts: Sequence[str], values: Mapping[str, Values]) -> list[str]:
    """Parts by their single effects, the largest first.

    `values` has those of both models and of each part's unit. An effect is how far a part takes the share of right
    answers towards the donor's, and where that is equal the loss; of equal effects, the part that comes first in depth.
    """
    host, donor = (values[name] for name in HOSTS[direction])

    def effects(part: str) -> Iterator[float]:
        """Rounded, as sums of the same numbers are not the same in any order."""
        found = values[f"weights:{direction}:{part}"]
        for measure in (measure for measure in ("correct", "loss") if measure in found):
            before, after, there = (float(side[measure].mean()) for side in (host, found, donor))
            yield round((after - before) * (1 if there >= before else -1), 12)

    return sorted(parts, key=lambda part: tuple(-effect for effect in effects(part)))


def in_order(order: Order, direction: Direction, parts: Sequence[str], values: Mapping[str, Values]) -> Sequence[str]:
    """Parts in the order in which they are added."""
    return parts if order == "depth" else by_effect(direction, parts, values)


def units_of(what: What, direction: Direction, parts: Sequence[str], values: Mapping[str, Values]) -> list[Unit]:
    """All units: both models, each part alone, and of weights the steps in each order."""
    found = [BASE, TUNED, *singles(what, direction, parts)]
    for order in ORDERS if what == "weights" else ():
        found += steps(direction, order, in_order(order, direction, parts, values))
    return found
