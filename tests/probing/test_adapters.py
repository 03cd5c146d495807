"""Adapters: what they add, checked by hand, and those that do not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from probing import cli
from probing.checkpoints import find
from probing.errors import ModelError
from probing.models import load_model
from tests.conftest import ROOT
from tests.tiny import tiny

CPU = torch.device("cpu")
CASES = ROOT.parent / "shared" / "cases"
SIZE = 61
"""Of the vocabulary of the tiny models, which have three layers."""

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base whose output is its own matrix, and one whose output is its embedding."""
    folders = {}
    for name, model in (("untied", "llama"), ("tied", "llama, biases, tied")):
        folders[name] = tmp_path_factory.mktemp("bases") / name
        tiny(model, torch.float32).save_pretrained(folders[name])
    return folders


def _adapter(base: Path, folder: Path, rows: int = SIZE, embeddings: object = "auto", **settings: object) -> Path:
    """A random LoRA adapter of `base`, made with a vocabulary of `rows` tokens as peft's documentation says."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    if rows != SIZE:
        model.resize_token_embeddings(rows)
    settings = {"target_modules": ["q_proj", "down_proj"], **settings}
    config = LoraConfig(r=4, lora_alpha=12, task_type=TaskType.CAUSAL_LM, init_lora_weights=False, **settings)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(folder, save_embedding_layers=embeddings)
    return folder


def _rewrite(adapter: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = adapter / "adapter_model.safetensors"
    save_file({key: tensor.clone() for key, tensor in change(load_file(path)).items()}, path)


def _describe(adapter: Path, **change: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def _loaded(adapter: Path) -> Tensors:
    return load_model(find(str(adapter)), CPU, torch.float32).state_dict()


def _by_hand(base: Path, adapter: Path, scale: float = 12 / 4) -> Tensors:
    """W + alpha / r * B A for every pair of factors in the adapter's file, and every other matrix of it as it is."""
    merged, added = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for key, tensor in added.items():
        name = key.removeprefix("base_model.model.")
        if name.endswith(".lora_B.weight"):
            name = name.removesuffix(".lora_B.weight")
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + scale * tensor @ added[key.replace("_B.", "_A.")]
        elif name.endswith("token_adapter.base_layer.weight"):
            merged[name.replace("token_adapter.base_layer.", "")] = tensor
        elif name in merged:
            merged[name] = tensor
    return merged


def _assert_same(found: Tensors, expected: Tensors) -> None:
    assert expected.keys() <= found.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-5, msg=key)


