"""How an attention block makes queries, keys and values of what it reads; None where they cannot be told apart."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from probing.architectures.norms import norm_of
from probing.architectures.taps import Apart, AtOutputs, Latent, Rows, Taps
from probing.pairs import Shape

_APART = (("q_proj", "k_proj", "v_proj"), ("Wq", "Wk", "Wv"), ("query", "key", "value"))
"""Names of the modules that make q, k and v, one each."""

_GATES = ("gate_proj", "g_proj")
"""A gate on what attention gives out: it is of the position that asks, and reads with q."""

_LATENT = ("kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj")

_FUSED = ("query_key_value", "qkv_proj", "c_attn", "Wqkv")
"""Names of a module that makes all three."""

_BEHIND = frozenset((
    "o_proj", "out_proj", "dense", "c_proj", "Wo", "q_norm", "k_norm", "qk_norm", "q_layernorm", "k_layernorm",
    "query_layernorm", "key_layernorm", "q_a_layernorm", "q_b_proj", "attn_sub_norm", "groupnorm", "dt_proj",
))  # fmt: skip
"""Modules that read what q, k and v have become, and nothing else."""

_SELECTS = frozenset(("indexer",))
"""Modules that choose positions, through which no gradient flows."""


def projections_of(attention: nn.Module, shape: Shape) -> Taps | None:
    """The taps of q, k and v, if the block is made of modules that are known and no others."""
    attention = inner(attention)
    children = dict(attention.named_children())
    names = {name for name, child in children.items() if any(True for _ in child.parameters())} - _BEHIND - _SELECTS
    gates = tuple(children[name] for name in _GATES if name in names)
    names -= set(_GATES)
    for apart in _APART:
        if names == set(apart):
            queries, keys, values = (children[name] for name in apart)
            return Apart(((queries, *gates), (keys,), (values,)))
    for fused in _FUSED:
        if names == {fused} and not gates:
            return _fused(attention, children[fused], shape)
    for query in ("q_proj", "q_a_proj"):
        if names == {query, *_LATENT}:
            return _latent(attention, (children[query], *gates), children)
    return None


def inner(attention: nn.Module) -> nn.Module:
    """The block that holds the projections: there may be a block around it (GPT-Neo)."""
    children = [child for child in attention.children() if any(True for _ in child.parameters())]
    return children[0] if len(children) == 1 else attention


def head_width(attention: nn.Module, shape: Shape) -> int:
    """Of a query or key."""
    return getattr(attention, "head_dim", None) or shape.head_width


def _fused(attention: nn.Module, module: nn.Module, shape: Shape) -> AtOutputs | None:
    """Rows come in groups, each of so many heads of q, then of k, then of v.

    In one group (GPT-2, Phi-3, MPT, StarCoder), in as many as there are heads of k and v (GPT-NeoX, BLOOM, Falcon), or,
    with v before k, in four (CodeGen).
    """
    heads, head = shape.heads, head_width(attention, shape)
    kept = next((getattr(attention, name) for name in ("kv_heads", "num_kv_heads") if hasattr(attention, name)), None)
    kept = kept or shape.kv_heads
    groups, order = 1, (0, 1, 2)
    if hasattr(attention, "query_key_value") or not getattr(attention, "multi_query", True):
        groups = kept
    elif type(attention).__name__ == "CodeGenAttention":
        groups, order = 4, (0, 2, 1)
    rows = (heads + 2 * kept) * head
    if module.weight.numel() != rows * shape.width or heads % groups or kept % groups:  # type: ignore[operator]
        return None
    sizes = [count // groups * head for count in (heads, kept, kept)]
    parts = torch.arange(rows).view(groups, -1).split(sizes, 1)
    return AtOutputs(tuple(Rows(module, part, parts[which].flatten()[None]) for part, which in enumerate(order)))


def _latent(attention: nn.Module, queries: tuple[nn.Module, ...], children: dict[str, nn.Module]) -> Latent | None:
    down, between, up = (children[name] for name in _LATENT)
    norm = norm_of(between, up.weight.shape[1])  # type: ignore[arg-type,index]
    value, key = getattr(attention, "v_head_dim", None), getattr(attention, "qk_nope_head_dim", None)
    if norm is None or not value or not key or up.weight.shape[0] % (key + value):  # type: ignore[index]
        return None
    return Latent(Apart((queries,)), down, between, norm, up, _values(int(up.weight.shape[0]), key, value))  # type: ignore[index]


def _values(rows: int, key: int, value: int) -> Int[Tensor, " row"]:
    """Rows of v where each head has so many of k and then so many of v."""
    return torch.arange(rows).view(-1, key + value)[:, key:].flatten()
