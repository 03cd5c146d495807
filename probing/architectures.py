"""Where each architecture writes to and reads from its residual stream, and the proof that we found the right places.

An `Architecture` names the modules of a checkpoint: what writes (the module whose output is *added* to the residual),
and what reads (the norm whose input is the residual, and the projections behind it). `recording` hooks them, so that
an observer is told every writer's output and every reader's residual in the forward pass, and in the backward pass the
gradient of the loss with respect to every reader's residual, through that reader alone.

For that, every reader is given a view of its own, and the gradient of that view is taken. The MLP and the head have a
norm to themselves, so theirs is a view of the residual. q, k and v share a norm; theirs are views of its output, and
their gradients are pulled back through the norm in closed form. Nothing of the model is run twice.

`prove` runs a short sequence and demands that the writers' sum equals each reader's input, that the hooks do not
change the logits, and that the readers' gradients add up to the gradient of the embedding. A model that fails is
refused: its scores would be wrong without looking wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from probing.errors import ModelError

Residual = Float[Tensor, "sample position width"]


@dataclass(frozen=True)
class Block:
    """One layer. `attention` and `mlp` are the modules whose output is added to the residual."""

    attention_norm: nn.Module
    q: nn.Module
    k: nn.Module
    v: nn.Module
    attention: nn.Module
    mlp_norm: nn.Module
    mlp: nn.Module


@dataclass(frozen=True)
class Architecture:
    """The places of a model where its residual stream is written and read."""

    family: str
    model: PreTrainedModel
    embedding: nn.Embedding
    blocks: tuple[Block, ...]
    final_norm: nn.Module
    head: nn.Module

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.embedding.weight.shape[1]

    @cached_property
    def attention_norms(self) -> list[tuple[float, Tensor]]:
        """Epsilon and gain of each block's norm before attention."""
        return [_epsilon_and_gain(block.attention_norm, self.width) for block in self.blocks]


def _llama_like(model: PreTrainedModel) -> Architecture:
    body = model.base_model
    blocks = tuple(
        Block(
            attention_norm=layer.input_layernorm,
            q=layer.self_attn.q_proj,
            k=layer.self_attn.k_proj,
            v=layer.self_attn.v_proj,
            attention=layer.self_attn,
            mlp_norm=layer.post_attention_layernorm,
            mlp=layer.mlp,
        )
        for layer in body.layers
    )
    return Architecture(
        model.config.model_type, model, model.get_input_embeddings(), blocks, body.norm, model.get_output_embeddings()
    )


_FAMILIES: dict[str, Callable[[PreTrainedModel], Architecture]] = {
    "llama": _llama_like,
    "mistral": _llama_like,
    "qwen2": _llama_like,
    "qwen3": _llama_like,
}


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The `Architecture` of a model of a known family.

    Raises:
        ModelError: the family is unknown, or the model lacks the modules that its family has.
    """
    family = model.config.model_type
    if family not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        raise ModelError(
            f"Models of type '{family}' are not supported.", f"Use a checkpoint of one of these types: {known}."
        )
    try:
        return _FAMILIES[family](model)
    except AttributeError as error:
        raise ModelError(
            f"This checkpoint says that it is of type '{family}' but is built differently ({error}).",
            "Check the config.json beside its weights.",
        ) from error


WriteGradients = Callable[[Float[Tensor, "sample reader position width"]], object]
"""Writes gradients into the tensor that it is given."""


class Observer:
    """What `recording` reports to, as the passes go; a subclass takes what it needs. Nothing is kept otherwise."""

    def embedded(self, embedding: Residual) -> None:
        """The embedding's output, detached from what made it: where the gradient ends."""

    def wrote(self, writer: int, output: Residual) -> None:
        """What a writer, by its index in `ResidualGraph.writers`, added to the residual."""

    def read(self, residual: Residual) -> None:
        """The residual before each attention block, before each MLP and before the head, in that order."""

    def influenced(self, readers: range, write_gradients: WriteGradients) -> None:
        """Readers, by their indices in `ResidualGraph.readers`, got their gradients; the last readers come first.

        They are written where one asks for them, and not computed before.
        """


