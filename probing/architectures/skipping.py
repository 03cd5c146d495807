"""Passes that go on from a layer: those before it are not run again, but give out what they did in an earlier pass.

That is right where nothing goes from layer to layer but what each gives out, and what the model makes of its tokens
before the first. `resumable` tries it, layer by layer, on the model itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from probing.architectures.families import Architecture
from probing.architectures.proof import TOLERANCE, difference_of, run_tokens
from probing.fitting import is_out_of_memory

_POSITIONS = 12
"""Tokens of the sequences that are tried."""


@dataclass(frozen=True)
class LayerOutputs:
    """What each layer gave out in a pass over some samples, in whatever structure."""

    samples: int
    each: list[Any] = field(default_factory=list)

    def of(self, layer: int, rows: Int[Tensor, " row"]) -> Any:
        """That of one layer, its samples repeated and arranged as `rows` says."""

        def arranged(part: Tensor) -> Tensor:
            is_by_sample = part.dim() and part.shape[0] == self.samples
            return part.index_select(0, rows.to(part.device)) if is_by_sample else part

        return _mapped(self.each[layer], arranged)


@contextmanager
def keeping(architecture: Architecture, outputs: LayerOutputs) -> Iterator[None]:
    """Keep the layers' outputs of the one pass made inside; copies, which nothing changes in place."""

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        outputs.each.append(_mapped(output, torch.clone))

    handles = [block.layer.register_forward_hook(keep) for block in architecture.blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def skipping(
    architecture: Architecture, outputs: LayerOutputs, first: int, rows: Int[Tensor, " row"]
) -> Iterator[None]:
    """For the passes made inside, over `rows` of the samples, do not run the layers before `first`.

    Only the last of them is made to give out what it did; the others hand that on too, beside what else they gave out.
    """
    layers = [block.layer for block in architecture.blocks[:first]]
    before = [vars(layer).get("forward") for layer in layers]
    last = outputs.of(first - 1, rows) if layers else None
    start = last[0] if isinstance(last, tuple) else last

    def instead(place: int) -> Callable[..., Any]:
        if place == first - 1:
            return lambda *args, **kwargs: last
        if isinstance(outputs.each[place], tuple):
            beside = LayerOutputs(outputs.samples, [outputs.each[place][1:]]).of(0, rows)
            return lambda *args, **kwargs: (start, *beside)
        return lambda *args, **kwargs: start

    try:
        for place, layer in enumerate(layers):
            layer.forward = instead(place)
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                vars(layer).pop("forward", None)
            else:
                layer.forward = own


@torch.no_grad()
def resumable(architecture: Architecture) -> tuple[bool, ...]:
    """For each layer, and for what is behind the last, whether a pass that goes on there says what a whole one does.

    Two sequences are run, and then three rows of them, from the last layer to the first: so what a layer has put by for
    a later one, by another way than its output, is of the wrong rows until it runs again.
    """
    weight = architecture.weight
    tokens = torch.arange(2 * _POSITIONS, device=weight.device).view(2, -1) * 7919 % weight.shape[0]
    rows = torch.tensor([1, 0, 1], device=weight.device)
    outputs = LayerOutputs(samples=2)
    with keeping(architecture, outputs):
        whole = run_tokens(architecture, tokens)[rows]
    tolerance = TOLERANCE.get(architecture.model.dtype, 1e-4)
    found = []
    for first in range(architecture.layers, -1, -1):
        try:
            with skipping(architecture, outputs, first, rows):
                found.append(difference_of(run_tokens(architecture, tokens[rows]), whole) <= tolerance)
        except Exception as error:  # whatever a model does with what does not fit
            if is_out_of_memory(error):
                raise
            found.append(False)
    return tuple(reversed(found))


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure of other tensors."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple | list):
        return type(output)(_mapped(part, change) for part in output)
    return output
