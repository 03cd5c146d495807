"""A slow, literal decoder: the independent check of attribution.

It walks through the model's layers itself in float64, with its own norm, rotary embedding, attention and loss
(transformers computes norms and rotary embeddings in float32 whatever the weights are). The residual stream is
kept as the list of what was written, and every reader is handed a copy of their sum plus an offset of its own. The
gradient with respect to a reader's offset is the gradient through that reader alone, and an offset of minus a writer's
output removes exactly one edge.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from probing.sequences import Sample


def _norm(module: torch.nn.Module, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + module.variance_epsilon).sqrt() * module.weight


def _rotate(x: Tensor, theta: float) -> Tensor:
    """Rotary position embedding of [head, position, width]."""
    width = x.shape[-1]
    frequency = theta ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * frequency[None, :]
    cos, sin = angle.cos(), angle.sin()
    first, second = x[..., : width // 2], x[..., width // 2 :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _attend(attention: torch.nn.Module, model: PreTrainedModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of one sequence, from the three readers' normalised inputs."""
    config = model.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = attention.head_dim
    length = q.shape[0]

    def split(x: Tensor, count: int, norm: torch.nn.Module | None) -> Tensor:
        x = x.view(length, count, width)
        return (_norm(norm, x) if norm is not None else x).transpose(0, 1)

    query = split(attention.q_proj(q), heads, getattr(attention, "q_norm", None))
    key = split(attention.k_proj(k), groups, getattr(attention, "k_norm", None))
    value = split(attention.v_proj(v), groups, None)
    theta = config.rope_parameters["rope_theta"]
    query, key = _rotate(query, theta), _rotate(key, theta)
    outputs = []
    for head in range(heads):
        group = head // (heads // groups)
        logits = query[head] @ key[group].T / width**0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        outputs.append(logits.masked_fill(future, float("-inf")).softmax(-1) @ value[group])
    return attention.o_proj(torch.cat(outputs, -1))


def run(
    model: PreTrainedModel, sample: Sample, offsets: dict[str, Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Loss, every writer's output and the logits of one sample; `offsets` are added to what readers read."""
    offsets = offsets or {}
    written = {"input": model.get_input_embeddings()(torch.tensor(sample.fed))}

    def read(reader: str) -> Tensor:
        residual = torch.stack(list(written.values())).sum(0)
        return residual + offsets[reader] if reader in offsets else residual

    for index, layer in enumerate(model.model.layers):
        q, k, v = (_norm(layer.input_layernorm, read(f"a{index}<{p}>")) for p in "qkv")
        written[f"a{index}"] = _attend(layer.self_attn, model, q, k, v)
        written[f"m{index}"] = layer.mlp(_norm(layer.post_attention_layernorm, read(f"m{index}")))
    logits = model.lm_head(_norm(model.model.norm, read("logits")))
    first = sample.answer_start - 1
    picked = logits[first : first + sample.answer_length].log_softmax(-1)
    loss = -picked[torch.arange(sample.answer_length), torch.tensor(sample.scored)].mean()
    return loss, written, logits


def scores(model: PreTrainedModel, sample: Sample, writers: tuple[str, ...], readers: tuple[str, ...]) -> Tensor:
    """-<gradient through the reader alone, writer> for every writer that comes before the reader, else 0."""
    return position_scores(model, sample, writers, readers).sum(0)


def position_scores(
    model: PreTrainedModel, sample: Sample, writers: tuple[str, ...], readers: tuple[str, ...]
) -> Tensor:
    """The same before the sum over positions, [position, writer, reader]."""
    shape = (len(sample.fed), model.config.hidden_size)
    offsets = {reader: torch.zeros(shape, dtype=model.dtype, requires_grad=True) for reader in readers}
    loss, written, _ = run(model, sample, offsets)
    gradients = dict(zip(readers, torch.autograd.grad(loss, list(offsets.values())), strict=True))
    order = ["input"]
    result = torch.zeros(len(sample.fed), len(writers), len(readers), dtype=model.dtype)
    for reader in readers:
        if reader.endswith("<q>"):
            before_attention = list(order)
        elif reader.startswith("m"):
            order.append("a" + reader[1:])
        before = before_attention if reader.endswith(">") else order
        for writer in before:
            result[:, writers.index(writer), readers.index(reader)] = -(gradients[reader] * written[writer]).sum(-1)
        if reader.startswith("m"):
            order.append(reader)
    return result.detach()
