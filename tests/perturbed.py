"""A slow twin for any family: the model runs as it is, but every reader is handed an offset of its own.

It uses no table of families, no closed form and no gradient of ours. Where a layer reads is found by following tensors:
the module whose output is what attention or the MLP is called with is the norm before it, and the norm's input is the
residual. What a block writes is the difference that it makes to the residual. A block's attention is run once each for
q, k and v, with what its norm makes of the residual plus that reader's offset; keys are taken from the second run and
values from the third where attention multiplies them. The gradient with respect to an offset, by autograd, is the
gradient through that reader alone.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from probing.sequences import Sample

_ATTENDING = {"self_attn", "attn", "attention", "self_attention", "linear_attn", "mamba", "conv", "temporal_block",
              "multi_head_attention", "mlstm_layer"}  # fmt: skip
_THINKING = {"mlp", "feed_forward", "ffn", "fc1", "mlp_block", "block_sparse_moe", "shared_mlp"}


class InFloat64(TorchFunctionMode):
    """Nothing is rounded to float32, in which transformers computes norms, softmax and rotary embeddings."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        if kwargs.get("dtype") is torch.float32 or (func is torch.full and isinstance(args[1], float)):
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


@dataclass
class _Layer:
    """One layer, what it was called with, and what its blocks read and write."""

    module: nn.Module
    attention: nn.Module
    mlps: list[nn.Module]
    norms: dict[str, nn.Module | None] = field(default_factory=dict)
    reads: dict[str, Tensor] = field(default_factory=dict)
    call: tuple[tuple, dict] = ((), {})
    output: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def parallel(self) -> bool:
        """Whether the MLP reads what attention reads."""
        return self.reads["m"] is self.reads["a"] or torch.equal(self.reads["m"], self.reads["a"])

    def writes(self) -> tuple[Tensor, Tensor]:
        """What attention and the MLP add to the residual."""
        if not self.parallel:
            return self.reads["m"] - self.reads["a"], self.output - self.reads["m"]
        args, kwargs = self.call
        handle = self.attention.register_forward_hook(lambda module, args, out: _mapped(out, torch.zeros_like))
        without = _first(self.module(*args, **kwargs))
        handle.remove()
        return self.output - without, without - self.reads["a"]


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)


def _read(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _follow(model: PreTrainedModel, tokens: Tensor, layers: list[_Layer]) -> None:
    """One pass that finds each layer's norms, what its blocks read, and its output."""
    with ExitStack() as stack, torch.no_grad():

        def hook(module: nn.Module, before: Callable, after: Callable) -> None:
            for handle in (
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(after, with_kwargs=True),
            ):
                stack.callback(handle.remove)

        for layer in layers:
            made: list[tuple[nn.Module, Tensor, Tensor]] = []

            def enter(module: nn.Module, args: tuple, kwargs: dict, layer: _Layer = layer) -> None:
                layer.call = (args, kwargs)

            def leave(module: nn.Module, args: tuple, kwargs: dict, out: Any, layer: _Layer = layer) -> None:
                layer.output = _first(out).clone()

            hook(layer.module, enter, leave)
            for child in layer.module.children():

                def asked(
                    module: nn.Module, args: tuple, kwargs: dict, layer: _Layer = layer, made: list = made
                ) -> None:
                    which = "a" if module is layer.attention else "m" if module in layer.mlps else None
                    if which is not None:
                        read = _read(args, kwargs)
                        norm = next(((norm, x) for norm, x, y in made if y is read), (None, read))
                        layer.norms[which], layer.reads[which] = norm[0], norm[1]

                def gave(module: nn.Module, args: tuple, kwargs: dict, out: Any, made: list = made) -> None:
                    if isinstance(out, Tensor) and (args or "hidden_states" in kwargs):
                        made.append((module, _read(args, kwargs), out))

                hook(child, asked, gave)
        model(input_ids=tokens, use_cache=False)


_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.baddbmm, Tensor.baddbmm)


class _Multiplications(TorchFunctionMode):
    """The products of attention, which are by keys, then by values, and so on; others can be put in."""

    def __init__(self, instead: list[Tensor]) -> None:
        super().__init__()
        self._instead = instead
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        operand = kwargs["batch2"] if "batch2" in kwargs else args[-1] if args else None
        if func in _PRODUCTS and isinstance(operand, Tensor) and operand.dim() > 2:
            self.found.append(operand)
            if self._instead:
                instead = self._instead[len(self.found) - 1]
                if "batch2" in kwargs:
                    kwargs["batch2"] = instead
                else:
                    args = (*args[:-1], instead)
        return func(*args, **kwargs)


