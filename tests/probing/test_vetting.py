"""What checkpoints of strangers ask for: weights without a place, quantisation, kernels, tokenizers that swell."""

import base64
import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from transformers import Gemma3Config, PreTrainedTokenizerFast

from probing import cli
from probing.checkpoints import find
from probing.errors import ModelError
from probing.models import describe, load_model, load_tokenizer
from probing.vetting import vet_config, vet_tokenizer
from tests.tiny import tiny

CPU = torch.device("cpu")
TOKENS = torch.tensor([[1, 6, 7, 10, 4, 13, 5, 11, 8, 6, 14]])
KERNEL = "someone/kernel"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whole models, to be copied and changed."""
    folders = {}
    for name in ("llama", "llama, biases, tied", "gpt2", "gpt-neox"):
        folders[name] = tmp_path_factory.mktemp("saved") / "model"
        tiny(name, torch.float32).save_pretrained(folders[name])
    return folders


def _config(folder: Path, change: dict) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


def _changed(source: Path, folder: Path, change: dict) -> Path:
    """A copy of a model with another config."""
    return _config(Path(shutil.copytree(source, folder)), change)


def _load(folder: Path) -> torch.nn.Module:
    return load_model(find(str(folder)), CPU, torch.float32)


# -- weights -----------------------------------------------------------------------------------------------------------

WITHOUT_BIASES = {"attention_bias": False, "mlp_bias": False}


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        # Three layers of q, k, v, o and gate, up, down.
        ("llama, biases, tied", WITHOUT_BIASES, "no place for (21, such as model.layers.0.mlp.down_proj.bias)"),
        # Seven matrices and two norms.
        ("llama", {"num_hidden_layers": 2}, "no place for (9, such as model.layers.2.input_layernorm.weight)"),
        ("llama", {"num_hidden_layers": 4}, "lacks 9 of the weights that its config asks for, model.layers.3.input_"),
        # Three layers of gate, up and down.
        (
            "llama",
            {"intermediate_size": 40},
            "in another shape than its config asks for (9, such as model.layers.0.mlp",
        ),
    ],
)
def test_weights_and_config_that_do_not_belong_together_are_refused_with_their_number(
    saved: dict[str, Path], tmp_path: Path, name: str, change: dict, says: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(says)):
        _load(_changed(saved[name], tmp_path / "model", change))


def test_what_is_missing_and_what_is_left_over_stand_in_one_sentence(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = _changed(saved["llama"], tmp_path / "model", {})
    tensors = load_file(folder / "model.safetensors")
    tensors["model.language_model.norm.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 1 of .*, model\.norm\.weight among them, and holds .*\(1, .*language_"
    ):
        _load(folder)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("llama", ["v_head.summary.weight", "v_head.summary.bias"]),
        ("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]),
        ("gpt2", ["transformer.h.0.attn.bias", "transformer.h.2.attn.masked_bias", "h.1.attn.bias"]),
        ("gpt-neox", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.1.attention.masked_bias"]),
        ("gpt-neox", ["gpt_neox.layers.1.attention.rotary_emb.inv_freq"]),
    ],
)
def test_tensors_that_logits_do_not_need_are_passed_over(
    saved: dict[str, Path], tmp_path: Path, name: str, extra: list[str]
) -> None:
    folder = _changed(saved[name], tmp_path / "model", {})
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {key: torch.ones(4, 4) for key in extra}, folder / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(_load(folder)(TOKENS).logits, tiny(name, torch.float32)(TOKENS).logits)


@pytest.mark.parametrize(
    "extra", ["my_v_head.weight", "model.layers.0.self_attn.bias", "model.layers.0.mlp.attn.biases"]
)
def test_tensors_of_similar_names_are_not_passed_over(saved: dict[str, Path], tmp_path: Path, extra: str) -> None:
    folder = _changed(saved["llama"], tmp_path / "model", {})
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {extra: torch.ones(4)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=rf"no place for \(1, such as {extra}\)"):
        _load(folder)


def test_a_config_chooses_no_other_file_of_weights(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = _changed(saved["llama"], tmp_path / "model", {"transformers_weights": "other.safetensors"})
    tensors = {key: torch.zeros_like(tensor) for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "other.safetensors", {"format": "pt"})
    assert _load(folder)(TOKENS).logits.abs().max() > 0.1


# -- configs -----------------------------------------------------------------------------------------------------------

QUANTISED = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
    "awq": {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
    "one nobody knows": {"quant_method": "one nobody knows"},
    "in a way that is not named": {"load_in_8bit": True},
}


@pytest.mark.parametrize(
    ("how", "change"),
    [
        *((how, {"quantization_config": given}) for how, given in QUANTISED.items()),
        ("compressed-tensors", {"compression_config": QUANTISED["compressed-tensors"]}),
        ("in a way that is not named", {"quantization_config": {}}),
    ],
)
def test_quantised_weights_are_refused_with_the_way_in_which_they_are(
    saved: dict[str, Path], tmp_path: Path, how: str, change: dict
) -> None:
    folder = _changed(saved["llama"], tmp_path / "model", change)
    for do in (describe, lambda checkpoint: load_model(checkpoint, CPU, torch.float32)):
        with pytest.raises(ModelError, match=rf"The weights of .* are quantised \({how}\), and edges .* dequantise it"):
            do(find(str(folder)))


def test_a_config_that_says_of_its_weights_that_they_are_not_quantised_is_taken(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    _load(_changed(saved["llama"], tmp_path / "model", {"quantization_config": None}))


def test_a_job_with_quantised_weights_says_so_and_so_does_its_forecast(
    saved: dict[str, Path], tmp_path: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _changed(saved["llama"], tmp_path / "quantised", {"quantization_config": QUANTISED["gptq"]})
    questions = zoo.parent / "questions" / "addition.jsonl"
    (tmp_path / "pairs.toml").write_text(
        f"""
        [questions.own]
        title = "Own"
        file = "{questions}"
        grading = "exact"
        [pairs.mine]
        title = "Mine"
        algorithm = "GRPO"
        kind = "online RL"
        base = "{zoo / "base"}"
        tuned = "./quantised"
        questions = ["own"]
        """
    )
    monkeypatch.setenv("PROBING_PAIRS", str(tmp_path / "pairs.toml"))
    command = ["probe", "mine", "--alpha", "0.3", "--store", str(tmp_path / "store.duckdb"), "--device", "cpu"]
    assert cli.main([*command, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "quantised are quantised (gptq)" in out
    assert err == ""
    assert cli.main(command) == 2
    out, err = capsys.readouterr()
    assert "quantised are quantised (gptq)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": "3"},
        {"num_attention_heads": 0},
        {"hidden_act": "nothing known"},
        {"vocab_size": -1},
        {"per_layer_config": {"0": {"intermediate_size": 24}}},
        {"per_layer_config": {"0": {"_attn_implementation": KERNEL}}},
        {"quantization_config": "gptq"},
        {"dtype": "nonsense"},
    ],
)
def test_a_config_of_wrong_values_is_a_sentence(saved: dict[str, Path], tmp_path: Path, change: dict) -> None:
    folder = _changed(saved["llama"], tmp_path / "model", change)
    for do in (describe, lambda checkpoint: load_model(checkpoint, CPU, torch.float32)):
        with pytest.raises(ModelError, match=r"The config\.json of .*(cannot be read|does not describe)"):
            do(find(str(folder)))


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "_experts_implementation"])
@pytest.mark.parametrize("value", [KERNEL, f"paged|{KERNEL}", f"{KERNEL}@v1:layer", {"": KERNEL}])
def test_a_config_that_asks_for_a_kernel_of_the_hub_is_refused(
    saved: dict[str, Path], tmp_path: Path, key: str, value: object
) -> None:
    folder = _changed(saved["llama"], tmp_path / "model", {key: value})
    for do in (describe, lambda checkpoint: load_model(checkpoint, CPU, torch.float32)):
        with pytest.raises(ModelError, match=f"asks for the kernel .*{KERNEL}.* of the hub, which is code"):
            do(find(str(folder)))


@pytest.mark.parametrize(
    "change",
    [
        {"_attn_implementation_internal": KERNEL},
        {"_experts_implementation_internal": KERNEL},
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": {"text_config": KERNEL}},
    ],
)
def test_what_else_a_config_says_of_attention_is_of_no_matter(
    saved: dict[str, Path], tmp_path: Path, change: dict
) -> None:
    folder = _changed(saved["llama"], tmp_path / "model", change)
    assert describe(find(str(folder))).layers == 3
    model = _load(folder)
    assert {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")} == {"sdpa"}


@pytest.mark.parametrize("key", ["_attn_implementation", "_experts_implementation"])
@pytest.mark.parametrize("value", [{"text_config": KERNEL}, {"": "sdpa", "vision_config": KERNEL}])
def test_a_kernel_is_found_in_the_configs_within_a_config(
    saved: dict[str, Path], tmp_path: Path, key: str, value: dict
) -> None:
    folder = _changed(saved["llama"], tmp_path / "model", {})
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", key: value}))
    with pytest.raises(ModelError, match=f"asks for the kernel {KERNEL}"):
        describe(find(str(folder)))


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_config_within_a_config_chooses_no_kernel(key: str, part: str) -> None:
    config = Gemma3Config(**{part: {key: KERNEL}})
    vet_config(config, "mine")
    chosen = {config._attn_implementation, *(getattr(config, p)._attn_implementation for p in config.sub_configs)}
    assert chosen == {None}
    setattr(config, part, type(getattr(config, part))(**{"attn_implementation": KERNEL}))
    with pytest.raises(ModelError, match=f"mine asks for the kernel {KERNEL}"):
        vet_config(config, "mine")


# -- tokenizers --------------------------------------------------------------------------------------------------------


def _tokenizer(zoo: Path, folder: Path, change: dict) -> Path:
    """The zoo's base with other rules in its tokenizer."""
    shutil.copytree(zoo / "base", folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    return folder


def _replace(old: str, new: str, kind: str = "String") -> dict:
    return {"type": "Replace", "pattern": {kind: old}, "content": new}


def _in_a_row(*rules: dict, kind: str = "normalizers") -> dict:
    return {"type": "Sequence", kind: list(rules)}


def _charsmap(*replacements: str) -> dict:
    """A map of SentencePiece as tokenizer.json holds it: the trie's size, a trie that finds nothing, and texts."""
    trie = bytes(4 * 1024)
    texts = b"".join(text.encode() + b"\0" for text in replacements)
    content = len(trie).to_bytes(4, "little") + trie + texts
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


def _template(*single: dict, ids: int = 1) -> dict:
    token = {"id": "<s>", "ids": [1] * ids, "tokens": ["<s>"] * ids}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": list(single), "pair": pair, "special_tokens": {"<s>": token}}


TWICE = _replace("1", "11")
LINE, BEGIN = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}}


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": _in_a_row(*[TWICE] * 40)},
        {"normalizer": _in_a_row(*[_in_a_row(*[_in_a_row(*[TWICE] * 3)] * 3)] * 3)},
        {"normalizer": _in_a_row(_replace("1", "1" * 20), {"type": "NFKC"}, _replace("11", "2" * 30))},
        {"normalizer": _replace("1", "2" * 300)},
        {"normalizer": _replace(".", "2" * 300, "Regex")},
        {"normalizer": _in_a_row(*[_replace("", "1", "Regex")] * 20)},
        {"normalizer": _in_a_row(*[_replace("", "1")] * 20)},
        {"normalizer": {"type": "Prepend", "prepend": "1" * 300}},
        {"normalizer": _in_a_row({"type": "Prepend", "prepend": "1" * 20}, _replace("1", "1" * 20))},
        {"normalizer": _charsmap("fi", "1" * 300)},
        {"normalizer": _in_a_row(_charsmap("1" * 20), _charsmap("1" * 20))},
        {"decoder": _in_a_row(*[TWICE] * 40, kind="decoders")},
        {"decoder": _replace("1", "2" * 300)},
        {"post_processor": _template(BEGIN, LINE, ids=300)},
        {"post_processor": _template(BEGIN, *[LINE] * 300)},
        {"post_processor": _in_a_row(*[_template(BEGIN, *[LINE] * 20)] * 2, kind="processors")},
        {"post_processor": _template(*[LINE] * 20), "normalizer": _replace("1", "1" * 20)},
    ],
)
def test_a_tokenizer_that_makes_much_of_little_is_refused(zoo: Path, tmp_path: Path, change: dict) -> None:
    folder = _tokenizer(zoo, tmp_path / "model", change)
    with pytest.raises(ModelError, match="can make more than 256 letters or tokens of a single letter"):
        load_tokenizer(find(str(folder)))


