"""Tiny models with random weights, one for each architecture: the table that drives every architecture's tests."""

import copy
import random
import types
from dataclasses import replace

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from probing.sequences import Sample

_SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}

LITERAL = {
    "llama": (LlamaForCausalLM, LlamaConfig(**_SHAPE)),
    "llama, biases, tied": (
        LlamaForCausalLM,
        LlamaConfig(**_SHAPE, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    ),
    "llama, other rope": (
        LlamaForCausalLM,
        LlamaConfig(**_SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    ),
    "mistral": (MistralForCausalLM, MistralConfig(**_SHAPE, sliding_window=None)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**_SHAPE)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**_SHAPE, head_dim=12)),
}
"""Those that tests/literal.py knows."""

_EXPERTS = {"num_experts_per_tok": 2}
_NEOX = {**_SHAPE, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}
_NEOX.pop("num_key_value_heads")

TINY: dict[str, tuple[type, PretrainedConfig]] = {
    **LITERAL,
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**_SHAPE, head_dim=8, query_pre_attn_scalar=8)),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**_SHAPE, head_dim=12, query_pre_attn_scalar=12)),
    "phi3": (Phi3ForCausalLM, Phi3Config(**_SHAPE, pad_token_id=0)),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(vocab_size=61, n_embd=32, n_inner=48, n_layer=3, n_head=4, n_positions=64),
    ),
    "gpt-neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**_NEOX, use_parallel_residual=True)),
    "gpt-neox, in sequence": (GPTNeoXForCausalLM, GPTNeoXConfig(**_NEOX, use_parallel_residual=False)),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config(**_SHAPE)),
    "granite": (
        GraniteForCausalLM,
        GraniteConfig(
            **_SHAPE, residual_multiplier=0.3, embedding_multiplier=3.0, logits_scaling=2.0, attention_multiplier=0.2
        ),
    ),
    "mixtral": (MixtralForCausalLM, MixtralConfig(**_SHAPE, **_EXPERTS, num_local_experts=4, sliding_window=None)),
    "qwen3-moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(**_SHAPE, **_EXPERTS, num_experts=4, moe_intermediate_size=24, head_dim=12),
    ),
}


def tiny(name: str, dtype: torch.dtype = torch.float64, attention: str = "eager", seed: int = 0) -> PreTrainedModel:
    """The model of that name with weights large enough that its blocks do something, and norms that are not flat."""
    torch.manual_seed(seed)
    make, config = TINY[name][0], copy.deepcopy(TINY[name][1])  # a model that is kept goes on as it was made
    config._attn_implementation = attention
    config._experts_implementation = "eager"  # the fast ones do not know float64
    model = make(config)
    with torch.no_grad():
        for label, parameter in model.named_parameters():
            if ("norm" in label or "ln_" in label) and "weight" in label:
                parameter.copy_((0 if "Gemma" in type(model).__name__ else 1) + 0.3 * torch.randn_like(parameter))
            elif "bias" in label:
                parameter.copy_(0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.25 * torch.randn_like(parameter))
    return model.to(dtype).eval().requires_grad_(False)


def in_float64(name: str) -> PreTrainedModel:
    """The same model with nothing left in float32, in which transformers computes norms and rotary embeddings.

    Rounding in float32 differs between processors; without it the literal twin can be held to a tight tolerance.
    """
    model = tiny(name, attention="sdpa")  # eager attention has its softmax in float32
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = types.MethodType(_norm, module)
        elif type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = types.MethodType(_rotary, module)
    return model


def _norm(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt() * self.weight


def _rotary(self: torch.nn.Module, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    width = 2 * self.inv_freq.shape[0]
    theta = self.config.rope_parameters["rope_theta"]
    frequency = theta ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    angle = (position_ids[..., None] * frequency).repeat(1, 1, 2)
    return angle.cos(), angle.sin()


def random_samples(count: int, seed: int = 0, vocabulary: int = 61) -> list[Sample]:
    """Samples of various lengths."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        prompt, answer, beyond = rng.randint(1, 9), rng.randint(1, 7), rng.randint(0, 3)
        tokens = tuple(rng.randrange(vocabulary) for _ in range(prompt + answer + beyond))
        made.append(Sample(f"s{i}", tokens, prompt, answer))
    return made


def samples_with_counterparts(count: int, seed: int = 0) -> list[Sample]:
    """The same, each with a counterpart of random tokens."""
    rng = random.Random(seed + 1000)
    return [
        replace(sample, counterpart=tuple(rng.randrange(61) for _ in sample.input_ids))
        for sample in random_samples(count, seed)
    ]
