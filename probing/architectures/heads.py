"""How an attention block is divided into heads: what each reads by, and what each adds to the residual stream.

Before its output projection a block has the values of its heads side by side, so what head h writes is its share z_h of
them times the projection's own columns, W_h z_h, and what is left is the projection's bias. Where a norm stands behind
the projection, heads are said to write at the scale that it gave the whole block, with which they add up; who really
removes one runs the norm on what is left (`HeadOutputs.added`).

What is kept of a pass is z, which is as wide as the block's output; the heads' full-width outputs are made of it layer
by layer while they are in use, and never held all at once.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probing.architectures.norms import Norm, norm_of, wide
from probing.architectures.projections import head_width, inner
from probing.architectures.taps import AtOutputs, Latent, LowRank, Rows, Several, Taps, bare, is_linear, matrix_of
from probing.graph import Heads, Kind
from probing.pairs import Shape

_OUTPUTS = ("o_proj", "out_proj", "dense", "c_proj", "Wo")
"""What makes the block's output of its heads' values."""

_BETWEEN = "attn_sub_norm"
"""A norm over the values of all heads, before the output projection."""

_ENTANGLED = "groupnorm"
"""A norm over differences of two heads (Differential Transformer), which are not heads of their own."""

_JOINT: dict[Kind, tuple[str, ...]] = {
    "q": ("q_norm", "qk_norm", "q_layernorm", "query_layernorm"),
    "k": ("k_norm", "qk_norm", "k_layernorm", "key_layernorm"),
}
"""Norms behind what makes q and k, which may be over one head or over all."""


@dataclass(frozen=True)
class Division:
    """An attention block's heads."""

    heads: Heads
    taps: Taps
    """Of each query, then of each group's keys, then of its values."""
    output: nn.Module
    """The linear module that reads the heads' values side by side."""
    mixed: nn.Module
    """The module that reads them before anything has mixed them."""
    after: Norm | None
    """The norm between the output projection and the residual, if there is one: by root mean squares."""
    joint: frozenset[Kind]
    """Those of q and k that a norm over all heads follows: each acts on the scale of the others' too."""


