"""Where the modules of a decoder read and write its residual stream, told by what a layer is made of.

A layer is an attention block, an MLP and the norms around them. The names of its norms say which stands where
(`ARRANGEMENTS`); every other module that has parameters must be the attention block or the MLP by a name that is known,
or the model is refused. So a family needs no entry of its own, and nothing in a layer is overlooked; `prove` decides
whether what the names promise is true.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from probing.architectures.heads import Division, division_of
from probing.architectures.norms import NO_NORM, UNKNOWN_NORM, Norm, norm_of
from probing.architectures.projections import projections_of
from probing.architectures.taps import Apart, Taps
from probing.errors import ModelError
from probing.fitting import shape_of
from probing.graph import Granularity, ResidualGraph, graph_of
from probing.pairs import Shape


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
    "self_attn", "attn", "attention", "self_attention", "multi_head_attention", "linear_attn", "mamba", "conv",
    "temporal_block", "mlstm_layer",
)  # fmt: skip
"""A layer's attention block, or what it has in that place."""

_MLP = (
    ("mlp",), ("feed_forward",), ("ffn",), ("mlp_block",), ("fc1", "fc2"), ("block_sparse_moe",),
    ("block_sparse_moe", "shared_mlp"),
)  # fmt: skip
"""A layer's MLP; of a mixture of experts, the mixture is the MLP. Two linear layers follow each other (OPT), two other
modules stand side by side, and both write."""

_INNER = {"BloomAttention": "dense", "BloomMLP": "dense_4h_to_h", "MptMLP": "down_proj"}
"""Blocks that add the residual themselves, by class, and their projection whose output is what they add to it."""

_SIDE_BY_SIDE = ("use_parallel_residual", "parallel_attn")
"""Names in a config that say that a layer's MLP does not see its attention, where each has a norm of its own."""

_LAYERS = ("layers", "h", "blocks", "layer")

_FINAL_NORMS = (
    "norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "layer_norm", "layernorm",
    "out_norm", "embedding_norm",
)  # fmt: skip