def test_it_is_refused_before_its_rules_touch_its_own_tokens(zoo: Path, tmp_path: Path) -> None:
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    change = {
        "normalizer": _in_a_row(*[TWICE] * 14),
        "added_tokens": [{"id": 16, "content": "1" * 1000, **added}],  # 16 million letters when they are applied
    }
    folder = _tokenizer(zoo, tmp_path / "model", change)
    started = time.process_time()
    with pytest.raises(ModelError, match="more than 256 letters"):
        load_tokenizer(find(str(folder)))
    assert time.process_time() - started < 0.3


def test_a_tokenizer_made_from_another_file_is_looked_at_when_it_is_made(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Tokenizer.from_file(str(zoo / "base" / "tokenizer.json"))
    vet_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), "mine")
    backend.normalizer = normalizers.Sequence([normalizers.Replace("1", "11")] * 10)
    made = PreTrainedTokenizerFast(tokenizer_object=backend)
    # transformers makes such a one from a model of SentencePiece, for which it needs that package.
    monkeypatch.setattr("probing.models.AutoTokenizer.from_pretrained", lambda *_, **__: made)
    with pytest.raises(ModelError, match=r"The tokenizer of .* can make more than 256 letters"):
        load_tokenizer(find(str(zoo / "base")))


def test_a_tokenizer_is_read_from_no_file_of_another_name(zoo: Path, tmp_path: Path) -> None:
    folder = _tokenizer(zoo, tmp_path / "model", {})
    (folder / "sub").mkdir()
    shutil.copy(folder / "tokenizer.json", folder / "sub" / "tokenizer.4.0.json")
    path = folder / "tokenizer_config.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(described | {"fast_tokenizer_files": ["sub/tokenizer.4.0.json"]}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"names other files to read in place of tokenizer\.json"):
        load_tokenizer(find(str(folder)))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": _in_a_row(*(_replace(old, "'") for old in "‘’‚‛′‵＇`´"))},
        {"normalizer": _in_a_row({"type": "NFC"}, {"type": "Lowercase"}, _replace(r"\s+", " ", "Regex"))},
        {
            "normalizer": _in_a_row({"type": "Prepend", "prepend": "▁"}, _replace(" ", "▁")),
            "decoder": _in_a_row(_replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}, kind="decoders"),
        },
        {"normalizer": _in_a_row(_charsmap("fi", "صلى الله عليه وسلم"), _replace(" {2,}", "▁", "Regex"))},
        {"post_processor": _in_a_row(_template(BEGIN, LINE), kind="processors")},
        {"post_processor": None, "decoder": None},
    ],
)
def test_tokenizers_as_they_are_used_load(zoo: Path, tmp_path: Path, change: dict) -> None:
    tokenizer = load_tokenizer(find(str(_tokenizer(zoo, tmp_path / "model", change))))
    assert tokenizer("12+34=")["input_ids"][-6:] == [4, 5, 13, 6, 7, 14]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "7", '{"normalizer": 5}', '{"normalizer": {"normalizers": 5}}', '{"post_processor": {"single": [5]}}',
        '{"normalizer": {"pattern": "1", "content": "11"}}', '{"normalizer": {"precompiled_charsmap": "é"}}',
        '{"normalizer": ' + '{"normalizers": [' * 5000 + "]}" * 5000 + "}",
    ],
)  # fmt: skip
def test_a_damaged_tokenizer_is_a_sentence(zoo: Path, tmp_path: Path, text: str) -> None:
    folder = _tokenizer(zoo, tmp_path / "model", {})
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"The tokenizer of .* cannot be read"):
        load_tokenizer(find(str(folder)))
