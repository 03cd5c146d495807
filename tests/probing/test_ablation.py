"""Edges that are really removed, against the literal twin: an offset of minus what a writer wrote removes its edge.

The families' test does the same against the perturbed twin for all types.
"""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probing.ablation import (
    Effects,
    Removed,
    effects,
    loss_without,
    read_effects,
    run_with,
    run_without,
    unfinished,
    write_effects,
)  # fmt: skip
from probing.architectures import Intervention, architecture_of, rewriting
from probing.attribution import Attributor, find_references
from probing.errors import ModelError, ScoresError
from probing.graph import Edge, Granularity
from probing.method import Loss, Method, Reference
from probing.sequences import Sample
from tests import literal, perturbed
from tests.probing.test_attribution import made_linear
from tests.tiny import LITERAL, in_float64, random_samples, samples_with_counterparts, tiny

GRANULARITIES: list[Granularity] = ["projections", "heads"]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", LITERAL)
def test_the_loss_without_an_edge_is_the_literal_twins(name: str, granularity: Granularity) -> None:
    attributor = Attributor(in_float64(name), granularity)
    graph, (sample,) = attributor.graph, random_samples(1, seed=5)
    whole, written, _ = literal.run(attributor.model, sample)
    assert loss_without(attributor, [sample], []) == pytest.approx(float(whole), rel=1e-12)
    moved = 0
    for number in range(0, graph.size, 7 if granularity == "heads" else 2):
        edge = Edge.of(graph.edges[number])
        offsets = {edge.reader.name: -written[edge.writer.name]}
        expected = float(literal.run(attributor.model, sample, offsets)[0])
        found = float(loss_without(attributor, [sample], [number])[0])
        assert found == pytest.approx(expected, rel=1e-9), edge.name
        moved += abs(found - float(whole)) > 1e-6
    assert moved > 5


def test_edges_that_are_removed_together_are_removed_in_one_pass() -> None:
    attributor = Attributor(in_float64("llama"), "heads")
    graph, samples = attributor.graph, random_samples(3, seed=2)
    names = ["input->a0.h1<q>", "input->a0.g0<k>", "a0.h2->m1", "m0->m1", "m2->logits"]
    for sample, found in zip(samples, loss_without(attributor, samples, map(graph.number, names)), strict=True):
        offsets: dict[str, torch.Tensor] = {}
        written = literal.run(attributor.model, sample)[1]
        for name in names[:2]:
            offsets[Edge.of(name).reader.name] = -written["input"]
        written = literal.run(attributor.model, sample, offsets)[1]
        offsets["m1"] = -written["a0.h2"] - written["m0"]
        offsets["logits"] = -literal.run(attributor.model, sample, offsets)[1]["m2"]
        assert found == pytest.approx(float(literal.run(attributor.model, sample, offsets)[0]), rel=1e-9)


def test_a_block_that_reads_as_one_loses_what_its_projections_do() -> None:
    sample = random_samples(1, seed=4)
    apart, together = (Attributor(in_float64("qwen2"), granularity) for granularity in ("projections", "blocks"))
    edges = [apart.graph.number(f"m0->a2<{part}>") for part in "qkv"]
    expected = loss_without(apart, sample, edges)
    np.testing.assert_allclose(loss_without(together, sample, [together.graph.number("m0->a2<qkv>")]), expected)
    assert abs(expected - loss_without(apart, sample, edges[:2])) > 1e-6


def test_hooks_are_gone_after_an_intervention() -> None:
    model = tiny("llama")
    with pytest.raises(RuntimeError, match="on purpose"), rewriting(architecture_of(model), Intervention()):
        raise RuntimeError("on purpose")
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


# -- what stands in ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> torch.nn.Module:
    return in_float64("llama, biases, tied")


