"""The model that benchmarks of computation run: a Llama of SmolLM2-135M's shape with random weights, or a small one."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from probing.sequences import Sample

PROMPT, ANSWER = 60, 17


def model_of_shape(quick: bool) -> LlamaForCausalLM:
    """30 layers, width 576, 9 heads, 3 heads of keys and values, float32; `quick` is a small one."""
    torch.manual_seed(0)
    width, layers = (96, 4) if quick else (576, 30)
    config = LlamaConfig(
        vocab_size=1000 if quick else 49152,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=9 if not quick else 4,
        num_key_value_heads=3 if not quick else 2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def sample_for(model: LlamaForCausalLM) -> Sample:
    """One sequence of 77 tokens, of which the last 17 are the answer."""
    tokens = torch.randint(model.config.vocab_size, (PROMPT + ANSWER,), generator=torch.Generator().manual_seed(1))
    return Sample("benchmark", tuple(tokens.tolist()), PROMPT, ANSWER)