@contextmanager
def _attending(attention: nn.Module, instead: list[Tensor]) -> Any:
    """Yields a list that will hold keys and values in turn; those given, if any, take their places."""
    scope = type(attention).forward.__globals__
    if "eager_attention_forward" not in scope:
        with _Multiplications(instead) as products:
            yield products.found
        return
    found: list[Tensor] = []
    eager = scope["eager_attention_forward"]

    def told(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        found.extend((key, value))
        if instead:
            key, value = instead[len(found) - 2 : len(found)]
        return eager(module, query, key, value, *args, **kwargs)

    with patch.dict(scope, eager_attention_forward=told):
        yield found


def _offset(norm: nn.Module | None, residual: Tensor, offset: Tensor) -> Tensor:
    moved = residual + offset.view(residual.shape)
    return moved if norm is None else norm.forward(moved)


@contextmanager
def _displaced(layer: _Layer, offsets: dict[str, Tensor]) -> Any:
    """The layer with each of its readers displaced; `offsets` are named `q`, `k`, `v`, `qkv` and `m`."""
    residual: dict[nn.Module, Tensor] = {}
    handles = [
        norm.register_forward_pre_hook(lambda module, args: residual.__setitem__(module, args[0]))
        for norm in {norm for norm in layer.norms.values() if norm is not None}
    ]

    def displaced(which: str, readers: tuple[str, ...], original: Callable) -> Callable:
        norm = layer.norms[which]

        def forward(*args: Any, **kwargs: Any) -> Any:
            read = _read(args, kwargs)
            before = read if norm is None else residual[norm]

            def run(reader: str) -> Any:
                moved = _offset(norm, before, offsets[reader])
                return original(
                    *(moved if arg is read else arg for arg in args),
                    **{name: moved if arg is read else arg for name, arg in kwargs.items()},
                )

            if len(readers) == 1:
                return run(readers[0])
            with _attending(layer.attention, []) as keys:
                run("k")
            with _attending(layer.attention, []) as values:
                run("v")
            with _attending(layer.attention, [(keys, values)[i % 2][i] for i in range(len(keys))]):
                return run("q")

        return forward

    attends = ("qkv",) if "qkv" in offsets else ("q", "k", "v")
    layer.attention.forward = displaced("a", attends, layer.attention.forward)
    for mlp in layer.mlps:
        mlp.forward = displaced("m", ("m",), mlp.forward)
    try:
        yield
    finally:
        for module in (layer.attention, *layer.mlps):
            del module.forward
        for handle in handles:
            handle.remove()


def scores(
    model: PreTrainedModel, layers: list[nn.Module], sample: Sample, writers: tuple[str, ...], readers: tuple[str, ...]
) -> Tensor:
    """-<gradient through the reader alone, writer> for every writer that is in what the reader reads, else 0."""
    tokens = torch.tensor([sample.fed])
    walked = []
    for module in layers:
        children = dict(module.named_children())
        attention = next(child for name, child in children.items() if name in _ATTENDING)
        walked.append(_Layer(module, attention, [child for name, child in children.items() if name in _THINKING]))
    _follow(model, tokens, walked)
    written = {"input": _read(*walked[0].call)}
    saw: dict[str, list[str]] = {}
    with torch.no_grad():
        for i, layer in enumerate(walked):
            saw[f"a{i}"] = list(written)
            written[f"a{i}"], mlp = layer.writes()
            saw[f"m{i}"] = saw[f"a{i}"] if layer.parallel else list(written)
            written[f"m{i}"] = mlp
    saw["logits"] = list(written)

    offsets = {name: torch.zeros_like(written["input"], requires_grad=True) for name in readers}
    loss = _loss(model, walked, tokens, sample, offsets)
    gradients = torch.autograd.grad(loss, list(offsets.values()))
    result = torch.zeros(len(writers), len(readers), dtype=written["input"].dtype)
    for column, (reader, gradient) in enumerate(zip(readers, gradients, strict=True)):
        for writer in saw[reader.split("<")[0]]:
            product = -(gradient * written[writer].view(gradient.shape)).sum()
            result[writers.index(writer), column] = product
    return result.detach()


def _loss(
    model: PreTrainedModel, layers: list[_Layer], tokens: Tensor, sample: Sample, offsets: dict[str, Tensor]
) -> Tensor:
    """The sample's loss with every reader displaced by its offset; only offsets have gradients."""
    with ExitStack() as stack:
        for i, layer in enumerate(layers):
            own = {name.partition("<")[2].rstrip(">") or "m": offset for name, offset in offsets.items()
                   if name.split("<")[0] in (f"a{i}", f"m{i}")}  # fmt: skip
            stack.enter_context(_displaced(layer, own))
        handle = layers[-1].module.register_forward_hook(
            lambda module, args, out: _mapped(out, lambda residual: residual + offsets["logits"])
        )
        stack.callback(handle.remove)
        logits = model(input_ids=tokens, use_cache=False).logits[0]
    first = sample.answer_start - 1
    picked = logits[first : first + sample.answer_length].log_softmax(-1)
    return -picked[torch.arange(sample.answer_length), torch.tensor(sample.scored)].mean()
