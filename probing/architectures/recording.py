"""Hooks that tell an observer what is written, what is read, and what gradient each reader has, as the passes go.

The gradient ends at the first block's input, which is what `input` writes: scaled or with positions added, as the
family has it. Every reader, or group of readers behind one norm, is given a view of the residual of its own, and the
gradient of that view is taken. Within a group, gradients are taken apart behind the norm (`taps`) and pulled back
through it in closed form (`norms`). Nothing of the model is run twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probing.architectures.families import Architecture, Reading
from probing.architectures.taps import Gradient, Residual, Take, given, own_view, replaced
from probing.architectures.writing import Written, hooked

WriteGradients = Callable[[Float[Tensor, "sample reader position width"]], object]
"""Writes gradients into the tensor that it is given."""


class Observer(Written):
    """What `recording` reports to, as the passes go; a subclass takes what it needs. Nothing is kept otherwise.

    Tensors of the forward pass come attached to it: who keeps them, and not for a backward pass, detaches them.
    """

    def embedded(self, embedding: Residual) -> None:
        """The first block's input, detached from what made it: where the gradient ends."""

    def read(self, readers: range, residual: Residual) -> None:
        """The residual as readers, by their indices in `ResidualGraph.readers`, are about to read it."""

    def influenced(self, readers: range, write_gradients: WriteGradients) -> None:
        """Readers, by their indices in `ResidualGraph.readers`, got their gradients; later layers come first.

        They are written where one asks for them, and not computed before.
        """


@contextmanager
def recording(architecture: Architecture, observer: Observer) -> Iterator[None]:
    """Hook the model for the one pass made inside; the hooks are gone afterwards, whatever happens.

    Raises:
        ModelError: by the pass inside, as `writing_hooks` says.
    """

    def begin(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        start = given(args, kwargs).detach().requires_grad_(torch.is_grad_enabled())
        observer.embedded(start)
        return replaced(args, kwargs, start)

    def reading_hooks(readers: range, reading: Reading) -> list[Any]:
        return _Readers(readers, reading, observer).hooks()

    first = architecture.blocks[0].layer.register_forward_pre_hook(begin, with_kwargs=True)
    with first, hooked(architecture, observer, reading_hooks):
        yield


class _Readers:
    """Readers of one residual."""

    def __init__(self, readers: range, reading: Reading, observer: Observer) -> None:
        self._readers, self._reading, self._observer = readers, reading, observer
        self._gradients: list[tuple[range, Gradient]] = []

    def hooks(self) -> list[Any]:
        """The hooks, registered."""
        handles = [self._reading.place.register_forward_pre_hook(self._read, with_kwargs=True)]
        first = 0
        for taps in self._reading.taps:
            handles += taps.hooks(self._taker(first))
            first += taps.parts
        return handles

    def _taker(self, first: int) -> Take:
        return lambda parts, gradient: self._gradients.append(
            (range(first + parts.start, first + parts.stop), gradient)
        )

    def _read(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        residual = given(args, kwargs)
        if self._reading.taps:
            self._residual = residual.detach()
        self._observer.read(self._readers, residual)
        return replaced(args, kwargs, own_view(residual, self._influenced))

    def _influenced(self, whole: Residual) -> None:
        """The gradient through all of them has arrived, so those behind the norm have before it."""
        if self._reading.taps:
            self._observer.influenced(self._readers, self._write)
        else:
            self._observer.influenced(self._readers, lambda out: out.copy_(whole.view(out.shape)))
        self._gradients = []

    def _write(self, out: Float[Tensor, "sample reader position width"]) -> None:
        """Pull the gradients back where this block is, which may be another device than that of `out`."""
        near = out if out.device == self._residual.device else torch.empty_like(out, device=self._residual.device)
        written: set[int] = set()
        for parts, gradient in self._gradients:
            gradient.add_to(near[:, parts.start : parts.stop], written.isdisjoint(parts))
            written.update(parts)
        for part in set(range(len(self._readers))) - written:
            near[:, part].zero_()
        self._reading.norm.pull_back(self._residual, near)
        if near is not out:
            out.copy_(near)
