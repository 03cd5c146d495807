"""A slow twin for any family: the model runs as it is, but every reader is handed an offset of its own.

It uses no table of families, no closed form and no gradient of ours. Where a layer reads is found by following tensors:
the module whose output is what attention or the MLP is called with is the norm before it, and the norm's input is the
residual. What a block writes is the difference that it makes to the residual. A block's attention is run once for each
of its readers, with what its norm makes of the residual plus that reader's offset; the keys and values of each run are
taken where attention multiplies them. The gradient with respect to an offset, by autograd, is the gradient through that
reader alone.

Where heads read and write apart, there is a run for each head's query and each group's keys and values, and the heads'
outputs come together in the first module with parameters that attention calls after its products: a head's own, of its
own run, stands there in its place. What a head writes is the difference that its place makes to the residual when all
others are zero, with the norms that follow at the scale that they have when none is; what is written when all are zero
is the bias. Where a head is really removed, a norm behind attention runs on what is left. A norm over the queries or
keys of all heads reads each head's of its own run, so a head acts on the others through their common scale. All this
asks of tensors is that heads stand before [position, width] in keys and values, and in equal parts, in their order, in
the last dimension elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from probing.graph import Reader, Writer
from probing.sequences import Sample

_ATTENDING = {"self_attn", "attn", "attention", "self_attention", "linear_attn", "mamba", "conv", "temporal_block",
              "multi_head_attention", "mlstm_layer"}  # fmt: skip
_THINKING = {"mlp", "feed_forward", "ffn", "fc1", "mlp_block", "block_sparse_moe", "shared_mlp"}


class InFloat64(TorchFunctionMode):
    """Nothing is rounded to float32, in which transformers computes norms, softmax and rotary embeddings."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        for arg in args:  # of nearly every call none is: this is where a test's time goes
            if arg is torch.float32:
                args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
                break
        if kwargs is None:
            kwargs = {}
        if kwargs.get("dtype") is torch.float32 or (func is torch.full and isinstance(args[1], float)):
            kwargs = kwargs | {"dtype": torch.float64}
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

    def writes(self, heads: int) -> tuple[dict[str, Tensor], Tensor]:
        """What attention's parts and the MLP add to the residual; of no heads, attention is the only part."""
        if self.parallel:
            handle = self.attention.register_forward_hook(lambda module, args, out: _mapped(out, torch.zeros_like))
            without = self._with_attention()
            handle.remove()
            after, mlp = self.output, without - self.reads["a"]
        else:
            without, after, mlp = self.reads["a"], self.reads["m"], self.output - self.reads["m"]
        return self._heads(heads, without) if heads else {"": after - without}, mlp

    def _with_attention(self) -> Tensor:
        """Run again: the residual after attention, and after an MLP that stands beside it."""
        args, kwargs = self.call
        if self.parallel:
            return _first(self.module(*args, **kwargs))
        with _calls((self.norms["m"] or self.mlps[0],)) as calls:
            self.module(*args, **kwargs)
        return calls[0][1]

    def _heads(self, heads: int, without: Tensor) -> dict[str, Tensor]:
        place, inside, behind = self.joint
        with ExitStack() as stack:
            for norm, whole in inside + behind:
                stack.enter_context(_at_scale_of(norm, whole))

            def only(head: int | None) -> Tensor:
                with _alone(place, head, heads):
                    return self._with_attention()

            bias = only(None)
            written = {f"h{head}": only(head) - bias for head in range(heads)}
        if not torch.equal(bias, without):
            written["bias"] = bias - without
        return written

    def without(self, part: str, heads: int) -> Tensor:
        """How the residual changes without a head, or the bias, when a norm behind attention runs on what is left."""
        place, inside, ((norm, _),) = self.joint
        with ExitStack() as stack:
            for between, whole in inside:
                stack.enter_context(_at_scale_of(between, whole))

            def read(head: int | None) -> Tensor:
                with _alone(place, head, heads), _calls((norm,)) as calls:
                    self._with_attention()
                return calls[0][1]

            nothing, before = read(None), self._with_attention()
            lost = nothing if part == "bias" else read(int(part[1:])) - nothing
            with _altered(norm, lambda x: x - lost):
                return self._with_attention() - before

    def _submodules(self) -> list[nn.Module]:
        return [module for module in self.attention.modules() if module is not self.attention]

    @cached_property
    def joint(self) -> tuple[nn.Module, list[tuple[nn.Module, Tensor]], list[tuple[nn.Module, Tensor]]]:
        """Where heads come together, and the norms from there to the residual, within attention and behind it, with
        what they read."""
        others = (self.attention, *self.mlps, *self.norms.values())
        submodules, siblings = self._submodules(), [child for child in self.module.children() if child not in others]
        with (
            torch.no_grad(),
            _calls((self.attention,)) as whole,
            _calls((*submodules, *siblings)) as after,
            _attending(self.attention, [], after.clear),
        ):
            self.module(*self.call[0], **self.call[1])
        ((_, read, gave),) = whole
        inside = [(module, x) for module, x, _ in after
                  if module in submodules and x is not read and any(True for _ in module.parameters())]  # fmt: skip
        behind = [(module, x) for module, x, _ in after if x is gave]
        norms = [[(module, x) for module, x in part if not _is_affine(module, x)] for part in (inside, behind)]
        return inside[0][0], *norms

    @cached_property
    def mixing(self) -> list[nn.Module]:
        """Norms over the queries or keys of all heads: those before attention whose results no other module reads."""
        with torch.no_grad(), _calls(self._submodules()) as calls:
            self.module(*self.call[0], **self.call[1])
        before = calls[: [module for module, _, _ in calls].index(self.joint[0])]
        return [
            module
            for module, x, gave in before
            if x.shape == gave.shape == self.reads["a"].shape[:-1] + x.shape[-1:]
            and not any(gave is read for _, read, _ in calls)
            and any(True for _ in module.parameters())
            and not _is_affine(module, x)
        ]


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)


