"""Tiny random models of every causal language model that the installed transformers knows, made by shrinking configs.

A config's numbers are shrunk by what they are called, whatever its type; a few types need more (`_MORE`), such as one
layer of each kind. Weights are large enough that every block does something, and gains and biases differ from one and
zero.
"""

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""Every `model_type` with a causal language model."""

VOCABULARY, WIDTH, LAYERS = 61, 32, 3

_SIZES: dict[int | float, str] = {
    VOCABULARY: "vocab_size n_token n_words decoder_vocab_size vocab_size_per_layer_input text_vocab_size",
    WIDTH: "hidden_size d_model n_embd emb_dim embedding_size word_embed_proj_dim attention_hidden_size lru_width "
    "decoder_hidden_size",
    LAYERS: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
    "num_decoder_layers",
    48: "intermediate_size ffn_dim n_inner encoder_ffn_dim decoder_ffn_dim ffn_hidden_size dim_ff dff "
    "intermediate_size_mlp shared_expert_intermediate_size shared_intermediate_size "
    "moe_shared_expert_intermediate_size",
    24: "moe_intermediate_size expert_ffn_hidden_size",
    64: "max_position_embeddings n_positions n_ctx max_seq_len context_length model_max_length",
    16: "q_lora_rank kv_lora_rank o_lora_rank mamba_d_state state_size time_step_rank mamba_dt_rank",
    8: "head_dim attention_head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim kv_channels dim_head global_head_dim "
    "linear_key_head_dim linear_value_head_dim mamba_d_head mamba_headdim mamba_head_dim mamba_n_heads mamba_num_heads "
    "swa_head_dim swa_v_head_dim rotary_dim index_head_dim linear_head_dim sliding_window "
    "attention_window_size window_size sliding_window_size chunk_size mamba_chunk_size",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads linear_num_key_heads linear_num_value_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts",
    2: "num_key_value_heads num_kv_heads swa_num_key_value_heads num_global_key_value_heads num_experts_per_tok moe_k "
    "moe_topk num_experts_per_token top_k_experts mamba_expand expand eos_token_id",
    1: "n_group topk_group num_expert_group n_shared_experts num_shared_experts moe_num_shared_experts "
    "first_k_dense_replace mamba_n_groups n_groups bos_token_id",
    0: "pad_token_id",
}
_SMALL = {name: size for size, names in _SIZES.items() for name in names.split()}

_MIXED = ["linear_attention", "full_attention", "linear_attention"]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_LATENT = {"num_key_value_heads": 4}
_DOTS = _LATENT | {"per_layer_config": None, "head_dim": 16}

_MORE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32"), _LATENT),
    **dict.fromkeys(("glm4_moe_lite", "glm_moe_dsa", "longcat_flash", "minicpm3", "youtu"), _LATENT),
    **{kind: {"layer_types": _MIXED} for kind in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")},
    **{kind: {"text_config": {"layer_types": _MIXED}} for kind in ("qwen3_5", "qwen3_5_moe")},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0, "kv_n_heads": 2}},
    "dots3_note_text": _DOTS,
    "dots3_note": {"text_config": _DOTS},
    "falcon_h1": {"mamba_d_ssm": 64},
    "blt": {"encoder_hash_byte_group_vocab": VOCABULARY},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global"], LAYERS]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2},
    "kimi_linear": {"num_key_value_heads": 4, "layer_types": _MIXED},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"num_heads": 8},
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 0},
    "zamba2": {"layers_block_type": ["mamba", "hybrid", "mamba"], "attention_hidden_size": 64, "head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def shrunk_config(make: type[PretrainedConfig], more: dict[str, Any]) -> PretrainedConfig:
    """A small config of that class; may raise whatever transformers raises."""
    default = make()
    numbers = {name: value for name, value in default.to_dict().items() if not isinstance(value, list | tuple | dict)}
    inner = {
        name: shrunk_config(type(value), more.get(name, {}))
        for name, value in vars(default).items()
        if isinstance(value, PretrainedConfig)
    }
    beside = {name: value for name, value in more.items() if name not in inner}
    return make(**{name: size for name, size in _SMALL.items() if name in numbers} | inner | beside)


def shrunk(kind: str, dtype: torch.dtype = torch.float64, attention: str = "eager", **more: Any) -> PreTrainedModel:
    """A tiny random model of that `model_type`, `more` of its config set; may raise whatever transformers raises."""
    config = shrunk_config(CONFIG_MAPPING[kind], _MORE.get(kind, {}) | more)
    for each in (config, *(value for value in vars(config).values() if isinstance(value, PretrainedConfig))):
        each._attn_implementation = attention
        each._experts_implementation = "eager"  # the fast ones do not know float64
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(0.25 * noise if parameter.dim() > 1 else parameter + 0.3 * noise)
    return model.to(dtype).eval().requires_grad_(False)
