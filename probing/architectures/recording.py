"""Hooks that tell an observer what is written, what is read, and what gradient each reader has, as the passes go.

The gradient ends at the first block's input, which is what `input` writes: scaled or with positions added, as the
family has it. Every reader is given a view of its own, and the gradient of that view is taken. The MLP and the head
have a place to themselves, so theirs is a view of the residual. q, k and v share a norm; their gradients are taken at
their projections' inputs (for one projection that makes all three, at its outputs, and pulled back through its matrix)
and then pulled back through the norm in closed form. Nothing of the model is run twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probing.architectures.families import Architecture, Block
from probing.architectures.norms import Norm

Residual = Float[Tensor, "sample position width"]

WriteGradients = Callable[[Float[Tensor, "sample reader position width"]], object]
"""Writes gradients into the tensor that it is given."""


class Observer:
    """What `recording` reports to, as the passes go; a subclass takes what it needs. Nothing is kept otherwise."""

    def embedded(self, embedding: Residual) -> None:
        """The first block's input, detached from what made it: where the gradient ends."""

    def wrote(self, writer: int, output: Residual) -> None:
        """What a writer, by its index in `ResidualGraph.writers`, added to the residual."""

    def read(self, residual: Residual) -> None:
        """The residual before each attention block, before each MLP and before the head, in that order."""

    def influenced(self, readers: range, write_gradients: WriteGradients) -> None:
        """Readers, by their indices in `ResidualGraph.readers`, got their gradients; later layers come first.

        They are written where one asks for them, and not computed before.
        """


@contextmanager
def recording(architecture: Architecture, observer: Observer) -> Iterator[None]:
    """Hook the model for the one pass made inside; the hooks are gone afterwards, whatever happens."""

    def begin(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        start = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_(torch.is_grad_enabled())
        observer.embedded(start)
        observer.wrote(0, start.detach())
        return ((start, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": start})

    def write(writer: int, scale: float) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor | tuple[Tensor, ...]) -> None:
            written = (output[0] if isinstance(output, tuple) else output).detach()
            observer.wrote(writer, written if scale == 1 else written * scale)

        return hook

    def read_alone(reader: int) -> Callable:
        """For a module with one reader behind it."""

        def take(gradient: Residual) -> None:
            observer.influenced(range(reader, reader + 1), lambda out: out.copy_(gradient[:, None]))

        def hook(module: nn.Module, args: tuple) -> tuple:
            observer.read(args[0].detach())
            return (_own_view(args[0], take), *args[1:])

        return hook

    handles = [architecture.blocks[0].layer.register_forward_pre_hook(begin, with_kwargs=True)]
    for layer, (block, norm) in enumerate(zip(architecture.blocks, architecture.norms, strict=True)):
        handles += _Attention(layer, block, norm, observer).hooks()
        handles += [
            block.attention.register_forward_hook(write(2 * layer + 1, block.scale)),
            block.mlp_reads.register_forward_pre_hook(read_alone(4 * layer + 3)),
            block.mlp.register_forward_hook(write(2 * layer + 2, block.scale)),
        ]
    handles.append(architecture.final_norm.register_forward_pre_hook(read_alone(4 * architecture.layers)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _own_view(read: Tensor, take: Callable[[Tensor], None]) -> Tensor:
    view = read.view_as(read)
    if view.requires_grad:
        view.register_hook(take)
    return view


class _Attention:
    """What reads through one attention block: q, k and v."""

    def __init__(self, layer: int, block: Block, norm: Norm, observer: Observer) -> None:
        self._readers = range(4 * layer, 4 * layer + 3)
        self._block, self._norm, self._observer = block, norm, observer
        self._gradients: dict[int, Residual] = {}

    def hooks(self) -> list:
        """The hooks, registered."""
        projections = self._block.projections
        handles = [self._block.attention_reads.register_forward_pre_hook(self._read)]
        if projections.fused:
            handles.append(projections.modules[0].register_forward_hook(self._made_all))
        else:
            for which, module in enumerate(projections.modules):
                handles.append(module.register_forward_pre_hook(self._project(which)))
        return handles

    def _read(self, module: nn.Module, args: tuple) -> None:
        self._residual = args[0].detach()
        self._observer.read(self._residual)

    def _project(self, which: int) -> Callable:
        def take(gradient: Residual) -> None:
            self._gradients[which] = gradient
            if len(self._gradients) == 3:
                self._observer.influenced(self._readers, self._write)

        def hook(module: nn.Module, args: tuple) -> tuple:
            return (_own_view(args[0], take), *args[1:])

        return hook

    def _made_all(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        def take(gradient: Tensor) -> None:
            self._gradients = {which: self._block.projections.back(which, gradient) for which in range(3)}
            self._observer.influenced(self._readers, self._write)

        return _own_view(output, take)

    def _write(self, out: Float[Tensor, "sample reader position width"]) -> None:
        """Pull the gradients back where this block is, which may be another device than that of `out`."""
        near = out if out.device == self._residual.device else torch.empty_like(out, device=self._residual.device)
        for which, gradient in self._gradients.items():
            near[:, which].copy_(gradient)
        self._norm.pull_back(self._residual, near)
        if near is not out:
            out.copy_(near)
        self._gradients = {}
