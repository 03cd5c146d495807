"""What a job is computed on, and that its keys say so."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig

from probing.checkpoints import Checkpoint
from probing.cuts import Cut
from probing.jobs.numerics import make_plan, numerics_for, numerics_of, planned
from probing.jobs.plan import Numerics, Spec, make_request
from probing.method import Method
from probing.pairs import load_registry
from probing.rollouts import Criteria

SPEC = Spec("grpo", "addition", (Cut(0.3),), Criteria(n=40))
SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip


def _gpus(monkeypatch: pytest.MonkeyPatch, *bytes_of_each: float) -> None:
    """Let PyTorch say that there are GPUs, which nothing here uses."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(bytes_of_each))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(total_memory=bytes_of_each[i]))


def _checkpoint(folder: Path, dtype: str, kind: type = LlamaConfig) -> Checkpoint:
    folder.mkdir()
    kind(**SHAPE, dtype=dtype).save_pretrained(folder)
    return Checkpoint(folder.name, folder, f"sha256:{folder.name}")


def test_on_the_cpu_all_is_float32(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "half", "bfloat16")
    assert numerics_of("cpu", "auto", "sdpa", [checkpoint]) == Numerics("cpu", "float32", "float32", "sdpa")
    assert numerics_of("cpu", "bfloat16", "sdpa", [checkpoint]) == Numerics("cpu", "bfloat16", "bfloat16", "sdpa")


def test_on_a_gpu_models_answer_in_their_own_dtype_and_are_scored_in_float32_where_that_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base, tuned = _checkpoint(tmp_path / "base", "bfloat16"), _checkpoint(tmp_path / "tuned", "float32")
    # By hand: two matrices of the vocabulary, and in each of 2 layers 4 of attention, 3 of the MLP and 2 norms; a norm.
    parameters = 2 * 64 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    exactly = 4 * parameters / 0.6
    for memory, scores in (
        ((exactly + 9,), "float32"),
        ((exactly - 9,), "bfloat16"),
        ((exactly / 2 + 9,) * 2, "float32"),
    ):
        _gpus(monkeypatch, *memory)
        assert numerics_of("auto", "auto", "sdpa", [base, tuned]) == Numerics("cuda", "bfloat16", scores, "sdpa")
        assert numerics_of("cuda", "auto", "sdpa", [tuned, base]).answers == "float32"


def test_both_sides_have_one_attention(tmp_path: Path) -> None:
    llama, gemma = _checkpoint(tmp_path / "l", "float32"), _checkpoint(tmp_path / "g", "float32", Gemma2Config)
    for pair in ([llama, gemma], [gemma, llama]):
        assert numerics_of("cpu", "auto", "sdpa", pair).attention == "eager"
    assert numerics_of("cpu", "auto", "sdpa", [llama, llama]).attention == "sdpa"


def test_keys_hold_what_is_computed_and_not_what_was_wished_for(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, selection = load_registry(), SPEC.selections()[0]

    def keys(spec: Spec) -> tuple[str, str]:
        plan = make_plan(spec, registry)
        settings = plan.comparison_settings(selection), plan.rollout_settings("base"), plan.rollout_settings("tuned")
        assert "auto" not in json.dumps(settings)
        return plan.rollout_key("base"), plan.comparison_key(selection)

    here = keys(SPEC)
    assert keys(replace(SPEC, device="cpu", dtype="float32")) == here
    other = keys(replace(SPEC, dtype="bfloat16"))
    assert not set(other) & set(here)
    _gpus(monkeypatch, 80e9)
    assert keys(replace(SPEC, device="cpu")) == here
    assert not set(keys(SPEC)) & set(here)  # a job that began on a GPU does not go on on the CPU


def test_only_the_scores_depend_on_the_dtype_in_which_edges_are_scored() -> None:
    plan, selection = make_plan(SPEC, load_registry()), SPEC.selections()[0]
    other = replace(plan, numerics=replace(plan.numerics, scores="bfloat16"))
    assert other.rollout_key("base") == plan.rollout_key("base")
    assert other.comparison_key(selection) != plan.comparison_key(selection)


def test_a_request_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    request, selection = make_request(SPEC, load_registry()), SPEC.selections()[0]
    asked = request.request_key(selection)
    assert planned(request, numerics_for(request)).comparison_settings(selection)["request"] == asked
    _gpus(monkeypatch, 80e9)
    assert planned(request, numerics_for(request)).comparison_settings(selection)["request"] == asked
    others = [replace(SPEC, dtype="bfloat16"), replace(SPEC, method=Method("blocks")), replace(SPEC, pair="ppo")]
    changed = [make_request(spec, load_registry()).request_key(selection) for spec in others]
    assert len({asked, *changed, request.request_key(replace(selection, n=41))}) == 5
