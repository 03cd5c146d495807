"""A base and a tuned model in memory together, and the parts of one in the other.

Tensors are overwritten in place and put back bit by bit, so nothing is copied but what is exchanged. That the parts are
all that the two models differ in is proved when they are brought together: every number that differs must be in one
part, and the base with all parts of the tuned model must say what that says.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from probing.architectures import TOLERANCE
from probing.attribution import Attributor
from probing.errors import ModelError
from probing.transplant.parts import Parts, Piece, count_of, parts_of, tensors_of
from probing.transplant.units import Direction

_POSITIONS = 12


@contextmanager
def holding(host: torch.nn.Module, donor: torch.nn.Module, pieces: Iterable[Piece]) -> Iterator[None]:
    """The host with some pieces of the donor's; it is bit by bit what it was afterwards, whatever happens.

    Both have tensors of the same names and shapes. Nobody else may use the host meanwhile.
    """
    here, there = tensors_of(host), tensors_of(donor)
    kept: list[tuple[Piece, Tensor]] = []
    try:
        for piece in pieces:
            kept.append((piece, piece.of(here).clone()))
            piece.put(here, piece.of(there))
        yield
    finally:
        for piece, values in reversed(kept):
            piece.put(here, values)


@dataclass(frozen=True)
class Pairing:
    """A pair whose parts can be exchanged, at the granularity of its attributors.

    Raises:
        ModelError: their tensors differ in number, shape or dtype, a number that differs belongs to no part or to two,
            or they differ in more than their tensors.
    """

    base: Attributor
    tuned: Attributor

    def __post_init__(self) -> None:
        """Prove it."""
        _refuse_other_shapes(self.base, self.tuned)
        self._refuse_strays()
        everything = [piece for pieces in self.parts.values() for piece in pieces]
        with holding(self.base.model, self.tuned.model, everything):
            said, expected = (_says(attributor).double().cpu() for attributor in (self.base, self.tuned))
        if not (said - expected).norm() <= TOLERANCE.get(self.base.model.dtype, 1e-4) * expected.norm():
            raise ModelError(
                "With every weight of the tuned model, the base still does not say what that says.",
                "Their configs must differ in more than names: give both the same one.",
            )

    @cached_property
    def parts(self) -> Parts:
        """What can be exchanged."""
        return parts_of(self.base.architecture)

    @cached_property
    def moved(self) -> dict[str, float | None]:
        """How far tuning moved each part: the norm of the difference over the base's norm; None from zero."""
        base, tuned = tensors_of(self.base.model), tensors_of(self.tuned.model)
        found: dict[str, float | None] = {}
        for name, pieces in self.parts.items():
            before, change = 0.0, 0.0
            for piece in pieces:
                here = piece.of(base).double()
                before += float(here.square().sum())
                change += float((piece.of(tuned).to(here) - here).square().sum())
            found[name] = 0.0 if not change else (change / before) ** 0.5 if before else None
        return found

    def ends(self, direction: Direction) -> tuple[Attributor, Attributor]:
        """Host and donor."""
        return (self.base, self.tuned) if direction == "into-base" else (self.tuned, self.base)

    @contextmanager
    def exchanged(self, direction: Direction, parts: Iterable[str]) -> Iterator[Attributor]:
        """The host with some parts of the donor's, until the end."""
        host, donor = self.ends(direction)
        with holding(host.model, donor.model, [piece for name in parts for piece in self.parts[name]]):
            yield host

    def _refuse_strays(self) -> None:
        base, tuned = tensors_of(self.base.model), tensors_of(self.tuned.model)
        claimed: dict[str, list[Piece]] = {}
        for piece in (piece for pieces in self.parts.values() for piece in pieces):
            claimed.setdefault(piece.tensor, []).append(piece)
        for name, tensor in base.items():
            other = tuned[name].to(tensor.device)
            if torch.equal(tensor, other):
                continue
            mine, differs = claimed.get(name, []), tensor != other
            if mine and differs.dim():
                differs = differs.movedim(mine[0].dim, 0).flatten(1).any(1) if differs.dim() > 1 else differs
                differs = differs.cpu() & (count_of(tensor, mine) != 1)
            if len(mine) != 1 and bool(differs.any()):
                whose = "more than one part" if mine else "no part"
                raise ModelError(
                    f"'{name}' differs between base and tuned and belongs to {whose} of the model.",
                    "Parts can be exchanged only where they are all that tuning changed.",
                )


def _refuse_other_shapes(base: Attributor, tuned: Attributor) -> None:
    rows = [attributor.architecture.weight.shape[0] for attributor in (base, tuned)]
    if rows[0] != rows[1]:
        raise ModelError(
            f"The base has a vocabulary of {rows[0]} tokens and the tuned model one of {rows[1]}.",
            "Parts can be exchanged between models of one shape only.",
        )
    here, there = tensors_of(base.model), tensors_of(tuned.model)
    for name in (*here, *there):
        one, other = here.get(name), there.get(name)
        if one is None or other is None:
            who, lacks = ("base", "tuned model") if other is None else ("tuned model", "base")
            raise ModelError(
                f"The {who} has a tensor '{name}' and the {lacks} has none.",
                "Parts can be exchanged between models of one architecture only.",
            )
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            told = [f"{list(tensor.shape)} ({str(tensor.dtype).removeprefix('torch.')})" for tensor in (one, other)]
            raise ModelError(
                f"'{name}' is {told[0]} in the base and {told[1]} in the tuned model.",
                "Parts can be exchanged between models of one shape and dtype only.",
            )


@torch.no_grad()
def _says(attributor: Attributor) -> Tensor:
    """Logits on a few tokens."""
    weight = attributor.architecture.weight
    tokens = torch.arange(_POSITIONS, device=weight.device)[None] * 7919 % weight.shape[0]
    return attributor.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
