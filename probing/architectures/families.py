"""Where the modules of a decoder read and write its residual stream, told by what a layer is made of.

A layer is an attention block, an MLP and the norms around them. The names of its norms say which stands where
(`ARRANGEMENTS`); every other module that has parameters must be the attention block or the MLP by a name that is known,
or the model is refused. So a family needs no entry of its own, and nothing in a layer is overlooked; `prove` decides
whether what the names promise is true.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from probing.architectures.norms import NO_NORM, Norm, norm_of
from probing.architectures.projections import projections_of
from probing.architectures.taps import Apart, Taps
from probing.errors import ModelError
from probing.residual_graph import ResidualGraph, graph_of


@dataclass(frozen=True)
class Arrangement:
    """Names of the norms before and after a layer's attention block and its MLP.

    Where both blocks read through one norm they stand side by side: the MLP does not see its layer's attention.
    """

    before_attention: str | None
    after_attention: str | None
    before_mlp: str | None
    after_mlp: str | None

    @property
    def names(self) -> set[str]:
        """All of them."""
        return {self.before_attention, self.after_attention, self.before_mlp, self.after_mlp} - {None}  # type: ignore[return-value]

    @property
    def shared(self) -> bool:
        """Whether one norm is before both."""
        return self.before_attention is not None and self.before_attention == self.before_mlp


ARRANGEMENTS = (
    Arrangement("input_layernorm", None, "post_attention_layernorm", None),  # Llama
    Arrangement(
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
    ),  # Gemma 2
    Arrangement(None, "post_attention_layernorm", None, "post_feedforward_layernorm"),  # OLMo 2
    Arrangement(
        "input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"
    ),  # GLM-4
    Arrangement("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"),  # AFMoE
    Arrangement("input_layernorm", "post_norm1", "post_attention_layernorm", "post_norm2"),  # HyperCLOVA X
    Arrangement("input_layernorm", None, "input_layernorm", None),  # Cohere, Phi-2, Falcon-7B, parallel StableLM
    Arrangement("input_layernorm", None, "pre_feedforward_layernorm", None),  # VaultGemma
    Arrangement("input_layernorm", None, "pre_ff_layernorm", None),  # Jamba
    Arrangement("attention_layernorm", None, "feedforward_layernorm", None),  # Apertus
    Arrangement("self_attn_layer_norm", None, "final_layer_norm", None),  # OPT
    Arrangement("ln_attn", None, "ln_mlp", None),  # Falcon-40B
    Arrangement("ln_1", None, "ln_2", None),  # GPT-2
    Arrangement("ln_1", None, "ln_1", None),  # GPT-J
    Arrangement("norm_1", None, "norm_2", None),  # MPT
    Arrangement("layernorm1", None, "layernorm2", None),  # CTRL
    Arrangement("attn_norm", None, "mlp_norm", None),  # ModernBERT's decoder
    Arrangement("operator_norm", None, "ffn_norm", None),  # LFM2
    Arrangement("operator_norm", "post_operator_norm", "ffn_norm", "post_ffn_norm"),  # LFM3
    Arrangement("temporal_pre_norm", None, "channel_pre_norm", None),  # RecurrentGemma
    Arrangement("norm_mlstm", None, "norm_ffn", None),  # xLSTM
)

_ATTENTION = (
    ("self_attn",), ("attn",), ("attention",), ("self_attention",), ("multi_head_attention",), ("linear_attn",),
    ("mamba",), ("conv",), ("temporal_block",), ("mlstm_layer",),
)  # fmt: skip
"""Modules of a layer that are its attention block, or what it has in that place."""

_MLP = (
    ("mlp",), ("feed_forward",), ("ffn",), ("mlp_block",), ("fc1", "fc2"), ("block_sparse_moe",),
    ("block_sparse_moe", "shared_mlp"),
)  # fmt: skip
"""Modules of a layer that are its MLP; of a mixture of experts, the mixture is the MLP."""

_CHAINED = ("fc1",)
"""Of several modules, those that do not write themselves."""

_INNER = {"BloomAttention": "dense", "BloomMLP": "dense_4h_to_h", "MptMLP": "down_proj"}
"""Blocks that add the residual themselves, by class, and their projection whose output is what they add to it."""

_LAYERS = ("layers", "h", "blocks", "layer")

_FINAL_NORMS = (
    "norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "layer_norm", "layernorm", "out_norm",
    "embedding_norm",
)  # fmt: skip


@dataclass(frozen=True)
class Writing:
    """What adds to the residual: the outputs of `modules`, summed and times `scale`."""

    modules: tuple[nn.Module, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Reading:
    """Who reads one residual: the input of `place`.

    A single reader needs no taps: its gradient is that of `place`'s input. Several are told apart by taps behind `norm`.
    """

    place: nn.Module
    norm: Norm = NO_NORM
    taps: tuple[Taps, ...] = ()


@dataclass(frozen=True)
class Block:
    """One layer. `readings` are those of its attention block and of its MLP, or one that both share."""

    layer: nn.Module
    readings: tuple[Reading, ...]
    attention: Writing
    mlp: Writing
    whole: bool
    """Whether attention reads as one."""


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

    @cached_property
    def graph(self) -> ResidualGraph:
        """Its writers, readers and edges."""
        whole = tuple(layer for layer, block in enumerate(self.blocks) if block.whole)
        return graph_of(self.layers, self.parallel, whole=whole)

    @property
    def weight(self) -> Float[Tensor, "token width"]:
        """The embedding's matrix."""
        assert isinstance(self.embedding.weight, Tensor)
        return self.embedding.weight


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The `Architecture` of a model, which `prove` must confirm.

    Raises:
        ModelError: some part of the model is not understood, and which.
    """
    family = model.config.model_type
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(getattr(embedding, "weight", None), Tensor) or head is None:
        raise _refused(family, "it has no single table of embeddings and no single head behind its last layer")
    body, layers = _decoder(model, embedding)
    config = model.config.get_text_config(decoder=True)
    sides = {_arrangement(family, _children(layer)).shared for layer in layers}
    if len(sides) > 1:
        raise _refused(family, "attention and MLP stand side by side in some of its layers only")
    parallel = sides.pop() or any(
        bool(getattr(config, name, False)) for name in ("use_parallel_residual", "parallel_attn")
    )
    blocks = tuple(_block(family, layer, config, embedding.weight.shape[1]) for layer in layers)
    norms = [child for name, child in body.named_children() if name in _FINAL_NORMS]
    if len(norms) != 1:
        raise _refused(family, "no norm that is known stands between its last layer and its head")
    return Architecture(family, model, embedding, blocks, norms[0], head, parallel)


def _refused(family: str, why: str) -> ModelError:
    return ModelError(
        f"Models of type '{family}' are not supported: {why}.", "Use a checkpoint of a type that the README lists."
    )


def _decoder(model: PreTrainedModel, embedding: nn.Module) -> tuple[nn.Module, list[nn.Module]]:
    """The innermost module that holds both the embedding and a list of layers, and the layers."""
    found: list[tuple[nn.Module, nn.ModuleList]] = []
    for holder in model.modules():
        inside = list(holder.named_modules())
        if any(module is embedding for _, module in inside):
            lists = [(holder, module) for name, module in inside
                     if name.rpartition(".")[2] in _LAYERS and isinstance(module, nn.ModuleList) and len(module)]  # fmt: skip
            found = lists or found
    if not found:
        raise _refused(model.config.model_type, "no list of layers stands behind its embedding")
    body, layers = found[0]
    return body, list(layers)


def _children(layer: nn.Module) -> dict[str, nn.Module]:
    return dict(layer.named_children())


def _arrangement(family: str, children: dict[str, nn.Module]) -> Arrangement:
    fitting = [arrangement for arrangement in ARRANGEMENTS if arrangement.names <= set(children)]
    if not fitting:
        raise _refused(family, f"a layer of {_listed(children)} is not an attention block and an MLP with known norms")
    return max(fitting, key=lambda arrangement: len(arrangement.names))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _block(family: str, layer: nn.Module, config: Any, width: int) -> Block:
    children = _children(layer)
    norms = _arrangement(family, children)
    held = {name for name, child in children.items() if any(True for _ in child.parameters())} - norms.names
    attention = next((names for names in _ATTENTION if set(names) <= held), None)
    mlp = max((names for names in _MLP if set(names) <= held), key=len, default=None)
    if attention is None or mlp is None or held - {*attention, *mlp}:
        unknown = held - {*(attention or ()), *(mlp or ())}
        raise _refused(
            family,
            f"its layers also hold {_listed(sorted(unknown))}, and what that does to the residual stream is not known"
            if attention and mlp
            else f"a layer of {_listed(children)} has no {'MLP' if attention else 'attention block'} that is known",
        )
    attends, thinks = children[attention[0]], children[mlp[0]]
    before_attention = children[norms.before_attention] if norms.before_attention else None
    norm = norm_of(before_attention, width) if before_attention is not None else NO_NORM
    apart = projections_of(attends, config) if norm is not None else None
    place = attends if before_attention is None else before_attention
    if norms.shared:
        if norm is None:
            raise _refused(family, f"what '{norms.before_attention}' does, which attention and MLP share, is not known")
        readings: tuple[Reading, ...] = (Reading(place, norm, (apart or Apart(((attends,),)), Apart(((thinks,),)))),)
    else:
        reads = Reading(place, norm, (apart,)) if norm is not None and apart is not None else Reading(place)
        readings = (reads, Reading(children[norms.before_mlp] if norms.before_mlp else thinks))
    scale = next(
        (
            float(value)
            for value in (getattr(layer, name, None) for name in ("residual_multiplier", "residual_scale"))
            if isinstance(value, float | int) and math.isfinite(value)
        ),
        1.0,
    )
    writes = [children[norms.after_attention]] if norms.after_attention else [attends]
    writes_mlp = [children[norms.after_mlp]] if norms.after_mlp else [children[n] for n in mlp if n not in _CHAINED]
    return Block(
        layer, readings, Writing(tuple(map(_adds, writes)), scale), Writing(tuple(map(_adds, writes_mlp)), scale),
        apart is None,
    )  # fmt: skip


def _adds(block: nn.Module) -> nn.Module:
    """The module whose output is added to the residual."""
    inner = _INNER.get(type(block).__name__)
    return block if inner is None else block.get_submodule(inner)
