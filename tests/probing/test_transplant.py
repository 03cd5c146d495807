"""One model's parts in another: whose tensors are whose, against rows counted by hand; what is read, against the
literal twin; and that the other model is reached when all parts are there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from probing.attribution import Attributor
from probing.checkpoints import find
from probing.errors import ModelError, QuestionError
from probing.graph import Granularity, Reader, Writer
from probing.metrics import Definition, paired_score, resample_counts
from probing.models import answer, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.questions import Question, load_questions, prompt_for
from probing.sequences import Sample
from probing.transplant.findings import Findings, table
from probing.transplant.measuring import Exam, Measurer
from probing.transplant.pairing import Pairing
from probing.transplant.parts import tensors_of
from probing.transplant.patching import loss_of, patched_loss, read
from probing.transplant.units import BASE, TUNED, Unit, by_effect, parts_among, singles, steps
from tests import literal
from tests.tiny import TINY, in_float64, random_samples, tiny

CPU = torch.device("cpu")
GRANULARITIES: list[Granularity] = ["projections", "heads"]


def _pairing(base: PreTrainedModel, tuned: PreTrainedModel, granularity: Granularity = "projections") -> Pairing:
    return Pairing(Attributor(base, granularity), Attributor(tuned, granularity))


def _copies(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors_of(model).items()}


def _assert_equal(model: PreTrainedModel, expected: dict[str, torch.Tensor]) -> None:
    found = tensors_of(model)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def _changed(before: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Where the numbers of each tensor that changed are others than before."""
    after = tensors_of(model)
    masks = {name: before[name] != after[name] for name in before}
    return {name: mask for name, mask in masks.items() if mask.any()}


# -- parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_with_all_parts_the_host_is_the_donor_and_afterwards_itself(name: str) -> None:
    base, tuned = tiny(name), tiny(name, seed=1)
    before, wanted = _copies(base), _copies(tuned)
    differ = {key: tensor.numel() for key, tensor in before.items() if not torch.equal(tensor, wanted[key])}
    assert len(differ) > 15
    for granularity in GRANULARITIES:
        pairing = _pairing(base, tuned, granularity)
        with pytest.raises(RuntimeError, match="on purpose"), pairing.exchanged("into-base", pairing.parts):
            _assert_equal(base, wanted)
            raise RuntimeError("on purpose")
        _assert_equal(base, before)
        pieces = [piece for pieces in pairing.parts.values() for piece in pieces if piece.tensor in differ]
        assert sum(piece.of(before).numel() for piece in pieces) == sum(differ.values()), "each number is in one part"


def _only(base: PreTrainedModel, tuned: PreTrainedModel, part: str) -> dict[str, torch.Tensor]:
    before, pairing = _copies(base), _pairing(base, tuned, "heads" if "." in part else "projections")
    with pairing.exchanged("into-base", [part]):
        return _changed(before, base)


def test_a_head_is_its_query_rows_and_output_columns_and_a_group_its_keys_and_values() -> None:
    base, tuned = tiny("qwen2"), tiny("qwen2", seed=1)  # 4 heads of 8 in 2 groups
    attention = "model.layers.1.self_attn."
    found = _only(base, tuned, "a1.h2")
    assert found.keys() == {f"{attention}{name}" for name in ("q_proj.weight", "q_proj.bias", "o_proj.weight")}
    for name in ("q_proj.weight", "q_proj.bias"):
        assert found[attention + name].flatten(1 if "weight" in name else 0).nonzero()[:, 0].unique().tolist() == [
            *range(16, 24)
        ]
    assert found[f"{attention}o_proj.weight"].any(0).nonzero().flatten().tolist() == [*range(16, 24)]
    found = _only(base, tuned, "a1.g1")
    assert found.keys() == {f"{attention}{name}.{kind}" for name in ("k_proj", "v_proj") for kind in ("weight", "bias")}
    assert all(mask.flatten(1).any(1).nonzero().flatten().tolist() == [*range(8, 16)]
               for name, mask in found.items() if "weight" in name)  # fmt: skip
    assert _only(base, tuned, "a1.rest").keys() == {"model.layers.1.input_layernorm.weight"}


