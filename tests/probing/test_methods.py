"""Estimates other than the paper's, against the literal twin: losses, references, exact norms, integrated gradients."""

from contextlib import nullcontext
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.architectures import HeadOutputs, Written
from probing.architectures.taps import given as taps_given
from probing.architectures.taps import replaced
from probing.attribution import Attributor, Predictions, find_references
from probing.errors import ModelError, SequenceError
from probing.graph import Edge, Granularity
from probing.method import Loss, Method, Reference
from probing.scoring import attribute, score
from probing.sequences import Sample
from tests import literal, perturbed
from tests.tiny import TINY, in_float64, random_samples, samples_with_counterparts, tiny

GRANULARITIES: list[Granularity] = ["projections", "heads"]

ROUNDED = 1e-7
"""Relative difference of scores that are kept in float32."""

MODELS = ["llama, biases, tied", "qwen3"]


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return in_float64(request.param)


@pytest.mark.parametrize("loss", get_args(Loss))
@pytest.mark.parametrize("path", ["eap", "norm-exact"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_loss_and_path_scores_as_the_literal_twin_does(
    model: torch.nn.Module, granularity: Granularity, path: str, loss: Loss
) -> None:
    attributor, samples = Attributor(model, granularity), random_samples(2)
    graph, method = attributor.graph, Method(granularity, path, loss=loss)
    found = attributor.score(samples, method)
    for i, sample in enumerate(samples):
        expected = literal.scores(
            model, sample, graph.writers, graph.readers, loss=loss, exact_norms=path == "norm-exact"
        )
        assert _relative(found.matrix()[i], expected.numpy()) < 1e-10
        np.testing.assert_allclose(found.loss[i], literal.run(model, sample)[0].item(), rtol=1e-6)


@pytest.mark.parametrize("path", ["eap", "norm-exact"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_against_a_counterpart_a_writers_change_is_what_it_writes_there(
    model: torch.nn.Module, granularity: Granularity, path: str
) -> None:
    attributor, samples = Attributor(model, granularity), samples_with_counterparts(2)
    graph = attributor.graph
    found = attribute(attributor, samples, method=Method(granularity, path, "patch")).matrix()
    for i, sample in enumerate(samples):
        there = literal.run(model, replace(sample, input_ids=sample.counterpart))[1]
        how = {"instead": there, "exact_norms": path == "norm-exact"}
        expected = literal.scores(model, sample, graph.writers, graph.readers, **how).numpy()
        assert _relative(found[i], expected) < ROUNDED


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_mean_is_over_all_samples_and_the_positions_that_they_feed(
    model: torch.nn.Module, granularity: Granularity
) -> None:
    attributor, samples = Attributor(model, granularity), random_samples(5, seed=3)
    graph = attributor.graph
    written = [literal.run(model, sample)[1] for sample in samples]
    means = {name: torch.cat([each[name] for each in written]).mean(0) for name in graph.writers}
    found = attribute(attributor, samples, batch_size=2, method=Method(granularity, reference="mean")).matrix()
    for i, sample in enumerate(samples):
        expected = literal.scores(model, sample, graph.writers, graph.readers, instead=means).numpy()
        assert _relative(found[i], expected) < ROUNDED


@pytest.mark.parametrize("reference", get_args(Reference))
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_edges_really_removed_change_every_loss_as_in_the_literal_twin(
    granularity: Granularity, reference: Reference
) -> None:
    model = in_float64("qwen3")
    attributor, samples = Attributor(model, granularity), samples_with_counterparts(3, seed=4)
    graph, method = attributor.graph, Method(granularity, "exact", reference, "log-odds")
    found = {
        made.method.loss: made
        for made in score(attributor, samples, method, find_references(attributor, reference, samples))
    }
    assert set(found) == set(get_args(Loss)), "one pass tells them all"
    written = [literal.run(model, sample)[1] for sample in samples]
    means = {name: torch.cat([each[name] for each in written]).mean(0) for name in graph.writers}
    there = literal.run(model, replace(samples[1], input_ids=samples[1].counterpart))[1]
    for loss, made in found.items():
        whole = literal.run(model, samples[1], loss=loss)[0]
        moved = 0
        for number in range(0, graph.size, 5 if granularity == "projections" else 23):
            edge = Edge.of(graph.edges[number])
            instead = {"zero": 0, "mean": means[edge.writer.name], "patch": there[edge.writer.name]}[reference]
            change = instead - written[1][edge.writer.name]
            without = literal.run(model, samples[1], {edge.reader.name: change}, loss=loss)[0]
            assert made.edges[1, number] == pytest.approx(float(without - whole), rel=1e-5, abs=1e-7), edge.name
            moved += abs(float(without - whole)) > 1e-4
        assert moved > 5
        np.testing.assert_allclose(made.loss[1], literal.run(model, samples[1])[0].item(), rtol=1e-6)


@pytest.mark.parametrize("reference", ["zero", "patch"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_integrated_gradients_are_means_over_points_on_the_embeddings_way(
    model: torch.nn.Module, granularity: Granularity, reference: str
) -> None:
    attributor, samples = Attributor(model, granularity), samples_with_counterparts(2, seed=4)
    graph, steps = attributor.graph, 3
    found = attribute(attributor, samples, method=Method(granularity, "eap-ig", reference, steps=steps)).matrix()
    for i, sample in enumerate(samples):
        clean = literal.run(model, sample)[1]["input"]
        there = literal.run(model, replace(sample, input_ids=sample.counterpart))[1] if reference == "patch" else {}
        start = there.get("input", torch.zeros_like(clean))
        expected = sum(
            literal.scores(
                model,
                sample,
                graph.writers,
                graph.readers,
                instead=there,
                embedding=start + k / steps * (clean - start),
            )
            for k in (1, 2, 3)
        )
        assert _relative(found[i], expected.numpy() / steps) < ROUNDED


def test_integrated_gradients_of_one_step_are_attribution_patching() -> None:
    attributor, samples = Attributor(tiny("gemma2")), random_samples(3)
    one = attributor.score(samples, Method(path="eap-ig", steps=1))
    np.testing.assert_array_equal(one.edges, attributor.score(samples).edges)


class _Changes(Written):
    """Minus what each writer writes, heads apart."""

    def __init__(self) -> None:
        self.of: dict[int, torch.Tensor] = {}

    def wrote(self, writer: int, output: torch.Tensor) -> None:
        self.of[writer] = -output.clone()

    def divided(self, writers: range, outputs: HeadOutputs, whole: torch.Tensor) -> None:
        parts = whole.new_empty(whole.shape[0], len(writers), *whole.shape[1:])
        outputs.write(parts)
        self.of |= {writer: -parts[:, i] for i, writer in enumerate(writers)}


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", TINY)
def test_exact_norms_are_the_differences_that_the_models_own_norms_make(name: str, granularity: Granularity) -> None:
    """All readers behind a norm together: its module run on both residuals, and autograd's gradient there."""
    with perturbed.InFloat64():
        attributor, (sample,) = Attributor(tiny(name), granularity), random_samples(1, seed=6)
        found = attributor.score([sample], Method(granularity, "norm-exact")).matrix()[0]
        tangents = attributor.score([sample]).matrix()[0]
        graph, changes = attributor.graph, _Changes()
        attributor.watch([sample], changes)
        for readers, reading in [*attributor.architecture.readings, attributor.architecture.last_reading]:
            before = graph.writers_before[readers.start]
            scores = found[:before, list(readers)].sum(1)
            if reading.norm.kind == "none":
                np.testing.assert_allclose(found[:, list(readers)], tangents[:, list(readers)], rtol=1e-9, atol=1e-12)
                continue
            residual, gradient = _at_norm(attributor, sample, reading.place)
            norm = reading.place.forward
            expected = [
                float((gradient * (norm(residual + changes.of[i].view(residual.shape)) - norm(residual))).sum())
                for i in range(before)
            ]
            np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


def _at_norm(attributor: Attributor, sample: Sample, norm: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What a norm reads at last, and the gradient of the loss at what it gives out."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = norm.register_forward_hook(lambda module, args, output: seen.append((args[0].clone(), output)))
    first = attributor.architecture.blocks[0].layer.register_forward_pre_hook(
        lambda module, args, kwargs: replaced(args, kwargs, taps_given(args, kwargs).requires_grad_()), with_kwargs=True
    )
    with torch.enable_grad(), handle, first, attributor.running([sample], nullcontext()) as said:
        residual, output = seen[-1]
        (gradient,) = torch.autograd.grad(said.losses().sum(), output)
    return residual.detach(), gradient


def test_in_float32_a_change_that_leaves_nothing_of_the_residual_is_told_exactly() -> None:
    sample, method = random_samples(1, seed=2)[0], Method(path="norm-exact")
    exact = literal.scores(in_float64("llama"), sample, *_names("llama"), exact_norms=True).numpy()
    found = Attributor(tiny("llama", torch.float32)).score([sample], method).matrix()[0]
    np.testing.assert_allclose(found[0, :4], exact[0, :4], rtol=2e-4, atol=1e-5 * np.abs(exact).max())
    assert _relative(found, exact) < 1e-5


def _names(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    graph = Attributor(tiny(name)).graph
    return graph.writers, graph.readers


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_score_does_not_depend_on_the_batch_it_sat_in(name: str) -> None:
    attributor, samples = Attributor(tiny(name)), samples_with_counterparts(3, seed=7)
    for method in (Method(path="norm-exact", reference="patch"), Method(path="eap-ig", loss="log-odds")):
        references = find_references(attributor, method.reference, samples)
        together = attributor.score(samples, method, references).edges
        alone = [attributor.score([sample], method, references).edges[0] for sample in samples]
        np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-9)


def test_scores_by_position_add_up_whatever_the_method() -> None:
    attributor, (sample,) = Attributor(tiny("llama"), "heads"), samples_with_counterparts(1, seed=8)
    for method in (Method("heads", "norm-exact", "patch", "margin"), Method("heads", "eap-ig")):
        references = find_references(attributor, method.reference, [sample])
        apart = attributor.score_positions(sample, method, references)
        np.testing.assert_allclose(apart.sum(0), attributor.score([sample], method, references).edges[0], rtol=1e-5)


def test_a_norm_that_is_not_known_is_not_taken_exactly() -> None:
    model = tiny("llama")
    model.model.layers[1].post_attention_layernorm.forward = torch.tanh
    attributor = Attributor(model)
    assert attributor.score(random_samples(1)).edges.any()
    with pytest.raises(ModelError, match="before 'm1' is no norm that is known"):
        attributor.score(random_samples(1), Method(path="norm-exact"))


def test_a_reference_of_counterparts_needs_some() -> None:
    attributor = Attributor(tiny("llama"))
    with pytest.raises(ValueError, match="of zero, and the method's of mean"):
        attributor.score(random_samples(1), Method(reference="mean"))
    with pytest.raises(SequenceError, match="'s0' has no counterpart"):
        attribute(attributor, random_samples(1), method=Method(reference="patch"))
    with pytest.raises(SequenceError, match="its counterpart 2"):
        attribute(attributor, [replace(random_samples(1)[0], counterpart=(1, 2))], method=Method(reference="patch"))


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=6), st.data())
@settings(max_examples=50, deadline=None)
def test_losses_are_what_they_are_called(logits: list[float], data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(logits) - 1))
    values = torch.tensor([[logits]], dtype=torch.float64, requires_grad=True)
    said = Predictions(values, [Sample("s", (0, token), 1, 1)], torch.ones(1, 1, dtype=torch.float64))
    others = [value for place, value in enumerate(logits) if place != token]
    assert said.losses("margin").item() == pytest.approx(max(others) - logits[token])
    p = values.softmax(-1)[0, 0, token].item()
    if 1e-9 < p < 1 - 1e-9:
        assert said.losses("nll").item() == pytest.approx(-np.log(p))
        assert said.losses("log-odds").item() == pytest.approx(-np.log(p / (1 - p)), abs=1e-6)
        (nll,), (odds,) = (torch.autograd.grad(said.losses(loss).sum(), values) for loss in ("nll", "log-odds"))
        torch.testing.assert_close(odds * (1 - p), nll, rtol=1e-6, atol=1e-12)
    assert said.agreement(said.targets).item() == float(int(np.argmax(logits)) == token)


def test_a_method_is_a_value_that_says_in_what_it_differs_from_the_papers() -> None:
    every = Method("heads", "eap-ig", "mean", "margin", "shared", 7)
    assert Method.from_json(every.as_json()) == every
    assert every.words == [
        "heads apart", "integrated gradients (7 steps)", "against each writer's mean", "margin as loss",
        "both on the base's answers",
    ]  # fmt: skip
    assert Method(path="eap-ig").as_json()["steps"] == 5
    assert "steps" not in Method(path="norm-exact").as_json()
    assert Method(steps=7) == Method() != Method("blocks") != Method("blocks", "eap-ig")
    for row in ({"reference": "resample"}, {"method": "relp"}, {"method": "eap-ig", "steps": 0}, {"loss": ["nll"]}):
        with pytest.raises(ValueError, match=r"no such|no number"):
            Method.from_json(row)
    several = (Method(), Method(path="norm-exact", reference="mean"), every, Method(path="exact"))
    assert [method.passes(9) for method in several] == [1, 1.5, 7.5, 5]
