"""Hooks that tell what is written to the residual stream as a forward pass goes, whoever wants to know."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probing.architectures.families import Architecture, Block, Reading, Writing
from probing.architectures.heads import HeadOutputs, scale_held
from probing.architectures.taps import Residual, given
from probing.errors import ModelError


class Written:
    """What is told; a subclass takes what it needs. Nothing is kept otherwise.

    Tensors come attached to the pass: who keeps them, and not for a backward pass, detaches them.
    """

    def wrote(self, writer: int, output: Residual) -> None:
        """What a writer, by its index in `ResidualGraph.writers`, added to the residual."""

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        """What the writers of an attention block, by their indices, added: its heads, and its bias if it has one.

        `whole` is what the block added.
        """


class WriterOutputs(Written):
    """All that is written in a pass, kept; copies, to which some models add in place (Falcon)."""

    def __init__(self) -> None:
        self.written: dict[int, Residual] = {}
        """By writer, without those of attention blocks that are divided."""
        self.heads: dict[range, HeadOutputs] = {}
        """By the writers of such a block."""

    def wrote(self, writer: int, output: Residual) -> None:
        """Keep it."""
        self.written[writer] = output.clone()

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        """Keep the values that a block's heads are made of."""
        self.heads[writers] = replace(outputs, values=outputs.values.clone())


def writing_hooks(architecture: Architecture, written: Written) -> list[Any]:
    """The hooks, registered for one pass.

    Raises:
        ModelError: by that pass, what a block adds to the residual is not of its shape, or its heads do not write
            through the module that projects them.
    """
    graph, shape = architecture.graph, torch.Size()

    def begin(module: nn.Module, args: tuple, kwargs: dict) -> None:
        nonlocal shape
        start = given(args, kwargs)
        shape = start.shape
        written.wrote(0, start)

    def writers(block: str, writing: Writing, tell: Callable[[Residual], None]) -> list[Any]:
        parts: list[Tensor] = []

        def hook(module: nn.Module, args: tuple, output: Tensor | tuple[Tensor, ...]) -> None:
            part = output[0] if isinstance(output, tuple) else output
            if not isinstance(part, Tensor) or part.numel() != shape.numel():
                raise ModelError(
                    f"What '{block}' writes does not have the residual's shape {list(shape)}.",
                    "This architecture is not supported.",
                )
            parts.append(part if part.shape == shape else part.view(shape))
            if len(parts) == len(writing.modules):
                total = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
                parts.clear()
                tell(total if writing.scale == 1 else total * writing.scale)

        return [module.register_forward_hook(hook) for module in writing.modules]

    def attention(layer: int, block: Block) -> list[Any]:
        places, division = graph.attention_writers(layer), architecture.divisions[layer]
        name = graph.writer_records[places.start].block
        if division is None:
            return writers(name, block.attention, partial(written.wrote, places.start))
        made: list[Tensor] = []

        def projected(module: nn.Module, args: tuple, output: Tensor) -> None:
            made[:] = args[0].detach(), output.detach()

        def tell(whole: Residual) -> None:
            if not made:
                raise ModelError(
                    f"The heads of '{name}' do not write through the module that projects them.",
                    "Choose --granularity projections or blocks.",
                )
            values, output = (tensor.view(*shape[:2], -1) for tensor in made)
            made.clear()
            held = None if division.after is None else scale_held(division.after, output)
            written.divided(places, HeadOutputs(division, values, block.attention.scale, held), whole)

        return [division.output.register_forward_hook(projected), *writers(name, block.attention, tell)]

    handles: list[Any] = [architecture.blocks[0].layer.register_forward_pre_hook(begin, with_kwargs=True)]
    for layer, block in enumerate(architecture.blocks):
        mlp = graph.mlp_writer(layer)
        handles += attention(layer, block)
        handles += writers(graph.writers[mlp], block.mlp, partial(written.wrote, mlp))
    return handles


@contextmanager
def hooked(
    architecture: Architecture, written: Written, reading_hooks: Callable[[range, Reading], list[Any]]
) -> Iterator[None]:
    """Hook what is written and, as `reading_hooks` does, what is read; the hooks are gone afterwards, whatever happens.

    Raises:
        ModelError: by the pass inside, as `writing_hooks` says.
    """

    def finish(module: nn.Module, args: tuple, output: Any) -> None:
        """A norm may be used before the first block too (nanochat): only after the last is it the head's."""
        handles.extend(reading_hooks(*architecture.last_reading))

    handles = writing_hooks(architecture, written)
    for readers, reading in architecture.readings:
        handles += reading_hooks(readers, reading)
    handles.append(architecture.blocks[-1].layer.register_forward_hook(finish))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def watching(architecture: Architecture, written: Written) -> AbstractContextManager[None]:
    """Hook what is written alone, for the one pass made inside."""
    return hooked(architecture, written, lambda readers, reading: [])