def test_an_adapter_is_its_product_added_to_the_base(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = _adapter(bases["untied"], tmp_path / "adapter")
    expected = _by_hand(bases["untied"], adapter)
    _assert_same(_loaded(adapter), expected)
    changed = {key for key, tensor in load_file(bases["untied"] / "model.safetensors").items()
               if not torch.equal(tensor, expected[key])}  # fmt: skip
    assert len(changed) == 6, "two modules of each of three layers"


@pytest.mark.parametrize("rows", [SIZE + 6, SIZE - 5])
def test_a_base_is_given_the_vocabulary_of_an_adapter_that_holds_all_rows(
    bases: dict[str, Path], tmp_path: Path, rows: int
) -> None:
    adapter = _adapter(bases["untied"], tmp_path / "adapter", rows, modules_to_save=["embed_tokens", "lm_head"])
    # Some files hold such a module a second time under peft's inner name.
    _rewrite(adapter, lambda tensors: tensors | {
        "base_model.model.lm_head.modules_to_save.weight": tensors["base_model.model.lm_head.weight"]})  # fmt: skip
    found = _loaded(adapter)
    assert found["lm_head.weight"].shape[0] == rows
    _assert_same(found, _by_hand(bases["untied"], adapter))
    _rewrite(adapter, lambda tensors: tensors | {
        "base_model.model.lm_head.modules_to_save.weight": tensors["base_model.model.lm_head.weight"] + 1})  # fmt: skip
    with pytest.raises(ModelError, match=r"1 of the \d+ tensors .* fit no module .*modules_to_save"):
        _loaded(adapter)


@pytest.mark.parametrize("kind", ["untied", "tied"])
@pytest.mark.parametrize("tokens", [[3, SIZE - 1], [SIZE, SIZE + 1, SIZE + 2]])
def test_tokens_that_were_trained_alone_have_their_rows(
    bases: dict[str, Path], tmp_path: Path, kind: str, tokens: list[int]
) -> None:
    rows = max(SIZE, max(tokens) + 1)
    adapter = _adapter(bases[kind], tmp_path / "adapter", rows, trainable_token_indices=tokens)
    tensors = load_file(adapter / "adapter_model.safetensors")
    trained = next(tensor for key, tensor in tensors.items() if "trainable_tokens_delta" in key)
    expected = _by_hand(bases[kind], adapter)["model.embed_tokens.weight"].clone()
    expected[tokens] = trained
    found = load_model(find(str(adapter)), CPU, torch.float32)
    torch.testing.assert_close(found.get_input_embeddings().weight, expected)
    if kind == "tied":
        torch.testing.assert_close(found.get_output_embeddings().weight, expected)


def test_rows_that_an_adapter_does_not_hold_are_refused_with_both_sizes(bases: dict[str, Path], tmp_path: Path) -> None:
    new = [SIZE, SIZE + 1]
    makes = {
        "output": lambda to: _adapter(bases["untied"], to, SIZE + 2, False, trainable_token_indices=new),
        "embedding": lambda to: _adapter(bases["untied"], to, SIZE + 2, False, target_modules=["embed_tokens"]),
        "far": lambda to: _adapter(bases["tied"], to, SIZE + 9, False, trainable_token_indices=[SIZE + 1]),
    }
    for name, make in makes.items():
        adapter = make(tmp_path / name)
        size = SIZE + 2
        with pytest.raises(
            ModelError, match=rf"for a vocabulary of {size} tokens, its base has {SIZE}, and .*not hold"
        ):
            _loaded(adapter)
    adapter = _adapter(bases["tied"], tmp_path / "all", SIZE + 2, False, trainable_token_indices=new)
    assert _loaded(adapter)["lm_head.weight"].shape[0] == SIZE + 2, "a tied base needs one matrix only"
    _describe(adapter, trainable_token_indices=[SIZE, 10**12])
    with pytest.raises(ModelError, match=rf"vocabulary of {10**12 + 1} tokens, its base has {SIZE}"):
        _loaded(adapter)


def _renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_renamed("model.layers.", "model.language_model.layers."), "12 of the 12 tensors .* fit no module"),
        (_renamed("base_model.model.", "base_model.model._orig_mod."), "12 of the 12 tensors .* fit no module"),
        (_renamed(".self_attn.", "._fsdp_wrapped_module.self_attn."), "6 of the 12 tensors .* fit no module"),
        (_renamed("layers.2.", "layers.3."), r"4 of the 12 tensors .* fit no module .*layers\.3\."),
        (
            lambda tensors: {key: tensor for key, tensor in tensors.items() if "layers.0." in key},
            r"no tensors for 8 of the 12 places that its config adapts, .*layers\.1\..*lora_A\.weight among them",
        ),
        (
            lambda tensors: {key: tensor[:, :2] if "lora_B" in key else tensor for key, tensor in tensors.items()},
            "cannot be added to its base: .*size mismatch for .*layers.0",
        ),
    ],
)
def test_an_adapter_whose_tensors_do_not_fit_is_refused_with_their_number(
    bases: dict[str, Path], tmp_path: Path, change: Callable[[Tensors], Tensors], says: str
) -> None:
    adapter = _adapter(bases["untied"], tmp_path / "adapter")
    _rewrite(adapter, change)
    with pytest.raises(ModelError, match=says):
        _loaded(adapter)


def test_an_adapter_of_some_layers_fits_where_its_config_says_which(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = _adapter(bases["untied"], tmp_path / "adapter", layers_to_transform=[0, 2])
    assert len(load_file(adapter / "adapter_model.safetensors")) == 8
    _assert_same(_loaded(adapter), _by_hand(bases["untied"], adapter))


def test_a_module_trained_as_a_whole_that_is_not_in_the_file_is_named(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = _adapter(bases["untied"], tmp_path / "adapter", modules_to_save=["lm_head"])
    whole = load_file(adapter / "adapter_model.safetensors")
    _rewrite(adapter, _renamed("base_model.model.", "base_model.model._orig_mod."))
    with pytest.raises(ModelError, match="13 of the 13 tensors"):
        _loaded(adapter)
    _rewrite(adapter, lambda _: {key: tensor for key, tensor in whole.items() if "lm_head" not in key})
    with pytest.raises(ModelError, match=r"no tensors for 1 of the .*lm_head\.weight among them"):
        _loaded(adapter)


def test_an_adapter_that_is_not_added_to_weights_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = _adapter(bases["untied"], tmp_path / "adapter")
    for kind in ("PROMPT_TUNING", "XLORA", "NO SUCH KIND"):
        _describe(adapter, peft_type=kind)
        with pytest.raises(ModelError, match="adapter"):
            _loaded(adapter)


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
@pytest.mark.parametrize(
    ("case", "code", "says"),
    [
        ("adapter-keys/ad-vlkeys", 2, "8 of the 8 tensors"),
        ("adapter-newtok/ad-newtok", 0, ""),
        ("adapter-resize/ad-resize", 0, ""),
    ],
)
def test_the_cases_from_use_end_as_they_should(
    tmp_path: Path, capsys: pytest.CaptureFixture, case: str, code: int, says: str
) -> None:
    adapter = CASES / case
    sequences, out = adapter.parent / "seq.jsonl", tmp_path / "o.npz"
    assert cli.main(["attribute", str(adapter), "--sequences", str(sequences), "--out", str(out)]) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == (code != 0)
    assert out.exists() == (code == 0)
