"""Two models that are one and the same are told from their files."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from probing.checkpoints import Checkpoint, find
from probing.sameness import weights_note


def _same(one: Path, other: Path) -> bool:
    notes = {weights_note(find(str(a)), find(str(b))) for a, b in ((one, other), (other, one))}
    assert len(notes) == 1, "it does not matter which is the base"
    (note,) = notes
    assert note is None or note.startswith("The two models are equal in every weight")
    return note is not None


@pytest.fixture
def copy(zoo: Path, tmp_path: Path) -> Path:
    return shutil.copytree(zoo / "base", tmp_path / "copy")


def _edit(path: Path, change: Callable[[dict], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_the_shipped_models_differ_and_each_is_itself(zoo: Path) -> None:
    assert _same(zoo / "base", zoo / "base")
    for name in ("grpo", "base-seed2"):
        assert not _same(zoo / "base", zoo / name)


def test_equal_weights_are_told_whatever_their_files_are(zoo: Path, copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"use_cache": False}))
    assert find(str(copy)).identity != find(str(zoo / "base")).identity
    assert _same(zoo / "base", copy)
    AutoModelForCausalLM.from_pretrained(copy).save_pretrained(tmp_path / "sharded", max_shard_size="500KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert _same(zoo / "base", tmp_path / "sharded")
    wide = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    wide.save_pretrained(tmp_path / "wide")
    assert _same(zoo / "base", tmp_path / "wide"), "bfloat16 and float32 hold the same values"


def test_one_number_is_enough_to_differ(zoo: Path, copy: Path) -> None:
    def last_up(tensors: dict) -> None:
        tensors["model.norm.weight"][-1] += 0.125

    _edit(copy / "model.safetensors", last_up)
    assert not _same(zoo / "base", copy)


def test_a_tensor_more_or_of_another_shape_is_a_difference(zoo: Path, copy: Path) -> None:
    _edit(copy / "model.safetensors", lambda tensors: tensors.update(more=torch.zeros(1)))
    assert not _same(zoo / "base", copy)
    shutil.copy(zoo / "base" / "model.safetensors", copy)
    _edit(copy / "model.safetensors", lambda tensors: tensors.update({"model.norm.weight": torch.ones(1)}))
    assert not _same(zoo / "base", copy)


@pytest.fixture
def untrained(copy: Path) -> Path:
    """A LoRA adapter as it is before its first step: one factor of each product is zero."""
    config = LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(copy), config).save_pretrained(
        copy.parent / "adapter", save_embedding_layers=False
    )
    return copy.parent / "adapter"


def test_an_adapter_that_adds_nothing_is_its_base(zoo: Path, untrained: Path) -> None:
    assert _same(zoo / "base", untrained)
    assert not _same(zoo / "grpo", untrained)
    trained = shutil.copytree(untrained, untrained.parent / "trained")
    _edit(
        trained / "adapter_model.safetensors",
        lambda tensors: [t.fill_(0.1) for key, t in tensors.items() if "layers.5" in key and "lora_B" in key],
    )
    assert not _same(zoo / "base", trained)
    assert not _same(untrained, trained)


def test_two_adapters_are_the_same_where_config_and_tensors_are(untrained: Path) -> None:
    for name in ("one", "two"):
        folder = shutil.copytree(untrained, untrained.parent / name)
        _edit(folder / "adapter_model.safetensors", lambda tensors: [t.fill_(0.1) for t in tensors.values()])
        (folder / "README.md").write_text(name)
    one, two = untrained.parent / "one", untrained.parent / "two"
    path = two / "adapter_config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"peft_version": "0.1"}))
    assert find(str(one)).identity != find(str(two)).identity
    assert _same(one, two)
    path.write_text(json.dumps(described | {"lora_alpha": 99}))
    assert not _same(one, two)


@pytest.mark.parametrize(
    "change", [{"init_lora_weights": "pissa"}, {"peft_type": "LOHA"}, {"layer_replication": [[0, 2]]}]
)
def test_an_adapter_that_changes_its_base_otherwise_is_not_taken_to_add_nothing(
    zoo: Path, untrained: Path, change: dict
) -> None:
    path = untrained / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert not _same(zoo / "base", untrained)


def test_files_that_cannot_be_read_are_left_to_loading(zoo: Path, copy: Path, untrained: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"cut short")
    assert not _same(zoo / "base", copy)
    (untrained / "adapter_model.safetensors").write_bytes(b"cut short")
    assert not _same(zoo / "base", untrained)


def test_files_that_do_not_tell_are_taken_to_differ(zoo: Path, copy: Path, tmp_path: Path) -> None:
    base = find(str(zoo / "base"))
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    other = find(str(copy))
    assert weights_note(base, other) is not None
    assert weights_note(base, replace(other, gguf="m.gguf")) is None, "a GGUF file is not compared with tensors"
    assert weights_note(base, Checkpoint("owner/model", tmp_path / "none", "hub:owner/model@1")) is None
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    pickled = find(str(copy), pickled=True)
    assert weights_note(base, pickled) is None
    assert weights_note(pickled, pickled) is not None, "it is what it is, whatever it holds"