@dataclass(frozen=True)
class Writing:
    """What adds to the residual: the outputs of `modules`, summed and times `scale`."""

    modules: tuple[nn.Module, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Reading:
    """Who reads one residual: the input of `place`, which is `norm` if there is one.

    A single reader needs no taps: its gradient is that of `place`'s input. Several are told apart by taps behind
    `norm`, whose kind must be known then.
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
    holds: tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]
    """The modules of its attention block and of its MLP, each with its norms; one that both read through is the
    former's."""
    division: Division | None = None
    """The heads of its attention, where they can be told apart."""

    @property
    def of_heads(self) -> "Block":
        """The same with each head's readers taken apart."""
        if self.division is None:
            return self
        first, *rest = self.readings
        return replace(self, readings=(replace(first, taps=(self.division.taps, *first.taps[1:])), *rest))


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
    granularity: Granularity = "projections"
    """Whether attention is observed by its projections, or by its heads."""

    @property
    def of_heads(self) -> "Architecture":
        """The same, observed by heads, in the layers that have some that can be told apart."""
        return replace(self, blocks=tuple(block.of_heads for block in self.blocks), granularity="heads")

    @cached_property
    def divisions(self) -> tuple[Division | None, ...]:
        """Each layer's heads, as far as attention is observed by them."""
        return tuple(block.division if self.granularity == "heads" else None for block in self.blocks)

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @cached_property
    def graph(self) -> ResidualGraph:
        """Its writers, readers and edges."""
        whole = tuple(layer for layer, block in enumerate(self.blocks) if block.whole)
        heads = tuple(division and division.heads for division in self.divisions) if self.granularity == "heads" else ()
        return graph_of(self.layers, self.parallel, self.granularity, whole, heads)

    @property
    def readings(self) -> Iterator[tuple[range, Reading]]:
        """What is read in the layers: readers, by their places in the graph, and where they read."""
        for layer, block in enumerate(self.blocks):
            attends, mlp = self.graph.attention_readers(layer), self.graph.mlp_reader(layer)
            groups = [range(attends.start, mlp + 1)] if len(block.readings) == 1 else [attends, range(mlp, mlp + 1)]
            yield from zip(groups, block.readings, strict=True)

    @property
    def last_reading(self) -> tuple[range, Reading]:
        """What the head reads."""
        end = len(self.graph.readers)
        return range(end - 1, end), Reading(self.final_norm, self._last_norm)

    @cached_property
    def _last_norm(self) -> Norm:
        return norm_of(self.final_norm, self.weight.shape[1]) or UNKNOWN_NORM

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
    family, config = model.config.model_type, model.config.get_text_config(decoder=True)
    embedding, weight, head = _ends(model)
    shape = shape_of(config, 0)
    if weight.shape[1] != shape.width:
        raise _refused(family, f"'{_name(model, embedding)}' is not as wide as its residual stream")
    body, layers = _decoder(model, embedding)
    parts = [_parts(family, layer) for layer in layers]
    if len({part.norms.shared for part in parts}) > 1:
        raise _refused(family, "attention and MLP share their norm in some of its layers only")
    norms = [child for name, child in body.named_children() if name in _FINAL_NORMS]
    if len(norms) != 1:
        raise _refused(family, f"no norm that is known stands between the last layer and '{_name(model, head)}'")
    parallel = parts[0].norms.shared or any(getattr(config, name, False) for name in _SIDE_BY_SIDE)
    blocks = tuple(_block(part, shape) for part in parts)
    return Architecture(family, model, embedding, blocks, norms[0], head, parallel)


def _refused(family: str, why: str) -> ModelError:
    return ModelError(
        f"Models of type '{family}' are not supported: {why}.", "Use a checkpoint of a type that the README lists."
    )


def _name(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, each in model.named_modules() if each is module)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _ends(model: PreTrainedModel) -> tuple[nn.Module, Tensor, nn.Module]:
    """Where tokens come in, by which matrix, and where logits go out."""
    try:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        embedding = head = None
    weight = getattr(embedding, "weight", None)
    if embedding is None or head is None or not isinstance(weight, Tensor):
        raise _refused(model.config.model_type, "it has no 'embed_tokens' or no 'lm_head', or not one of each")
    return embedding, weight, head


def _decoder(model: PreTrainedModel, embedding: nn.Module) -> tuple[nn.Module, list[nn.Module]]:
    """The innermost module that holds both the embedding and a list of layers, and the layers."""
    found = None
    for holder in model.modules():  # from the outside in
        inside = dict(holder.named_modules())
        lists = [
            module
            for name, module in inside.items()
            if name.rpartition(".")[2] in _LAYERS and isinstance(module, nn.ModuleList) and len(module)
        ]
        if lists and any(module is embedding for module in inside.values()):
            found = holder, list(lists[0])
    if found is None:
        raise _refused(model.config.model_type, f"no list of layers stands behind '{_name(model, embedding)}'")
    return found


@dataclass(frozen=True)
class _Parts:
    """What a layer is made of."""

    family: str
    layer: nn.Module
    norms: Arrangement
    attention: nn.Module
    mlp: tuple[nn.Module, ...]

    def child(self, name: str | None) -> nn.Module | None:
        """The layer's module of that name."""
        return None if name is None else self.layer.get_submodule(name)


def _parts(family: str, layer: nn.Module) -> _Parts:
    children = dict(layer.named_children())
    fitting = [arrangement for arrangement in ARRANGEMENTS if arrangement.names <= set(children)]
    if not fitting:
        raise _refused(family, f"a layer of {_listed(children)} is not an attention block and an MLP with known norms")
    norms = max(fitting, key=lambda arrangement: len(arrangement.names))
    held = {name for name, child in children.items() if any(True for _ in child.parameters())} - norms.names
    attention = next((name for name in _ATTENTION if name in held), None)
    mlp = max((names for names in _MLP if set(names) <= held), key=len, default=None)
    if attention is None or mlp is None:
        lacks = "attention block" if attention is None else "MLP"
        raise _refused(family, f"a layer of {_listed(children)} has no {lacks} that is known")
    if unknown := sorted(held - {attention, *mlp}):
        raise _refused(
            family,
            f"its layers also hold {_listed(unknown)}, and what that does to the residual stream is not known",
        )
    return _Parts(family, layer, norms, children[attention], tuple(children[name] for name in mlp))


def _block(parts: _Parts, shape: Shape) -> Block:
    norms, attention, mlp = parts.norms, parts.attention, parts.mlp
    before = parts.child(norms.before_attention)
    norm = NO_NORM if before is None else norm_of(before, shape.width)
    if norm is None and norms.shared:
        raise _refused(
            parts.family, f"what '{norms.before_mlp}' does, through which attention and MLP read, is not known"
        )
    projections = None if norm is None else projections_of(attention, shape)
    if norm is not None and norms.shared:
        each = projections or Apart(((attention,),))
        readings: tuple[Reading, ...] = (Reading(before or attention, norm, (each, Apart((mlp,)))),)
    else:
        taps = () if projections is None else (projections,)
        between = parts.child(norms.before_mlp)
        own = NO_NORM if between is None else norm_of(between, shape.width) or UNKNOWN_NORM
        alone = Reading(between or mlp[0], own)
        readings = (Reading(before or attention, norm or UNKNOWN_NORM, taps), alone)
    scales = (getattr(parts.layer, name, None) for name in ("residual_multiplier", "residual_scale"))
    scale = next((float(value) for value in scales if isinstance(value, float | int)), 1.0)
    after_attention, after_mlp = parts.child(norms.after_attention), parts.child(norms.after_mlp)
    writes = (after_mlp,) if after_mlp is not None else mlp[-1:] if isinstance(mlp[0], nn.Linear) else mlp
    after = None if after_attention is None else norm_of(after_attention, shape.width) or Norm("none")
    before_mlp = None if norms.shared else parts.child(norms.before_mlp)
    return Block(
        parts.layer,
        readings,
        Writing((_adds(after_attention or attention),), scale),
        Writing(tuple(_adds(module) for module in writes), scale),
        whole=projections is None,
        holds=(_there(before, attention, after_attention), _there(before_mlp, *mlp, after_mlp)),
        division=division_of(attention, shape, projections, after),
    )


def _there(*modules: nn.Module | None) -> tuple[nn.Module, ...]:
    return tuple(module for module in modules if module is not None)


def _adds(block: nn.Module) -> nn.Module:
    """The module whose output is added to the residual."""
    inner = _INNER.get(type(block).__name__)
    return block if inner is None else block.get_submodule(inner)