def _read(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


_Call = tuple[nn.Module, Tensor, Tensor]
"""A module, what it read and what it gave."""


@contextmanager
def _calls(modules: Iterable[nn.Module]) -> Iterator[list[_Call]]:
    """Yields a list that will hold the calls of modules as they end."""
    found: list[_Call] = []

    def called(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if args or "hidden_states" in kwargs:
            found.append((module, _read(args, kwargs), _first(output)))

    handles = [module.register_forward_hook(called, with_kwargs=True) for module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _altered(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The module reads something else."""
    handle = module.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def _alone(place: nn.Module, head: int | None, heads: int) -> AbstractContextManager[None]:
    """Where heads come together, all but one are zero, or all."""

    def alone(values: Tensor) -> Tensor:
        parts = enumerate(values.tensor_split(heads, -1))
        return torch.cat([part if i == head else torch.zeros_like(part) for i, part in parts], -1)

    return _altered(place, alone)


def _is_affine(module: nn.Module, x: Tensor) -> bool:
    at_nothing, once, twice = (_first(module(times * x)) for times in (0, 1, 2))
    return torch.allclose(twice - once, once - at_nothing)


@contextmanager
def _at_scale_of(norm: nn.Module, whole: Tensor) -> Iterator[None]:
    """The norm scales whatever it reads as it scales `whole`: by the ratio of what it gives out to what it reads."""
    there, back = norm(whole), norm(-whole)
    bias = (there + back) / 2
    centred = torch.allclose(norm(whole + 1), there)

    def about(x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if centred else x

    scale = (there - bias) / about(whole)
    norm.forward = lambda x: about(x) * scale + bias
    try:
        yield
    finally:
        del norm.forward


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

    def __init__(self, instead: list[Tensor], then: Callable[[], None]) -> None:
        super().__init__()
        self._instead, self._then = instead, then
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
            self._then()
        return func(*args, **kwargs)


@contextmanager
def _attending(attention: nn.Module, instead: list[Tensor], then: Callable[[], None] = lambda: None) -> Any:
    """Yields a list that will hold keys and values in turn; those given, if any, take their places.

    `then` is called whenever attention has multiplied by some.
    """
    scope = type(attention).forward.__globals__
    if "eager_attention_forward" not in scope:
        with _Multiplications(instead, then) as products:
            yield products.found
        return
    found: list[Tensor] = []
    eager = scope["eager_attention_forward"]

    def told(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        found.extend((key, value))
        if instead:
            key, value = instead[len(found) - 2 : len(found)]
        output = eager(module, query, key, value, *args, **kwargs)
        then()
        return output

    with patch.dict(scope, eager_attention_forward=told):
        yield found


def _own(runs: list[Tensor], dimension: int = -1) -> Tensor:
    """Of equal parts, each of its own run."""
    return torch.cat([x.tensor_split(len(runs), dimension)[i] for i, x in enumerate(runs)], dimension)


@contextmanager
def _own_before(mixing: list[nn.Module], runs: list[Callable[[], Any]]) -> Iterator[None]:
    """What norms over all heads read is composed of each head's own run."""
    found: dict[nn.Module, list[Tensor]] = {norm: [] for norm in mixing}
    for run in runs if mixing else ():
        with _calls(mixing) as calls:
            run()
        for norm, x, _ in calls:
            found[norm].append(x)
    with ExitStack() as stack:
        for norm, each in found.items():
            stack.enter_context(_altered(norm, lambda x, each=each: _own(each)))
        yield


def _multiplied(attention: nn.Module, mixing: list[nn.Module], runs: list[Callable[[], Any]]) -> list[Tensor]:
    """Keys and values in turn, each group's of its own run."""
    found = []
    with _own_before(mixing, runs):
        for run in runs:
            with _attending(attention, []) as products:
                run()
            found.append(products)
    return [_own(list(each), each[0].dim() - 3) for each in zip(*found, strict=True)]


def _offset(norm: nn.Module | None, residual: Tensor, offset: Tensor) -> Tensor:
    moved = residual + offset.view(residual.shape)
    return moved if norm is None else norm.forward(moved)


@contextmanager
def _displaced(layer: _Layer, offsets: dict[str, Tensor]) -> Any:
    """The layer with each of its readers displaced, by their names."""
    residual: dict[nn.Module, Tensor] = {}
    handles = [
        norm.register_forward_pre_hook(lambda module, args: residual.__setitem__(module, args[0]))
        for norm in {norm for norm in layer.norms.values() if norm is not None}
    ]

    readers = {
        kind: [name for name in offsets if Reader.of(name).kind == kind] for kind in ("q", "k", "v", "qkv", "mlp")
    }
    place, mixing = (layer.joint[0], layer.mixing) if len(readers["q"]) > 1 else (None, [])

    def attend(run: Callable[[Tensor | None], Any]) -> Any:
        """Run once for each reader; `run` is told what to displace by."""
        if readers["qkv"]:
            return run(offsets[readers["qkv"][0]])
        queries, keys, values = ([partial(run, offsets[name]) for name in readers[kind]] for kind in ("q", "k", "v"))
        products = [_multiplied(layer.attention, mixing, runs) for runs in (keys, values)]
        composed = [products[i % 2][i] for i in range(len(products[0]))]
        if place is None:
            with _attending(layer.attention, composed):
                return queries[0]()
        made = []
        with _own_before(mixing, queries):
            for query in queries:
                with _attending(layer.attention, composed), _calls((place,)) as calls:
                    query()
                made.append(calls[0][1])
        heads = _own(made)
        with _altered(place, lambda values: heads):
            return run(None)

    def displaced(which: str, original: Callable, together: Callable) -> Callable:
        norm = layer.norms[which]

        def forward(*args: Any, **kwargs: Any) -> Any:
            read = _read(args, kwargs)
            before = read if norm is None else residual[norm]

            def run(offset: Tensor | None) -> Any:
                moved = read if offset is None else _offset(norm, before, offset)
                return original(
                    *(moved if arg is read else arg for arg in args),
                    **{name: moved if arg is read else arg for name, arg in kwargs.items()},
                )

            return together(run)

        return forward

    layer.attention.forward = displaced("a", layer.attention.forward, attend)
    for mlp in layer.mlps:
        mlp.forward = displaced("m", mlp.forward, lambda run: run(offsets[readers["mlp"][0]]))
    try:
        yield
    finally:
        for module in (layer.attention, *layer.mlps):
            del module.forward
        for handle in handles:
            handle.remove()


Walk = tuple[list[_Layer], dict[str, Tensor], dict[str, set[str]]]
"""The layers, what every writer wrote, and the blocks that each block has seen."""


def scores(
    model: PreTrainedModel, layers: list[nn.Module], sample: Sample, writers: tuple[str, ...],
    readers: tuple[str, ...], seen: Walk | None = None,
) -> Tensor:  # fmt: skip
    """-<gradient through the reader alone, writer> for every writer that is in what the reader reads, else 0."""
    walked, written, saw = seen or walk(model, layers, sample, writers)
    offsets = {name: torch.zeros_like(written["input"], requires_grad=True) for name in readers}
    gradients = torch.autograd.grad(_loss(model, walked, sample, offsets), list(offsets.values()))
    result = torch.zeros(len(writers), len(readers), dtype=written["input"].dtype)
    for column, (reader, gradient) in enumerate(zip(readers, gradients, strict=True)):
        for row, writer in enumerate(writers):
            if Writer.of(writer).block in saw[Reader.of(reader).block]:
                result[row, column] = -(gradient * written[writer].view(gradient.shape)).sum()
    return result.detach()


def losses_without(
    model: PreTrainedModel, layers: list[nn.Module], sample: Sample, writers: tuple[str, ...],
    readers: tuple[str, ...], edges: list[tuple[str, str]], seen: Walk | None = None,
) -> list[float]:  # fmt: skip
    """The loss without each of some edges, from a writer to a reader: the reader's offset is what it loses."""
    walked, written, _ = seen or walk(model, layers, sample, writers)
    none = torch.zeros_like(written["input"])
    found = []
    with torch.no_grad():
        for name, reader in edges:
            writer, lost = Writer.of(name), -written[name]
            if writer.part and walked[writer.layer].joint[2]:
                lost = walked[writer.layer].without(writer.part, _heads_in(writers, writer.layer))
            offsets = dict.fromkeys(readers, none) | {reader: lost.view(none.shape)}
            found.append(float(_loss(model, walked, sample, offsets)))
    return found


def _heads_in(writers: tuple[str, ...], layer: int) -> int:
    return sum(Writer.of(name).node.startswith(f"a{layer}.h") for name in writers)


def walk(model: PreTrainedModel, layers: list[nn.Module], sample: Sample, writers: tuple[str, ...]) -> Walk:
    """A pass over the model as it is, and what each block and head adds in it: for several questions about a sample."""
    tokens = torch.tensor([sample.fed])
    walked = []
    for module in layers:
        children = dict(module.named_children())
        attention = next(child for name, child in children.items() if name in _ATTENDING)
        walked.append(_Layer(module, attention, [child for name, child in children.items() if name in _THINKING]))
    _follow(model, tokens, walked)
    written = {"input": _read(*walked[0].call)}
    saw: dict[str, set[str]] = {}
    with torch.no_grad():
        blocks = {"input"}
        for i, layer in enumerate(walked):
            attention, mlp = layer.writes(_heads_in(writers, i))
            written |= {Writer(f"a{i}", part).name: output for part, output in attention.items()}
            written[f"m{i}"] = mlp
            saw[f"a{i}"] = blocks
            saw[f"m{i}"] = blocks if layer.parallel else blocks | {f"a{i}"}
            blocks = blocks | {f"a{i}", f"m{i}"}
    saw["logits"] = blocks
    if set(written) != set(writers):
        raise AssertionError(f"{sorted(set(written) ^ set(writers))} are written in one of two views only")
    return walked, written, saw


def _loss(model: PreTrainedModel, layers: list[_Layer], sample: Sample, offsets: dict[str, Tensor]) -> Tensor:
    """The sample's loss with every reader displaced by its offset; only offsets have gradients."""
    with ExitStack() as stack:
        for i, layer in enumerate(layers):
            own = {name: offset for name, offset in offsets.items() if Reader.of(name).layer == i}
            stack.enter_context(_displaced(layer, own))
        handle = layers[-1].module.register_forward_hook(
            lambda module, args, out: _mapped(out, lambda residual: residual + offsets["logits"])
        )
        stack.callback(handle.remove)
        logits = model(input_ids=torch.tensor([sample.fed]), use_cache=False).logits[0]
    first = sample.answer_start - 1
    picked = logits[first : first + sample.answer_length].log_softmax(-1)
    return -picked[torch.arange(sample.answer_length), torch.tensor(sample.scored)].mean()
