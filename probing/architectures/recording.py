"""Hooks that tell an observer what is written, what is read, and what gradient each reader has, as the passes go.

The gradient ends at the first block's input, which is what `input` writes: scaled or with positions added, as the
family has it. Every reader, or group of readers behind one norm, is given a view of the residual of its own, and the
gradient of that view is taken. Within a group, gradients are taken apart behind the norm (`taps`) and pulled back
through it in closed form (`norms`). Nothing of the model is run twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probing.architectures.families import Architecture, Reading
from probing.architectures.norms import Norm
from probing.architectures.taps import Gradient, Residual, Take, given, own_view, replaced
from probing.architectures.writing import Written, hooked


class Influence(Protocol):
    """The gradients through some readers of one residual: computed where one asks for them, and not before."""

    readers: range
    """Which, by their indices in `ResidualGraph.readers`."""
    norm: Norm
    """What stands between the residual and them."""
    residual: Residual
    """What they read, detached; there where the observer looks behind norms, or they share one."""

    def write(self, out: Float[Tensor, "sample reader position width"]) -> None:
        """Write the gradients at the residual into a tensor."""

    def write_behind(self, out: Float[Tensor, "sample reader position width"]) -> None:
        """Write those at the norm's output, to an observer that looks behind norms."""


class Observer(Written):
    """What `recording` reports to, as the passes go; a subclass takes what it needs. Nothing is kept otherwise.

    Tensors of the forward pass come attached to it: who keeps them, and not for a backward pass, detaches them.
    """

    behind_norms = False
    """Whether it asks for gradients behind the norms of readers that have one for themselves."""

    def starts(self, embedding: Residual) -> Residual:
        """What the first block is to read: its input, detached from what made it; the gradient ends there."""
        return embedding

    def read(self, readers: range, residual: Residual) -> None:
        """The residual as readers, by their indices in `ResidualGraph.readers`, are about to read it."""

    def influenced(self, influence: Influence) -> None:
        """Some readers got their gradients; later layers come first."""


@contextmanager
def recording(architecture: Architecture, observer: Observer) -> Iterator[None]:
    """Hook the model for the one pass made inside; the hooks are gone afterwards, whatever happens.

    Raises:
        ModelError: by the pass inside, as `writing_hooks` says.
    """

    def begin(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        start = observer.starts(given(args, kwargs).detach()).requires_grad_(torch.is_grad_enabled())
        return replaced(args, kwargs, start)

    def reading_hooks(readers: range, reading: Reading) -> list[Any]:
        return _Readers(readers, reading, observer).hooks()

    first = architecture.blocks[0].layer.register_forward_pre_hook(begin, with_kwargs=True)
    with first, hooked(architecture, observer, reading_hooks):
        yield


class _Readers(Influence):
    """Readers of one residual."""

    def __init__(self, readers: range, reading: Reading, observer: Observer) -> None:
        self.readers, self.norm = readers, reading.norm
        self._reading, self._observer = reading, observer
        self._gradients: list[tuple[range, Gradient]] = []
        self._behind = observer.behind_norms and not reading.taps and reading.norm.kind != "none"

    def hooks(self) -> list[Any]:
        """The hooks, registered."""
        handles = [self._reading.place.register_forward_pre_hook(self._read, with_kwargs=True)]
        first = 0
        for taps in self._reading.taps:
            handles += taps.hooks(self._taker(first))
            first += taps.parts
        if self._behind:
            handles.append(self._reading.place.register_forward_hook(self._normed))
        return handles

    def _taker(self, first: int) -> Take:
        return lambda parts, gradient: self._gradients.append(
            (range(first + parts.start, first + parts.stop), gradient)
        )

    def _read(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        residual = given(args, kwargs)
        if self._reading.taps or self._behind:
            self.residual = residual.detach()
        self._observer.read(self.readers, residual)
        return replaced(args, kwargs, own_view(residual, self._influenced))

    def _normed(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """What a norm of one reader gives out."""
        return own_view(output, lambda gradient: self._taker(0)(range(1), Gradient(gradient[:, None])))

    def _influenced(self, whole: Residual) -> None:
        """The gradient through all of them has arrived, so those behind the norm have before it."""
        self._whole = whole
        self._observer.influenced(self)
        self._gradients = []
        del self._whole

    def write(self, out: Float[Tensor, "sample reader position width"]) -> None:
        """Pull the gradients back where this block is, which may be another device than that of `out`."""
        if not self._reading.taps:
            out.copy_(self._whole.view(out.shape))
            return
        near = out if out.device == self.residual.device else torch.empty_like(out, device=self.residual.device)
        self._gather(near)
        self.norm.pull_back(self.residual, near)
        if near is not out:
            out.copy_(near)

    def write_behind(self, out: Float[Tensor, "sample reader position width"]) -> None:
        """As they arrived there."""
        if not self._gradients and not self._reading.taps:
            out.copy_(self._whole.view(out.shape))
        else:
            self._gather(out)

    def _gather(self, out: Float[Tensor, "sample reader position width"]) -> None:
        """Add up what has arrived at each reader."""
        written: set[int] = set()
        for parts, gradient in self._gradients:
            gradient.add_to(out[:, parts.start : parts.stop], written.isdisjoint(parts))
            written.update(parts)
        for part in set(range(len(self.readers))) - written:
            out[:, part].zero_()