def test_heads_of_a_fused_and_transposed_matrix_own_their_keys_and_values_too() -> None:
    base, tuned = tiny("gpt2"), tiny("gpt2", seed=1)  # 4 heads of 8; c_attn makes q, k and v side by side
    found = _only(base, tuned, "a0.h1")
    mine = [first + i for first in (0, 32, 64) for i in range(8, 16)]
    attention = "transformer.h.0.attn."
    assert found[f"{attention}c_attn.weight"].any(0).nonzero().flatten().tolist() == mine
    assert found[f"{attention}c_attn.bias"].nonzero().flatten().tolist() == mine
    assert found[f"{attention}c_proj.weight"].any(1).nonzero().flatten().tolist() == [*range(8, 16)]
    assert len(found) == 3
    assert _only(base, tuned, "a0.bias").keys() == {f"{attention}c_proj.bias"}
    assert _only(base, tuned, "a0.rest").keys() == {"transformer.h.0.ln_1.weight", "transformer.h.0.ln_1.bias"}


def test_blocks_take_the_norms_before_and_behind_them_and_tied_ends_are_one_part() -> None:
    base, tuned = tiny("gemma2"), tiny("gemma2", seed=1)
    layer = "model.layers.2."
    norms = {f"{layer}{name}_layernorm.weight" for name in ("input", "post_attention")}
    projections = {f"{layer}self_attn.{kind}_proj.weight" for kind in "qkvo"}
    assert _only(base, tuned, "a2").keys() == norms | projections
    assert _only(base, tuned, "input+logits").keys() == {"model.embed_tokens.weight", "model.norm.weight"}
    shared, other = tiny("gpt-neox"), tiny("gpt-neox", seed=1)
    assert _only(shared, other, "input").keys() == {"gpt_neox.embed_in.weight"}
    assert {name.split(".")[1] for name in _only(shared, other, "logits")} == {"final_layer_norm", "weight"}


# -- what cannot be exchanged ------------------------------------------------------------------------------------------


def _spoilt(name: str, parameter: str) -> PreTrainedModel:
    model = tiny(name)
    model.get_submodule(parameter.rpartition(".")[0]).register_parameter(
        parameter.rpartition(".")[2], torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    )
    return model


def test_a_number_of_no_part_that_differs_is_refused_by_name() -> None:
    stray = "model.layers.1.scales"
    base, tuned = _spoilt("llama", stray), _spoilt("llama", stray)
    assert stray not in {piece.tensor for pieces in _pairing(base, tuned).parts.values() for piece in pieces}
    with torch.no_grad():
        tuned.get_parameter(stray)[1] = 1
    with pytest.raises(ModelError, match=rf"'{stray}' differs .* belongs to no part"):
        _pairing(base, tuned)
    with pytest.raises(ModelError, match=r"'model.rotary_emb.inv_freq' differs .* no part"):
        _pairing(tiny("llama"), tiny("llama, other rope"))


def test_a_number_of_two_parts_that_differs_is_refused() -> None:
    base, tuned = tiny("llama"), tiny("llama", seed=1)
    for model in (base, tuned):
        model.model.layers[2].input_layernorm.weight = model.model.layers[1].input_layernorm.weight
    with pytest.raises(ModelError, match=r"'model.layers.1.input_layernorm.weight' .* more than one part"):
        _pairing(base, tuned)


def _other(name: str, **more: object) -> PreTrainedModel:
    """A tiny model of another config."""
    make, config = TINY[name]
    return make(type(config)(**{**config.to_dict(), **more})).to(torch.float64)


