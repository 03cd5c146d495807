"""A slow, literal decoder: the independent check of attribution.

It walks through the model's layers itself in float64, with its own norm, rotary embedding, attention and loss
(transformers computes norms and rotary embeddings in float32 whatever the weights are). Every head's query, and every
group's keys and values, are made by themselves, and every head's output is written by itself. The residual stream is
kept as the list of what was written, and every reader is handed a copy of their sum plus an offset of its own. The
gradient with respect to a reader's offset is the gradient through that reader alone, and an offset of minus a writer's
output removes exactly one edge. Where a block's heads read or write as one, they share that one offset or sum.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from probing.graph import Reader, Writer
from probing.sequences import Sample


def _norm(module: torch.nn.Module, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + module.variance_epsilon).sqrt() * module.weight


def _rotate(x: Tensor, theta: float) -> Tensor:
    """Rotary position embedding of [position, width]."""
    length, width = x.shape
    frequency = theta ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    angle = torch.arange(length, dtype=x.dtype)[:, None] * frequency[None, :]
    cos, sin = angle.cos(), angle.sin()
    first, second = x[:, : width // 2], x[:, width // 2 :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _attend(
    layer: torch.nn.Module, block: str, config: PretrainedConfig, normed: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """Causal attention of one sequence: what each head writes, and the bias, which is no head's."""
    attention = layer.self_attn
    heads, groups, width = config.num_attention_heads, config.num_key_value_heads, attention.head_dim
    theta = config.rope_parameters["rope_theta"]

    def made(kind: str, part: str, number: int) -> Tensor:
        """One head's query, or one group's keys or values, [position, width]."""
        x = normed(layer.input_layernorm, f"{block}<{kind}>", f"{block}.{part}{number}<{kind}>")
        projection, norm = getattr(attention, f"{kind}_proj"), getattr(attention, f"{kind}_norm", None)
        rows = slice(number * width, (number + 1) * width)
        result = x @ projection.weight[rows].T
        result = result if projection.bias is None else result + projection.bias[rows]
        result = result if norm is None else _norm(norm, result)
        return result if kind == "v" else _rotate(result, theta)

    written = {}
    for head in range(heads):
        shared = ("h", head) if groups == heads else ("g", head // (heads // groups))
        query, key, value = made("q", "h", head), made("k", *shared), made("v", *shared)
        logits = query @ key.T / width**0.5
        future = torch.ones_like(logits, dtype=torch.bool).triu(1)
        output = logits.masked_fill(future, float("-inf")).softmax(-1) @ value
        written[f"{block}.h{head}"] = output @ attention.o_proj.weight[:, head * width : (head + 1) * width].T
    if attention.o_proj.bias is not None:
        written[f"{block}.bias"] = attention.o_proj.bias.expand(len(logits), -1)
    return written


def run(
    model: PreTrainedModel,
    sample: Sample,
    offsets: dict[str, Tensor] | None = None,
    behind: dict[str, Tensor] | None = None,
    loss: str = "nll",
    embedding: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Loss, every writer's output and the logits of one sample; `offsets` are added to what readers read, and those
    `behind` to what their norms give out. An `embedding` takes the place of the tokens'.

    Writers and readers of every granularity but `blocks` are known by their names: what `a0` writes is there beside
    what its heads do, and an offset of `a0<q>` is one of all its heads' queries.
    """
    offsets, behind = offsets or {}, behind or {}
    blocks = {"input": model.get_input_embeddings()(torch.tensor(sample.fed)) if embedding is None else embedding}
    parts: dict[str, Tensor] = {}

    def normed(norm: torch.nn.Module, *readers: str) -> Tensor:
        added = [offsets[reader] for reader in readers if reader in offsets]
        x = _norm(norm, torch.stack([*blocks.values(), *added]).sum(0))
        return sum((behind[reader] for reader in readers if reader in behind), x)

    for index, layer in enumerate(model.model.layers):
        heads = _attend(layer, f"a{index}", model.config, normed)
        parts |= heads
        blocks[f"a{index}"] = torch.stack(list(heads.values())).sum(0)
        blocks[f"m{index}"] = layer.mlp(normed(layer.post_attention_layernorm, f"m{index}"))
    logits = model.lm_head(normed(model.model.norm, "logits"))
    return _loss(logits, sample, loss), blocks | parts, logits


def _loss(logits: Tensor, sample: Sample, kind: str) -> Tensor:
    """Token by token: -ln p, or the runner-up's logit less the chosen one's, or -ln (p / (1 - p))."""
    found = []
    for place, token in enumerate(sample.scored):
        row = logits[sample.answer_start - 1 + place]
        others = torch.cat([row[:token], row[token + 1 :]])
        p = row.softmax(-1)[token]
        found.append({"nll": -p.log(), "margin": others.max() - row[token], "log-odds": ((1 - p) / p).log()}[kind])
    return torch.stack(found).mean()


def scores(
    model: PreTrainedModel, sample: Sample, writers: tuple[str, ...], readers: tuple[str, ...], **how: Any
) -> Tensor:
    """<gradient through the reader alone, change> for every writer that comes before the reader, else 0."""
    return position_scores(model, sample, writers, readers, **how).sum(0)


def position_scores(
    model: PreTrainedModel,
    sample: Sample,
    writers: tuple[str, ...],
    readers: tuple[str, ...],
    loss: str = "nll",
    instead: dict[str, Tensor] | None = None,
    embedding: Tensor | None = None,
    exact_norms: bool = False,
) -> Tensor:
    """The same before the sum over positions, [position, writer, reader].

    A writer's change is what stands `instead` of its output, zero without, less the output. With `exact_norms` the
    gradient is that behind the reader's norm, and the change that of what the norm gives out.
    """
    shape = (len(sample.fed), model.config.hidden_size)
    offsets = {reader: torch.zeros(shape, dtype=model.dtype, requires_grad=True) for reader in readers}
    there = {"behind": offsets} if exact_norms else {"offsets": offsets}
    value = run(model, sample, loss=loss, embedding=embedding, **there)[0]
    gradients = torch.autograd.grad(value, list(offsets.values()))
    _, written, _ = run(model, sample)
    order = ["input", *(f"{kind}{layer}" for layer in range(len(model.model.layers)) for kind in "am"), "logits"]
    result = torch.zeros(len(sample.fed), len(writers), len(readers), dtype=model.dtype)
    for column, (reader, gradient) in enumerate(zip(readers, gradients, strict=True)):
        block = Reader.of(reader).block
        residual = sum(written[earlier] for earlier in order[: order.index(block)])
        for row, writer in enumerate(writers):
            if order.index(Writer.of(writer).block) < order.index(block):
                change = (instead or {}).get(writer, torch.zeros(shape, dtype=model.dtype)) - written[writer]
                if exact_norms:
                    norm = _norm_before(model, block)
                    change = _norm(norm, residual + change) - _norm(norm, residual)
                result[:, row, column] = (gradient * change).sum(-1)
    return result.detach()


def _norm_before(model: PreTrainedModel, block: str) -> torch.nn.Module:
    if block == "logits":
        return model.model.norm
    layer = model.model.layers[int(block[1:])]
    return layer.input_layernorm if block.startswith("a") else layer.post_attention_layernorm
