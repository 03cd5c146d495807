"""The modules of each family's residual stream.

A family that is not in the table is tried as if it were built like a Llama; `prove` decides whether it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from probing.architectures.norms import Norm, norm_of
from probing.errors import ModelError
from probing.residual_graph import ResidualGraph, graph_of


@dataclass(frozen=True)
class Projections:
    """The modules that make q, k and v: one each, or one for all three whose outputs `rows` tells apart."""

    modules: tuple[nn.Module, ...]
    rows: tuple[Int[Tensor, " row"], ...] = ()

    @property
    def fused(self) -> bool:
        """Whether one module makes all three."""
        return len(self.modules) == 1

    def back(self, which: int, gradient: Float[Tensor, "*position out"]) -> Float[Tensor, "*position width"]:
        """The gradient at a fused module's input, through its outputs q (0), k (1) or v (2) alone."""
        rows = self.rows[which].to(gradient.device)
        return gradient[..., rows] @ _matrix(self.modules[0])[rows]


def _matrix(module: nn.Module) -> Float[Tensor, "out width"]:
    """The matrix of a linear layer; transformers' Conv1D keeps its transpose."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight if isinstance(module, nn.Linear) else weight.T


@dataclass(frozen=True)
class Block:
    """One layer.

    `attention` and `mlp` are the modules whose output, times `scale`, is added to the residual: the blocks themselves,
    or the norms after them. `attention_reads` and `mlp_reads` are the modules whose input is the residual: the norms
    before the blocks, or, where there are none, the first projection and the MLP.
    """

    layer: nn.Module
    attention_reads: nn.Module
    attention_norm: nn.Module | None
    projections: Projections
    attention: nn.Module
    mlp_reads: nn.Module
    mlp: nn.Module
    scale: float = 1.0


@dataclass(frozen=True)
class Architecture:
    """The places of a model where its residual stream is written and read."""

    family: str
    model: PreTrainedModel
    embedding: nn.Module
    blocks: tuple[Block, ...]
    final_norm: nn.Module
    head: nn.Module
    parallel: bool = False
    """Whether a layer's MLP reads the residual before its attention has written to it."""

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def graph(self) -> ResidualGraph:
        """Its writers, readers and edges."""
        return graph_of(self.layers, self.parallel)

    @property
    def weight(self) -> Float[Tensor, "token width"]:
        """The embedding's matrix."""
        assert isinstance(self.embedding.weight, Tensor)
        return self.embedding.weight

    @cached_property
    def norms(self) -> list[Norm]:
        """What q, k and v of each block share, as it is pulled back."""
        return [norm_of(block.attention_norm, self.weight.shape[1]) for block in self.blocks]


# -- the families ------------------------------------------------------------------------------------------------------


def _stream(
    model: PreTrainedModel, blocks: Sequence[Block], final_norm: nn.Module, parallel: bool = False
) -> Architecture:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return Architecture(model.config.model_type, model, embedding, tuple(blocks), final_norm, head, parallel)


def _apart(attention: nn.Module) -> Projections:
    return Projections((attention.q_proj, attention.k_proj, attention.v_proj))  # type: ignore[arg-type]


def _in_sequence(attention: nn.Module, *sizes: int) -> Projections:
    """One module whose output is q, k and v, one after the other."""
    rows = torch.arange(sum(sizes)).split(list(sizes))
    return Projections((attention,), tuple(rows))


def _llama_like(model: PreTrainedModel) -> Architecture:
    scale = float(getattr(model.config, "residual_multiplier", 1.0))  # Granite
    blocks = [
        Block(
            layer, layer.input_layernorm, layer.input_layernorm, _apart(layer.self_attn), layer.self_attn,
            layer.post_attention_layernorm, layer.mlp, scale,
        )
        for layer in model.base_model.layers
    ]  # fmt: skip
    return _stream(model, blocks, model.base_model.norm)