def test_models_of_other_vocabularies_shapes_architectures_and_configs_are_refused() -> None:
    with pytest.raises(ModelError, match="vocabulary of 61 tokens and the tuned model one of 67"):
        _pairing(tiny("llama"), _other("llama", vocab_size=67))
    with pytest.raises(ModelError, match=r"q_proj.weight' is \[32, 32\] \(float64\) in the base and \[48, 32\]"):
        _pairing(tiny("mistral"), _other("mistral", head_dim=12))
    with pytest.raises(ModelError, match=r"The tuned model has a tensor '.*q_proj.bias' and the base has none"):
        _pairing(tiny("llama"), tiny("qwen2"))
    with pytest.raises(ModelError, match=r"The base has a tensor 'lm_head.weight' and the tuned model has none"):
        _pairing(tiny("llama"), _other("llama", tie_word_embeddings=True))
    louder = _other("granite", logits_scaling=1.0)
    louder.load_state_dict(tiny("granite").state_dict())
    with pytest.raises(ModelError, match="still does not say what that says"):
        _pairing(tiny("granite"), louder)


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_a_block_of_an_adapter_is_the_base_with_the_adapters_tensors_of_that_block_alone(tmp_path: Path) -> None:
    tiny("llama", torch.float32).save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        task_type=TaskType.CAUSAL_LM,
        init_lora_weights=False,
        target_modules=["q_proj", "down_proj"],
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config).save_pretrained(tmp_path / "whole")
    tensors = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    (tmp_path / "part").mkdir()
    part = {key: tensor for key, tensor in tensors.items() if "layers.1.self_attn" in key}
    assert 0 < len(part) < len(tensors)
    described = json.loads((tmp_path / "whole" / "adapter_config.json").read_text())
    described |= {"target_modules": ["q_proj"], "layers_to_transform": [1]}
    (tmp_path / "part" / "adapter_config.json").write_text(json.dumps(described))
    save_file(part, tmp_path / "part" / "adapter_model.safetensors")
    base, whole, alone = (
        load_model(find(str(tmp_path / name)), CPU, torch.float32) for name in ("base", "whole", "part")
    )
    pairing = _pairing(base, whole)
    moved = {name for name, share in pairing.moved.items() if share != 0}
    assert moved == {f"{kind}{layer}" for kind in "am" for layer in range(3)}
    before = _copies(base)
    with pairing.exchanged("into-base", ["a1"]):
        _assert_equal(base, _copies(alone))
        assert _changed(before, base).keys() == {"model.layers.1.self_attn.q_proj.weight"}


# -- activations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ["llama, biases, tied", "qwen3"])
def test_what_the_donor_writes_is_read_as_in_the_literal_twin(name: str, granularity: Granularity) -> None:
    base, tuned = in_float64(name), tiny(name, attention="sdpa", seed=1)
    other = in_float64(name)
    other.load_state_dict(tuned.state_dict())
    host, donor, (sample,) = Attributor(base, granularity), Attributor(other, granularity), random_samples(1, seed=5)
    graph = host.architecture.graph
    order = graph.blocks
    whole, own, _ = literal.run(base, sample)
    _, given, _ = literal.run(other, sample)
    for writer in graph.writers[:: 1 if granularity == "projections" else 4]:
        later = [
            reader
            for reader in graph.readers
            if order.index(Reader.of(reader).block) > order.index(Writer.of(writer).block)
        ]
        offsets = dict.fromkeys(later, given[writer] - own[writer])
        expected = float(literal.run(base, sample, offsets)[0])
        found = float(patched_loss(host, donor, [writer], [sample])[0])
        assert found == pytest.approx(expected, rel=1e-9), writer
        assert abs(found - float(whole)) > 1e-6 or writer.endswith("bias")


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ["gpt-neox", "olmo2", "granite"])
def test_with_everything_that_the_donor_writes_the_host_reads_its_residual(name: str, granularity: Granularity) -> None:
    pairing, samples = _pairing(tiny(name), tiny(name, seed=1), granularity), random_samples(3, seed=3)
    host, donor = pairing.ends("into-base")
    with pairing.exchanged("into-tuned", ["logits"]):
        expected = loss_of(donor, samples)
        found = patched_loss(host, donor, host.architecture.graph.writers, samples)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (abs(found - loss_of(host, samples)) > 1e-3).all()
    np.testing.assert_allclose(patched_loss(host, donor, [], samples), loss_of(host, samples), rtol=1e-9)


# -- units and findings ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(zoo: Path) -> Measurer:
    """GRPO's pair, asked 24 questions."""
    registry = load_registry()
    pair, questions = registry.pair("grpo"), load_questions(registry.question_set("addition"))[:24]
    base, tuned = (load_model(find(str(zoo / name)), CPU, torch.float32) for name in ("base", "grpo"))
    tokenizer = load_tokenizer(find(pair.tuned))
    prompts = [prompt_for(question, pair.template, tokenizer).tokens for question in questions]
    said = [tokens for tokens, _ in answer(tuned, tokenizer, prompts, pair.max_new_tokens, pair.stop)]
    text = [Sample(question.id, prompt + tokens, len(prompt), len(tokens))
            for question, prompt, tokens in zip(questions, prompts, said, strict=True)]  # fmt: skip
    exam = Exam(tuned, tokenizer, questions, prompts, "last-number", pair.max_new_tokens, pair.stop)
    return Measurer(_pairing(base, tuned), text, exam)


