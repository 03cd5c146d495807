"""A slow twin for every family: its layers walked one by one, with the model's own norms, attention and MLP.

What it does by itself is what attribution is about: the residual stream is kept as the list of what was written; every
reader is handed a copy of their sum plus an offset of its own, and q, k and v are made from three inputs. The gradient
with respect to an offset is the gradient through that reader alone, by autograd; no hook and no closed form is used.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from probing.sequences import Sample

Read = Callable[[str], Tensor]


@contextmanager
def _answering(module: nn.Module, output: Tensor) -> Any:
    """Let a module give `output`, whatever it is asked."""
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del module.forward


def _attend(attention: nn.Module, projections: list[tuple[nn.Module, Tensor]], *args: Any, **kwargs: Any) -> Tensor:
    with ExitStack() as stack:
        for module, output in projections:
            stack.enter_context(_answering(module, output))
        return attention(*args, **kwargs)[0]


def _future(length: int) -> Tensor:
    return torch.zeros(1, 1, length, length, dtype=torch.float64).masked_fill(
        torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf")
    )


def _rotary(model: PreTrainedModel, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    where = torch.arange(x.shape[1])[None]
    if model.config.model_type == "gemma3_text":
        return model.base_model.rotary_emb(x, where, model.config.layer_types[layer.self_attn.layer_idx])
    return model.base_model.rotary_emb(x, where)


def _embed(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    embedded = model.get_input_embeddings()(tokens)
    if model.config.model_type == "gpt2":
        return embedded + model.base_model.wpe(torch.arange(tokens.shape[1]))[None]
    return embedded * getattr(model.config, "embedding_multiplier", 1.0)


def _logits(model: PreTrainedModel, residual: Tensor) -> Tensor:
    config, body = model.config, model.base_model
    norm = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(config.model_type, "norm")
    logits = model.get_output_embeddings()(getattr(body, norm)(residual))
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits / getattr(config, "logits_scaling", 1.0)


def _attention(model: PreTrainedModel, i: int, layer: nn.Module, read: Read) -> Tensor:
    """What attention writes, q, k and v having been given what each reads."""
    kind, config = model.config.model_type, model.config
    x = [read(f"a{i}<{p}>") for p in "qkv"]
    mask = {"attention_mask": _future(x[0].shape[1])}
    if kind == "gpt2":
        made = [layer.attn.c_attn(layer.ln_1(part)) for part in x]
        fused = torch.cat([made[j].chunk(3, -1)[j] for j in range(3)], -1)
        return _attend(layer.attn, [(layer.attn.c_attn, fused)], x[0], **mask)
    turn = {"position_embeddings": _rotary(model, layer, x[0])}
    if kind == "gpt_neox":
        heads = config.num_attention_heads
        made = [layer.attention.query_key_value(layer.input_layernorm(part)) for part in x]
        each = [m.view(*m.shape[:-1], heads, 3, -1)[..., j, :] for j, m in enumerate(made)]
        fused = torch.stack(each, -2).flatten(-3)
        return _attend(layer.attention, [(layer.attention.query_key_value, fused)], x[0], **mask, **turn)
    attention = layer.self_attn
    if kind != "olmo2":
        x = [layer.input_layernorm(part) for part in x]
    if kind == "phi3":
        queries = config.num_attention_heads * attention.head_dim
        keys = config.num_key_value_heads * attention.head_dim
        made = [attention.qkv_proj(part).split([queries, keys, keys], -1)[j] for j, part in enumerate(x)]
        projections = [(attention.qkv_proj, torch.cat(made, -1))]
    else:
        modules = (attention.q_proj, attention.k_proj, attention.v_proj)
        projections = [(module, module(part)) for module, part in zip(modules, x, strict=True)]
    output = _attend(attention, projections, hidden_states=x[0], **mask, **turn)
    if kind in ("gemma2", "gemma3_text", "olmo2"):
        output = layer.post_attention_layernorm(output)
    return output * getattr(config, "residual_multiplier", 1.0)


def _mlp(model: PreTrainedModel, i: int, layer: nn.Module, read: Read) -> Tensor:
    kind, x = model.config.model_type, read(f"m{i}")
    if kind == "gpt2":
        return layer.mlp(layer.ln_2(x))
    if kind in ("gemma2", "gemma3_text"):
        return layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(x)))
    if kind == "olmo2":
        return layer.post_feedforward_layernorm(layer.mlp(x))
    return layer.mlp(layer.post_attention_layernorm(x)) * getattr(model.config, "residual_multiplier", 1.0)


def run(
    model: PreTrainedModel, sample: Sample, offsets: dict[str, Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor], dict[str, list[str]], Tensor]:
    """Loss, every writer's output, the writers that each reader saw, and the logits of one sample."""
    offsets = offsets or {}
    written = {"input": _embed(model, torch.tensor([sample.fed]))}
    saw: dict[str, list[str]] = {}
    parallel = getattr(model.config, "use_parallel_residual", False)
    layers = getattr(model.base_model, "h", None) or model.base_model.layers

    def reading(before: dict[str, Tensor]) -> Read:
        def read(reader: str) -> Tensor:
            saw[reader] = list(before)
            residual = torch.stack(list(before.values())).sum(0)
            return residual + offsets[reader] if reader in offsets else residual

        return read

    for i, layer in enumerate(layers):
        before = dict(written)
        written[f"a{i}"] = _attention(model, i, layer, reading(before))
        written[f"m{i}"] = _mlp(model, i, layer, reading(before if parallel else dict(written)))
    logits = _logits(model, reading(written)("logits"))[0]
    first = sample.answer_start - 1
    picked = logits[first : first + sample.answer_length].log_softmax(-1)
    loss = -picked[torch.arange(sample.answer_length), torch.tensor(sample.scored)].mean()
    return loss, written, saw, logits


def scores(model: PreTrainedModel, sample: Sample, writers: tuple[str, ...], readers: tuple[str, ...]) -> Tensor:
    """-<gradient through the reader alone, writer> for every writer that the reader saw, else 0.

    A reader `a3<qkv>` is one offset that q, k and v are all given.
    """
    shape = (1, len(sample.fed), model.config.hidden_size)
    offsets = {reader: torch.zeros(shape, dtype=model.dtype, requires_grad=True) for reader in readers}
    whole = {name.replace("<qkv>", f"<{p}>"): offset for name, offset in offsets.items() for p in "qkv"}
    loss, written, saw, _ = run(model, sample, whole)
    gradients = torch.autograd.grad(loss, list(offsets.values()))
    result = torch.zeros(len(writers), len(readers), dtype=model.dtype)
    for reader, gradient in zip(readers, gradients, strict=True):
        for writer in saw[reader.replace("<qkv>", "<q>")]:
            result[writers.index(writer), readers.index(reader)] = -(gradient * written[writer]).sum()
    return result.detach()