def _gemma(model: PreTrainedModel) -> Architecture:
    """Norms before and after each block."""
    blocks = [
        Block(
            layer, layer.input_layernorm, layer.input_layernorm, _apart(layer.self_attn),
            layer.post_attention_layernorm, layer.pre_feedforward_layernorm, layer.post_feedforward_layernorm,
        )
        for layer in model.base_model.layers
    ]  # fmt: skip
    return _stream(model, blocks, model.base_model.norm)


def _olmo2(model: PreTrainedModel) -> Architecture:
    """Norms after each block only: the projections read the residual as it is."""
    blocks = [
        Block(
            layer, layer.self_attn.q_proj, None, _apart(layer.self_attn), layer.post_attention_layernorm, layer.mlp,
            layer.post_feedforward_layernorm,
        )
        for layer in model.base_model.layers
    ]  # fmt: skip
    return _stream(model, blocks, model.base_model.norm)


def _phi3(model: PreTrainedModel) -> Architecture:
    """One projection: all of q, then all of k, then all of v."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    sizes = (config.num_attention_heads * head, config.num_key_value_heads * head, config.num_key_value_heads * head)
    blocks = [
        Block(
            layer, layer.input_layernorm, layer.input_layernorm, _in_sequence(layer.self_attn.qkv_proj, *sizes),
            layer.self_attn, layer.post_attention_layernorm, layer.mlp,
        )
        for layer in model.base_model.layers
    ]  # fmt: skip
    return _stream(model, blocks, model.base_model.norm)


def _gpt2(model: PreTrainedModel) -> Architecture:
    """Learned positions, which are part of `input`; one projection."""
    width = model.config.hidden_size
    blocks = [
        Block(
            layer, layer.ln_1, layer.ln_1, _in_sequence(layer.attn.c_attn, width, width, width), layer.attn, layer.ln_2,
            layer.mlp,
        )
        for layer in model.base_model.h
    ]  # fmt: skip
    return _stream(model, blocks, model.base_model.ln_f)


def _gpt_neox(model: PreTrainedModel) -> Architecture:
    """Attention and MLP side by side if the checkpoint says so; one projection: q, k and v of each head in turn."""
    config = model.config
    head = config.hidden_size // config.num_attention_heads
    rows = torch.arange(3 * config.hidden_size).view(config.num_attention_heads, 3, head)
    thirds = tuple(rows[:, which].flatten() for which in range(3))
    blocks = [
        Block(
            layer, layer.input_layernorm, layer.input_layernorm,
            Projections((layer.attention.query_key_value,), thirds), layer.attention, layer.post_attention_layernorm,
            layer.mlp,
        )
        for layer in model.base_model.layers
    ]  # fmt: skip
    return _stream(model, blocks, model.base_model.final_layer_norm, config.use_parallel_residual)


FAMILIES: dict[str, Callable[[PreTrainedModel], Architecture]] = {
    "llama": _llama_like,
    "mistral": _llama_like,
    "qwen2": _llama_like,
    "qwen3": _llama_like,
    "granite": _llama_like,
    "mixtral": _llama_like,
    "qwen3_moe": _llama_like,
    "gemma2": _gemma,
    "gemma3_text": _gemma,
    "olmo2": _olmo2,
    "phi3": _phi3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
"""How each family is built, by the `model_type` of its config. Of a mixture of experts, the mixture is the MLP."""


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The `Architecture` of a model; one of an unknown family is taken for Llama-like, which `prove` must confirm.

    Raises:
        ModelError: the model lacks the modules of its family, or, if that is unknown, those of a Llama.
    """
    family = model.config.model_type
    known = family in FAMILIES
    try:
        return FAMILIES.get(family, _llama_like)(model)
    except AttributeError as error:
        if known:
            raise ModelError(
                f"This checkpoint says that it is of type '{family}' but is built differently ({error}).",
                "Check the config.json beside its weights.",
            ) from error
        raise ModelError(
            f"Models of type '{family}' are not supported, and this one is not built like a Llama ({error}).",
            f"Use a checkpoint of one of these types: {', '.join(sorted(FAMILIES))}.",
        ) from error