def test_parts_are_measured_by_answers_and_loss_until_the_other_model_is_reached(shipped: Measurer) -> None:
    parts = list(shipped.pairing.parts)
    base, tuned = shipped.measure(BASE), shipped.measure(TUNED)
    assert tuned["correct"].mean() == 1
    assert 0.2 < base["correct"].mean() < 0.8
    single = shipped.measure(singles("weights", "into-base", ["a0"])[0])
    assert single["correct"].mean() > base["correct"].mean() + 0.1
    assert tuned["loss"].mean() < single["loss"].mean() < base["loss"].mean()
    for direction, there in (("into-base", tuned), ("into-tuned", base)):
        last = shipped.measure(steps(direction, "depth", parts)[-1])  # type: ignore[arg-type]
        np.testing.assert_array_equal(last["correct"], there["correct"])
        np.testing.assert_allclose(last["loss"], there["loss"], rtol=1e-5)
    assert list(shipped.measure(Unit("activations:into-base:m5", "activations", "into-base", ("m5",)))) == ["loss"]


def test_an_exam_has_the_donors_prompts_and_graded_answers_only(shipped: Measurer) -> None:
    assert shipped.exam is not None
    own = shipped.pairing.base.model.generation_config
    assert shipped.exam.take(shipped.pairing.base.model).sum() == shipped.measure(BASE)["correct"].sum()
    assert shipped.pairing.base.model.generation_config is own
    with pytest.raises(QuestionError, match="cannot be graded"):
        Exam(shipped.exam.model, shipped.exam.tokenizer, [Question("1", "?", "", "both_correct")], [(1,)], "none", 4)


def test_a_model_is_asked_only_where_it_would_not_say_the_text_that_it_reads(shipped: Measurer) -> None:
    exam, base = shipped.exam, shipped.pairing.base
    assert exam is not None
    said = answer(base.model, exam.tokenizer, exam.prompts, exam.max_new_tokens)
    same = [tokens == sample.scored for (tokens, _), sample in zip(said, shipped.samples, strict=True)]
    loss, own = read(base, shipped.samples)
    assert own.tolist() == same
    assert 0 < sum(same) < len(same)
    np.testing.assert_array_equal(loss, loss_of(base, shipped.samples))
    asked: list[int] = []
    known = {place: shipped.samples[place].scored for place in np.flatnonzero(own).tolist()}
    right = exam.take(base.model, lambda: asked.append(1), known)
    np.testing.assert_array_equal(right, exam.take(base.model))
    assert len(asked) <= 1 + exam.max_new_tokens
    asked.clear()
    whole = {place: sample.scored for place, sample in enumerate(shipped.samples)}
    assert exam.take(shipped.pairing.tuned.model, lambda: asked.append(1), whole).all()
    assert not asked
    begun = {place: tokens[:-1] for place, tokens in whole.items()}
    assert exam.take(shipped.pairing.tuned.model, lambda: asked.append(1), begun).all()
    assert asked, "an answer that goes on is not known"


def _values(rng: np.random.Generator, correct: float, loss: float, n: int = 80) -> dict[str, np.ndarray]:
    return {"correct": (rng.random(n) < correct).astype(float), "loss": loss + 0.05 * rng.random(n)}


def test_findings_are_differences_from_the_host_with_paired_intervals() -> None:
    rng, name = np.random.default_rng(0), "weights:into-tuned:a0"
    values = {"base": _values(rng, 0.5, 1.0), "tuned": _values(rng, 0.9, 0.4), name: _values(rng, 0.7, 0.6)}
    found = Findings(values).of(singles("weights", "into-tuned", ["a0"])[0])
    host, mine, donor = values["tuned"], values[name], values["base"]
    gained = int(((mine["correct"] == 1) & (host["correct"] == 0)).sum())
    lost = int(((mine["correct"] == 0) & (host["correct"] == 1)).sum())
    assert lost > gained > 0
    assert found.correct_change is not None
    assert (found.correct_change.low, found.correct_change.high) == paired_score(gained, lost, 80)
    drawn = resample_counts(80, Definition()) / 80
    shares = (drawn @ (host["loss"] - mine["loss"])) / (drawn @ (host["loss"] - donor["loss"]))
    assert found.recovered is not None
    expected = [(host["loss"] - mine["loss"]).mean() / (host["loss"] - donor["loss"]).mean(),
                *np.quantile(shares, [0.025, 0.975])]  # fmt: skip
    np.testing.assert_allclose([found.recovered.value, found.recovered.low, found.recovered.high], expected, rtol=1e-9)
    assert 0.3 < found.recovered.value < 0.4
    moves = drawn @ (mine["loss"] - host["loss"])
    np.testing.assert_allclose([found.loss_change.low, found.loss_change.high], np.quantile(moves, [0.025, 0.975]))