@dataclass(frozen=True)
class HeadOutputs:
    """What a block's heads wrote in a pass, its bias last: the values that they are made of."""

    division: Division
    values: Float[Tensor, "sample position value"]
    scale: float
    held: Float[Tensor, "sample position 1"] | None
    """What the norm behind the projection divides by, inverted."""
    bias: float = 1.0
    """How many times the projection's bias is in them."""

    def change(self, instead: Float[Tensor, "#sample #position value"] | None) -> "HeadOutputs":
        """What they would change by if these values were in the place of the heads', or nothing at all were."""
        if instead is None:
            return replace(self, values=-self.values, bias=-1.0)
        return replace(self, values=instead.to(self.values.device) - wide(self.values), bias=0.0)

    @property
    def projected(self) -> "HeadOutputs":
        """The same as the projection gives them out, before a norm or a scale behind it."""
        return replace(self, scale=1.0, held=None)

    def added(self, projected: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """What the block adds to the residual if its projection gives this out: the norm behind it runs on that."""
        if (after := self.division.after) is not None:
            projected = wide(projected)
            projected = projected * scale_held(after, projected) * after.gain.to(projected)  # type: ignore[union-attr]
        return projected * self.scale

    def with_values(self, values: Float[Tensor, "#sample #position value"]) -> "HeadOutputs":
        """The same of other values, which may be one vector for all."""
        values = values.to(self.values.device)
        return replace(self, values=values.view(*(1,) * (3 - values.dim()), *values.shape))

    def write(self, out: Float[Tensor, "sample writer position width"]) -> None:
        """Write each head's output, and what is no head's, into a tensor."""
        heads, matrix = self.division.heads, matrix_of(self.division.output)
        values = self.values.unflatten(-1, (heads.queries, -1)).transpose(1, 2).to(out.dtype)
        columns = matrix.unflatten(1, (heads.queries, -1)).permute(1, 2, 0).to(out.dtype)
        near = out if out.device == values.device else torch.empty_like(out, device=values.device)
        torch.matmul(values, columns, out=near[:, : heads.queries])
        if heads.bias:
            near[:, heads.queries] = self.bias * self.division.output.bias  # type: ignore[operator]
        if self.held is not None and self.division.after is not None:
            near.mul_(self.held[:, None]).mul_(self.division.after.gain.to(near))  # type: ignore[union-attr]
        if self.scale != 1:
            near.mul_(self.scale)
        if near is not out:
            out.copy_(near)


def scale_held(norm: Norm, output: Float[Tensor, "*any width"]) -> Float[Tensor, "*any 1"]:
    """What a root-mean-square norm multiplies each position by, besides its gain."""
    x = wide(output)
    return (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt()


def division_of(attention: nn.Module, shape: Shape, taps: Taps | None, after: Norm | None) -> Division | None:
    """The heads of a block whose q, k and v are read by `taps`, with the norm `after` it if there is one.

    None if it cannot be told which outputs belong to which head.
    """
    attention = inner(attention)
    children = dict(attention.named_children())
    outputs = (bare(child) for name, child in children.items() if name in _OUTPUTS)
    output = next(filter(is_linear, outputs), None)
    if output is None or taps is None or _ENTANGLED in children or (after is not None and after.kind != "rms"):
        return None
    made = _latent(attention, taps, shape) if isinstance(taps, Latent) else _apart(attention, output, taps, shape)
    if made is None or matrix_of(output).shape[1] % made[0].queries:
        return None
    heads, of_heads = made
    joint = frozenset(
        kind
        for kind, names in _JOINT.items()
        for name, child in children.items()
        if name in names and sum(p.numel() for p in child.parameters()) >= head_width(attention, shape) * heads.groups
    )
    bias = getattr(output, "bias", None) is not None
    return Division(replace(heads, bias=bias), of_heads, output, children.get(_BETWEEN, output), after, joint)


def _apart(attention: nn.Module, output: nn.Module, taps: Taps, shape: Shape) -> tuple[Heads, Taps] | None:
    """Heads where q, k and v each have outputs of their own."""
    width = head_width(attention, shape)
    if isinstance(taps, AtOutputs):
        modules = [(rows.module, rows.rows.flatten()) for rows in taps.rows]
        gates: tuple[nn.Module, ...] = ()
    else:
        (query, *others), (key,), (value,) = (map(bare, modules) for modules in taps.modules)  # type: ignore[attr-defined]
        if not all(map(is_linear, (query, key, value, *others))):
            return None
        modules = [(module, torch.arange(matrix_of(module).shape[0])) for module in (query, key, value)]
        gates = tuple(others)
    (_, q), (_, k), (_, v) = modules
    groups = len(k) // width
    if not groups or len(k) % groups or len(v) % groups:
        return None
    queries = matrix_of(output).shape[1] // (len(v) // groups)
    if not queries or queries % groups or len(q) % queries:
        return None
    counts, first, found = (queries, groups, groups), 0, []
    for (module, rows), count in zip(modules, counts, strict=True):
        found.append(Rows(module, first, rows.view(count, -1)))
        first += count
    for gate in gates:
        if matrix_of(gate).shape[0] % queries:
            return None
        found.append(_each(gate, queries))
    return Heads(queries, groups), AtOutputs(tuple(found))


def _latent(attention: nn.Module, taps: Latent, shape: Shape) -> tuple[Heads, Taps] | None:
    """Heads that share one latent vector, from which all keys and values are made: they are one group."""
    (query, *gates), heads = taps.queries.modules[0], shape.heads  # type: ignore[attr-defined]
    up = getattr(attention, "q_b_proj", None)
    makers = [query if up is None else up, *gates]
    if not all(is_linear(module) and matrix_of(module).shape[0] % heads == 0 for module in makers):
        return None
    found: list[Taps] = [AtOutputs((_each(module, heads),)) for module in makers]
    if up is not None:
        norm = norm_of(attention.q_a_layernorm, matrix_of(up).shape[1])  # type: ignore[arg-type]
        if norm is None:
            return None
        found[0] = LowRank(query, attention.q_a_layernorm, norm, _each(up, heads))  # type: ignore[arg-type]
    return Heads(heads, 1), replace(taps, queries=Several(tuple(found)))


def _each(module: nn.Module, parts: int) -> Rows:
    """All outputs of a module, in order, shared out among the first parts."""
    return Rows(module, 0, torch.arange(matrix_of(module).shape[0]).view(parts, -1))