@contextmanager
def recording(architecture: Architecture, observer: Observer) -> Iterator[None]:
    """Hook the model for the one pass made inside; the hooks are gone afterwards, whatever happens."""

    def embed(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        start = output.detach().requires_grad_(torch.is_grad_enabled())
        observer.embedded(start)
        return start

    def write(writer: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Tensor | tuple[Tensor, ...]) -> None:
            observer.wrote(writer, (output[0] if isinstance(output, tuple) else output).detach())

        return hook

    def own_view(read: Residual, take: Callable[[Residual], None]) -> Residual:
        view = read.view_as(read)
        if view.requires_grad:
            view.register_hook(take)
        return view

    def read_alone(reader: int) -> Callable:
        """For a norm with one reader behind it."""

        def take(gradient: Residual) -> None:
            observer.influenced(range(reader, reader + 1), lambda out: out.copy_(gradient[:, None]))

        def hook(module: nn.Module, args: tuple) -> tuple:
            observer.read(args[0].detach())
            return (own_view(args[0], take), *args[1:])

        return hook

    shared: dict[int, _SharedNorm] = {}

    def read_shared(layer: int) -> Callable:
        """For a norm with q, k and v behind it."""

        def hook(module: nn.Module, args: tuple) -> None:
            residual = args[0].detach()
            if layer == 0:
                observer.wrote(0, residual)
            observer.read(residual)
            shared[layer] = _SharedNorm(residual, *architecture.attention_norms[layer])

        return hook

    def project(layer: int, which: int) -> Callable:
        """For q (0), k (1) or v (2)."""

        def take(gradient: Residual) -> None:
            if shared[layer].take(which, gradient):
                observer.influenced(range(4 * layer, 4 * layer + 3), shared.pop(layer).pull_back)

        def hook(module: nn.Module, args: tuple) -> tuple:
            return (own_view(args[0], take), *args[1:])

        return hook

    handles = [architecture.embedding.register_forward_hook(embed)]
    for layer, block in enumerate(architecture.blocks):
        handles.append(block.attention_norm.register_forward_pre_hook(read_shared(layer)))
        for which, projection in enumerate((block.q, block.k, block.v)):
            handles.append(projection.register_forward_pre_hook(project(layer, which)))
        handles += [
            block.attention.register_forward_hook(write(2 * layer + 1)),
            block.mlp_norm.register_forward_pre_hook(read_alone(4 * layer + 3)),
            block.mlp.register_forward_hook(write(2 * layer + 2)),
        ]
    handles.append(architecture.final_norm.register_forward_pre_hook(read_alone(4 * architecture.layers)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _epsilon_and_gain(norm: nn.Module, width: int) -> tuple[float, Tensor]:
    """Epsilon and elementwise gain of an RMS norm, the gain read off its response to a vector of ones.

    A gain that is stored with an offset (1 + weight) is thus the one that the module applies.
    """
    eps = getattr(norm, "variance_epsilon", None)
    eps = float(norm.eps if eps is None else eps)  # type: ignore[arg-type]
    (weight,) = norm.parameters()
    with torch.no_grad():
        response = norm.forward(torch.ones(width, dtype=weight.dtype, device=weight.device))
    return eps, _wide(response) * (1 + eps) ** 0.5


class _SharedNorm:
    """The RMS norm that q, k and v share: from gradients at its output to gradients at its input, `residual`.

    With s = (mean x² + eps)^(-1/2) and y = gain * s * x: dL/dx = s*u - x * s³ <u, x> / width, where u = gain * dL/dy.
    """

    def __init__(self, residual: Residual, eps: float, gain: Tensor) -> None:
        self._residual, self._eps, self._gain = residual, eps, gain
        self._gradients: dict[int, Residual] = {}

    def take(self, which: int, gradient: Residual) -> bool:
        """Keep the gradient of q (0), k (1) or v (2); True when all three are here."""
        self._gradients[which] = gradient
        return len(self._gradients) == 3

    def pull_back(self, out: Float[Tensor, "sample reader position width"]) -> None:
        """Write the gradients of q, k and v at the norm's input."""
        for which, gradient in self._gradients.items():
            out[:, which].copy_(gradient)
        x = _wide(self._residual)[:, None]
        s = (torch.linalg.vecdot(x, x)[..., None] / x.shape[-1] + self._eps).rsqrt()
        overlap = torch.linalg.vecdot(out, x * self._gain)[..., None]
        out.mul_(s * self._gain).addcmul_(x, overlap * (s**3 / -x.shape[-1]))


def _wide(tensor: Tensor) -> Tensor:
    """In float32, or float64 where it is that already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Largest relative difference (Frobenius norm) that rounding explains, by the weights' dtype.

transformers computes norms and rotary embeddings in float32 even where the weights are float64.
"""


def _relative(a: Tensor, b: Tensor) -> float:
    scale = b.double().norm().clamp_min(1e-30)
    return float((a.double() - b.double()).norm() / scale)


class _Evidence(Observer):
    """Everything that a pass reports, for `prove`."""

    def __init__(self) -> None:
        self.embedding: Residual | None = None
        self.written: dict[int, Residual] = {}
        self.residuals: list[Residual] = []
        self.gradients: dict[int, Residual] = {}

    def embedded(self, embedding: Residual) -> None:
        self.embedding = embedding

    def wrote(self, writer: int, output: Residual) -> None:
        self.written[writer] = output

    def read(self, residual: Residual) -> None:
        self.residuals.append(residual)

    def influenced(self, readers: range, write_gradients: WriteGradients) -> None:
        samples, positions, width = self.written[0].shape
        out = _wide(self.written[0]).new_empty(samples, len(readers), positions, width)
        write_gradients(out)
        self.gradients.update(zip(readers, out.unbind(1), strict=True))


def prove(architecture: Architecture) -> None:
    """Check on a short sequence that the residual stream is what `architecture` says.

    Raises:
        ModelError: the writers do not add up to a reader's input, and the first such reader's name; or the hooks
            change the logits; or gradients are missing, and of how large a part.
    """
    model = architecture.model
    weight = architecture.embedding.weight
    tokens = torch.arange(12, device=weight.device)[None] * 7919 % weight.shape[0]
    tolerance = TOLERANCE.get(model.dtype, 1e-4)
    refused = "Its edge scores would be wrong, so it is refused; please report the architecture."
    with torch.no_grad():
        bare = model(input_ids=tokens, use_cache=False).logits
    evidence = _Evidence()
    with recording(architecture, evidence), torch.enable_grad():
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = logits.float().log_softmax(-1).square().mean()
        if evidence.embedding is None:
            raise ModelError("This model does not use its embedding.", refused)
        (whole,) = torch.autograd.grad(loss, evidence.embedding)
    if (difference := _relative(logits.detach(), bare)) > tolerance:
        raise ModelError(f"Hooking this model changes its logits by {difference:.1e}.", refused)
    names = [name for layer in range(architecture.layers) for name in (f"a{layer}", f"m{layer}")]
    if len(evidence.written) != len(names) + 1 or len(evidence.residuals) != len(names) + 1:
        raise ModelError("Some of this model's blocks did not run exactly once.", refused)
    total = torch.zeros_like(evidence.written[0])
    for i, (name, residual) in enumerate(zip([*names, "logits"], evidence.residuals, strict=True)):
        total = total + evidence.written[i]
        if not (difference := _relative(total, residual)) <= tolerance:
            raise ModelError(
                f"The residual identity fails at '{name}': what the blocks before it write differs from what it "
                f"reads by {difference:.1e} (relative; at most {tolerance:.0e} is rounding).",
                refused,
            )
    if len(evidence.gradients) < 4 * architecture.layers + 1:
        raise ModelError("Some of this model's readers have no influence on its output.", refused)
    parts = torch.stack([gradient.double() for gradient in evidence.gradients.values()]).sum(0)
    if not (difference := _relative(parts, whole)) <= 10 * tolerance:
        raise ModelError(f"The readers account for all but {difference:.1e} of the gradient.", refused)