def test_a_gap_that_may_be_none_has_no_share() -> None:
    rng, name = np.random.default_rng(1), "weights:into-base:a0"
    values = {"base": _values(rng, 0.5, 1.0), "tuned": _values(rng, 0.5, 1.0), name: _values(rng, 0.5, 0.9)}
    assert Findings(values).of(singles("weights", "into-base", ["a0"])[0]).recovered is None
    few = {"base": [1.1, 1.2, 1.1, 9.0], "tuned": [1.0, 1.0, 1.0, 1.0], name: [1.1, 1.1, 1.0, 3.0]}
    found = Findings({unit: {"loss": np.array(loss)} for unit, loss in few.items()})
    assert found.of(TUNED).loss == 1
    assert found.of(singles("weights", "into-base", ["a0"])[0]).recovered is None, "though every resample has a gap"


def test_parts_are_ordered_by_what_they_take_towards_the_donor() -> None:
    def measured(right: int, loss: float) -> dict[str, np.ndarray]:
        return {"correct": np.arange(10) < right, "loss": np.full(10, loss)}

    values = {
        "base": measured(4, 1.0), "tuned": measured(9, 0.2), "weights:into-base:a0": measured(5, 0.9),
        "weights:into-base:m0": measured(8, 0.9), "weights:into-base:a1": measured(5, 0.7),
        "weights:into-base:m1": measured(3, 0.1), "weights:into-tuned:a0": measured(9, 0.2),
        "weights:into-tuned:m0": measured(10, 0.1), "weights:into-tuned:a1": measured(6, 0.3),
        "weights:into-tuned:m1": measured(9, 0.2),
    }  # fmt: skip
    parts = ["a0", "m0", "a1", "m1"]
    assert by_effect("into-base", parts, values) == ["m0", "a1", "a0", "m1"]
    assert by_effect("into-tuned", parts, values) == ["a1", "a0", "m1", "m0"]


def test_tables_have_every_part_and_say_where_the_models_alone_stand() -> None:
    rng, parts = np.random.default_rng(2), ["input", "a0", "logits"]
    wanted = [BASE, TUNED]
    for direction in ("into-base", "into-tuned"):
        wanted += singles("weights", direction, parts)  # type: ignore[arg-type]
        wanted += [unit for order in ("depth", "effect") for unit in steps(direction, order, parts)]  # type: ignore[arg-type]
    wanted += singles("activations", "into-base", ["input", "a0"])
    values = {unit.name: _values(rng, 0.8 if unit.parts else 0.5, 1 - 0.1 * len(unit.parts)) for unit in wanted}
    for unit in wanted:
        if unit.what == "activations":
            del values[unit.name]["correct"]
    moved = {"input": 0.0, "a0": 0.0123, "logits": 0.5}
    found = Findings(values, moved, Definition(resamples=500))
    lines = [*table("weights", "into-base", parts, found), *table("weights", "into-tuned", parts, found)]
    assert sum(line.startswith("| a0 |") for line in lines) == 2 * 3
    assert any(line.startswith("| a0 | 1.2 % | 7") for line in lines)
    assert lines[0].startswith("One part of tuned in base, weights, 80 questions (base ")
    assert parts_among([unit.name for unit in wanted], "weights", "into-tuned") == parts
    lines = [*table("activations", "into-base", parts[:2], found)]
    assert len(lines) == 2 + 4
    assert all(line.count("|") == 5 for line in lines[2:])


def test_a_change_without_an_interval_keeps_its_digits() -> None:
    losses = {"base": 0.0764, "tuned": 0.0232, "activations:into-base:a0": 0.0641}
    found = Findings({name: {"loss": np.array([loss])} for name, loss in losses.items()})
    (row,) = list(table("activations", "into-base", ["a0"], found))[-1:]
    assert row == "| a0 | 0.0641 | -0.0123 (no interval) | no gap |"
