from typing import Any

import pytest
import torch

from tests.families import Verdict, check, listed
from tests.shrunk import TYPES

LISTED = listed()

NOT_DIVIDED = {"axk2", "bailing_hybrid", "diffllama", "dots3_note_text", "jetmoe", "xlstm"}
"""Types that work, but whose heads are not told apart: attention reads as one, or heads are mixed before they write."""


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # for tiny models more threads only wait for each other
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_scores_as_the_slow_twin_does_or_is_refused_in_a_sentence_and_the_readme_lists_it(kind: str) -> None:
    verdict: Verdict = check(kind)
    assert verdict.outcome != "wrong", verdict
    assert (verdict.outcome == "works") == (kind in LISTED), "run python -m tests.families --readme"
    assert verdict.outcome != "works" or (verdict.divided == 0) == (kind in NOT_DIVIDED)
    if verdict.outcome == "refused":
        assert verdict.said.endswith(".")
        assert "'" in verdict.said, "a part is named"


@pytest.mark.parametrize(
    ("kind", "more", "edges"),
    [
        ("deepseek_v3", {"q_lora_rank": None}, 46),
        ("deepseek_v3", {"attention_bias": True}, 46),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, 43),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}, 43),
        ("falcon", {"multi_query": False, "num_kv_heads": 4, "bias": True}, 43),
        ("falcon", {"parallel_attn": False, "alibi": True}, 46),
        ("gpt_bigcode", {"multi_query": False}, 46),
        ("gpt_neox", {"use_parallel_residual": False}, 46),
        ("llama4_text", {"layer_types": ["chunked_attention"] * 3, "interleave_moe_layer_step": 2}, 46),
        ("mpt", {"attn_config": {"clip_qkv": 0.1}}, 46),
        ("olmo", {"clip_qkv": 0.1}, 46),
        ("phi", {"qk_layernorm": True}, 43),
        ("stablelm", {"use_parallel_residual": True}, 43),
        ("stablelm", {"qk_layernorm": True, "use_qkv_bias": True}, 46),
        ("starcoder2", {"use_bias": True}, 46),
    ],
)
def test_variants_of_a_type_score_as_the_slow_twin_does(kind: str, more: dict[str, Any], edges: int) -> None:
    verdict = check(kind, **more)
    assert (verdict.outcome, verdict.edges) == ("works", edges), verdict


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "residual identity fails at 'm0'"),
        ("opt", {"do_layer_norm_before": False}, "no norm that is known stands between the last layer and 'lm_head'"),
        ("opt", {"word_embed_proj_dim": 16}, "'model.decoder.embed_tokens' is not as wide as its residual stream"),
    ],
)
def test_variants_that_are_built_otherwise_are_refused(kind: str, more: dict[str, Any], said: str) -> None:
    verdict = check(kind, **more)
    assert verdict.outcome == "refused"
    assert said in verdict.said


def test_the_readme_lists_no_type_that_transformers_does_not_have() -> None:
    assert set(TYPES) >= LISTED