@pytest.mark.parametrize("reference", ["mean", "patch"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_what_stands_in_takes_a_writers_place(
    llama: torch.nn.Module, granularity: Granularity, reference: Reference
) -> None:
    attributor, samples = Attributor(llama, granularity), samples_with_counterparts(2, seed=3)
    references = find_references(attributor, reference, samples)
    every = [literal.run(llama, sample)[1] for sample in samples]
    for number in range(3, attributor.graph.size, 61 if granularity == "heads" else 17):
        edge = Edge.of(attributor.graph.names([number])[0])
        writer = edge.writer.name
        found = loss_without(attributor, samples, [number], "margin", references)
        for sample, written, loss in zip(samples, every, found, strict=True):
            if reference == "patch":
                instead = literal.run(llama, replace(sample, input_ids=sample.counterpart))[1][writer]
            else:
                instead = torch.cat([each[writer] for each in every]).mean(0)
            offsets = {edge.reader.name: instead - written[writer]}
            assert loss == pytest.approx(float(literal.run(llama, sample, offsets, loss="margin")[0]), rel=1e-9)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_edges_are_removed_in_several_ways_in_one_pass_each_as_the_last_that_has_it_says(
    llama: torch.nn.Module, granularity: Granularity
) -> None:
    attributor, (sample, another) = Attributor(llama, granularity), samples_with_counterparts(2, seed=3)
    a0 = "a0.h1" if granularity == "heads" else "a0"
    ways: list[tuple[Reference, list[str]]] = [
        ("zero", ["input->m1", f"{a0}->m1"]),
        ("mean", [f"{a0}->m1", f"{a0}->logits", "m0->logits"]),
        ("patch", ["m0->m1", "input->logits"]),
    ]
    stand_ins = {kind: find_references(attributor, kind, [sample, another]).of([sample]) for kind, _ in ways}
    removed = [Removed([*map(attributor.graph.number, names)], stand_ins[kind]) for kind, names in ways]
    with run_with(attributor, [sample], removed) as said:
        found = said.losses("margin")
    written, other, there = (
        literal.run(llama, one)[1] for one in (sample, another, replace(sample, input_ids=sample.counterpart))
    )
    mean = {name: torch.cat([written[name], other[name]]).mean(0) for name in (a0, "m0")}
    offsets = {
        "m1": -written["input"] + mean[a0] - written[a0] + there["m0"] - written["m0"],
        "logits": mean[a0] - written[a0] + there["input"] - written["input"] + mean["m0"] - written["m0"],
    }
    assert float(found) == pytest.approx(float(literal.run(llama, sample, offsets, loss="margin")[0]), rel=1e-9)
    with run_with(attributor, [sample], removed[::-1]) as said:
        assert abs(float(said.losses("margin") - found)) > 1e-6, "zero is now the last that has an edge"


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ["llama, biases, tied", "gemma2"])
def test_with_nothing_removed_it_is_the_model_and_with_everything_what_stands_in(
    name: str, granularity: Granularity
) -> None:
    attributor, samples = Attributor(tiny(name, torch.float32), granularity), samples_with_counterparts(2)
    every = range(attributor.graph.size)
    with torch.no_grad(), attributor.running(samples, nullcontext()) as model:
        pass
    with run_without(attributor, samples, []) as said:
        assert torch.equal(said.logits, model.logits)
    with run_without(attributor, samples, every) as said:
        assert not said.logits.any(), "of a sum of nothing, these norms make exactly nothing"
        assert model.logits.any()
    there = [replace(sample, input_ids=sample.counterpart, counterpart=None) for sample in samples]
    with torch.no_grad(), attributor.running(there, nullcontext()) as other:
        pass
    with run_without(attributor, samples, every, find_references(attributor, "patch", samples)) as said:
        torch.testing.assert_close(said.logits, other.logits, rtol=1e-5, atol=1e-5)


def test_a_circuit_of_two_edges_is_an_mlp_between_two_norms() -> None:
    model, (sample,) = in_float64("llama"), random_samples(1, seed=3)
    attributor = Attributor(model)
    graph, layer = attributor.graph, model.model.layers[1]
    kept = {graph.number("input->m1"), graph.number("m1->logits")}
    with run_without(attributor, [sample], set(range(graph.size)) - kept) as said:
        pass
    wrote = layer.mlp(layer.post_attention_layernorm(model.get_input_embeddings()(torch.tensor(sample.fed))))
    expected = model.lm_head(model.model.norm(wrote))[sample.answer_start - 1 :]
    torch.testing.assert_close(said.logits[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reference", ["zero", "patch"])
@pytest.mark.parametrize("name", ["gemma2", "olmo2"])
def test_heads_behind_a_norm_are_removed_together_before_it(name: str, reference: Reference) -> None:
    with perturbed.InFloat64():
        model, samples = tiny(name), samples_with_counterparts(1, seed=5)
        attributor = Attributor(model, "heads")
        layer = model.model.layers[0]
        projection, norm = layer.self_attn.o_proj, layer.post_attention_layernorm
        seen: list[torch.Tensor] = []
        handle = projection.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        with handle, torch.no_grad():
            model(torch.tensor([samples[0].fed]))
            model(torch.tensor([samples[0].counterpart[: len(samples[0].fed)]]))  # type: ignore[index]
        left = seen[0].clone()
        for head in (1, 3):
            columns = slice(8 * head, 8 * head + 8)
            left[..., columns] = seen[1][..., columns] if reference == "patch" else 0
        change = norm(projection(left)) - norm(projection(seen[0]))
        moved = (layer.pre_feedforward_layernorm if name == "gemma2" else layer.mlp).register_forward_pre_hook(
            lambda module, args: (args[0] + change,)
        )
        with moved, torch.no_grad(), attributor.running(samples, nullcontext()) as expected:
            pass
        edges = [attributor.graph.number(f"a0.h{head}->m0") for head in (1, 3)]
        with run_without(attributor, samples, edges, find_references(attributor, reference, samples)) as said:
            torch.testing.assert_close(said.logits, expected.logits, rtol=1e-10, atol=1e-10)


# -- each of many edges ------------------------------------------------------------------------------------------------


def _one_by_one(attributor: Attributor, samples: list[Sample], edges: list[int], *how: object) -> np.ndarray:
    loss = how[:1]
    whole = loss_without(attributor, samples, [], *loss)  # type: ignore[arg-type]
    return np.stack([loss_without(attributor, samples, [edge], *how) - whole for edge in edges], 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "granularity", "reference", "loss", "batch_size"),
    [
        ("gemma2", "heads", "patch", "log-odds", 50),
        ("gemma2", "blocks", "zero", "nll", 1),
        ("gpt-neox", "projections", "mean", "margin", 4),
    ],
)
def test_many_edges_at_once_are_as_one_at_a_time(
    name: str, granularity: Granularity, reference: Reference, loss: Loss, batch_size: int
) -> None:
    with perturbed.InFloat64():
        attributor, samples = Attributor(tiny(name), granularity), samples_with_counterparts(3, seed=5)
        some = list(range(attributor.graph.size - 1, -1, -max(1, attributor.graph.size // 8)))
        references = find_references(attributor, reference, samples)
        found = effects(attributor, samples, some, loss, references, batch_size)
        expected = _one_by_one(attributor, samples, some, loss, references)
    assert all(attributor.resumable)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    assert (np.abs(expected) > 1e-6).mean() > 0.7


def test_where_layers_are_not_run_again_nothing_is() -> None:
    attributor, (sample,) = Attributor(tiny("llama")), random_samples(1, seed=2)
    ran: list[int] = []
    for place, layer in enumerate(attributor.model.model.layers):
        layer.mlp.register_forward_hook(lambda module, args, output, place=place: ran.append(place))
    assert all(attributor.resumable)
    graph = attributor.graph
    for name, after in (("m0->a2<q>", [2]), ("a1->m1", [1, 2]), ("m1->logits", []), ("input->a0<v>", [0, 1, 2])):
        ran.clear()
        effects(attributor, [sample], [graph.number(name)])
        assert ran == [0, 1, 2, *after]


def test_layers_that_put_something_by_for_later_ones_are_run_again() -> None:
    model, samples = tiny("llama"), random_samples(2, seed=6)
    layers, put_by = model.model.layers, {}
    layers[0].mlp.register_forward_hook(lambda module, args, output: put_by.update(a=output))
    layers[2].mlp.register_forward_hook(lambda module, args, output: output + put_by["a"].tanh())
    attributor = Attributor(model)
    assert attributor.resumable == (True, False, False, True)
    some = list(range(0, attributor.graph.size, 5))
    expected = _one_by_one(attributor, samples, some)
    np.testing.assert_allclose(effects(attributor, samples, some), expected, rtol=1e-5, atol=1e-9)


def test_on_a_linear_model_what_removal_does_is_the_score() -> None:
    model = tiny("llama")
    made_linear(model)
    attributor, samples = Attributor(model), random_samples(2, seed=5)
    graph = attributor.graph
    edges = [i for i, name in enumerate(graph.edges) if not name.endswith(("<q>", "<k>"))]
    found = effects(attributor, samples, edges)
    assert np.abs(found).min() > 1e-13
    np.testing.assert_allclose(found, attributor.score(samples).edges[:, edges], rtol=1e-3, atol=1e-14)


def test_what_was_found_is_not_found_again() -> None:
    attributor, samples = Attributor(tiny("llama")), random_samples(2)
    some = [5, 20, 40, 41]
    expected = effects(attributor, samples, some)
    found = np.full((2, 4), np.nan)
    found[:, 1] = 7
    said: list[int] = []
    effects(attributor, samples, some, progress=said.append, found=found)
    assert (found[:, 1] == 7).all()
    np.testing.assert_array_equal(found[:, [0, 2, 3]], expected[:, [0, 2, 3]])
    assert (said[0], said[-1]) == (2, 8)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    attributor, samples = Attributor(tiny("llama")), random_samples(1)
    attributor.model.model.layers[2].mlp.register_forward_hook(
        lambda module, args, output: output / (len(output) < 2)  # in a batch of removals alone
    )
    with pytest.raises(ModelError, match="not finite"):
        effects(attributor, samples, map(attributor.graph.number, ["input->a2<q>", "m0->a2<q>"]))
    assert not any("forward" in vars(module) for module in attributor.model.modules()), "all layers run again"


# -- files -------------------------------------------------------------------------------------------------------------


def test_files_of_effects_are_read_as_they_were_written_or_refused(tmp_path: Path) -> None:
    graph, rng = Attributor(tiny("llama"), "blocks").graph, np.random.default_rng(0)
    values = rng.normal(size=(2, 3)).astype(np.float32)
    method = Method("blocks", reference="mean", loss="margin")
    written = Effects(graph, ("a", "b"), tuple(graph.names([3, 1, 2])), values, values[:, 0], method)
    path = tmp_path / "effects.npz"
    write_effects(path, written)
    found = read_effects(path)
    assert (found.graph, found.ids, found.edges, found.method) == (graph, ("a", "b"), written.edges, method)
    np.testing.assert_array_equal(found.effects, values)
    np.testing.assert_array_equal(found.loss, values[:, 0])
    for wrong in (
        {"effects": values[:1]}, {"edges": ("m0->a0<qkv>",) * 3}, {"effects": values * np.nan}, {"loss": values},
    ):  # fmt: skip
        write_effects(path, replace(written, **wrong))
        with pytest.raises(ScoresError):
            read_effects(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ScoresError, match="not a complete file"):
        read_effects(path)
    with pytest.raises(ScoresError, match="There is no file"):
        read_effects(tmp_path / "none.npz")


def test_what_is_not_finished_is_there_for_whoever_goes_on_and_for_no_other(tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    with pytest.raises(RuntimeError), unfinished(out, ["a"], 2, 3) as found:
        assert np.isnan(found).all()
        found[1, 2] = 0.5
        raise RuntimeError
    with pytest.raises(RuntimeError), unfinished(out, ["a"], 2, 3) as found:
        assert found[1, 2] == 0.5
        assert np.isnan(found).sum() == 5
        raise RuntimeError
    with unfinished(out, ["b"], 2, 3) as found:
        assert np.isnan(found).all()
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(ScoresError, match="Cannot write"), unfinished(tmp_path / "none" / "out.npz", [], 1, 1):
        pass
