"""Circuits that are run, against the literal twin reading only what a circuit lets through; and the areas, by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

from probing import cli
from probing.attribution import ZERO, Attributor, find_references
from probing.extraction import SHARES, circuits
from probing.faithfulness import MEASURES, run_circuits
from probing.graph import Granularity, ResidualGraph
from probing.method import Loss, Reference
from probing.metrics import Definition, areas, curve
from probing.scores import write_scores
from probing.scoring import attribute
from probing.sequences import Sample, write_samples
from tests import literal
from tests.tiny import in_float64, samples_with_counterparts, tiny

CASES: list[tuple[Granularity, Reference]] = [("projections", "patch"), ("heads", "mean"), ("heads", "zero")]


def _stand_ins(model: torch.nn.Module, samples: list[Sample], reference: Reference) -> list[dict[str, torch.Tensor]]:
    """What stands in for each writer of each sample: biases go with a reference of zero and stay with the others."""
    written = [literal.run(model, sample)[1] for sample in samples]
    if reference == "zero":
        return [{name: torch.zeros_like(output) for name, output in each.items()} for each in written]
    if reference == "mean":
        means = {name: torch.cat([each[name] for each in written]).mean(0) for name in written[0]}
        return [{name: means[name].expand_as(output) for name, output in each.items()} for each in written]
    there = [replace(sample, input_ids=sample.counterpart) for sample in samples]
    return [literal.run(model, sample)[1] for sample in there]


def _by_hand(
    model: torch.nn.Module, sample: Sample, inside: set[str], graph: ResidualGraph, instead: dict[str, torch.Tensor]
) -> tuple[dict[str, float], torch.Tensor]:
    """Losses and logits of the twin: reader after reader, what the circuit keeps out is replaced in what it reads."""
    offsets: dict[str, torch.Tensor] = {}
    known = 0
    for reader, before in zip(graph.readers, graph.writers_before, strict=True):
        if before != known:  # more has been written since
            written, known = literal.run(model, sample, offsets)[1], before
        out = [name for name in graph.writers[:before] if f"{name}->{reader}" not in inside]
        offsets[reader] = sum((instead[name] - written[name] for name in out), torch.zeros_like(written["input"]))
    losses = {loss: float(literal.run(model, sample, offsets, loss=loss)[0]) for loss in get_args(Loss)}
    return losses, literal.run(model, sample, offsets)[2]


@pytest.mark.parametrize(("granularity", "reference"), CASES)
def test_a_circuit_is_the_literal_twin_that_reads_only_what_is_inside(
    granularity: Granularity, reference: Reference
) -> None:
    model, samples = in_float64("llama, biases, tied"), samples_with_counterparts(2, seed=1)
    attributor = Attributor(model, granularity)
    graph = attributor.graph
    made = circuits(graph, np.random.default_rng(0).standard_normal(graph.size), "top", "magnitude", [0, 0.3, 0.7, 1])
    found = run_circuits(attributor, samples, made, find_references(attributor, reference, samples), batch_size=1)
    instead = _stand_ins(model, samples, reference)
    for place, sample in enumerate(samples):
        positions = range(sample.answer_start - 1, sample.answer_start - 1 + sample.answer_length)
        answer = literal.run(model, sample)[2][positions].argmax(-1)
        for row, inside in enumerate(made):
            names = set(graph.names(np.flatnonzero(inside)))
            losses, logits = _by_hand(model, sample, names, graph, instead[place])
            assert found["loss"][row, place] == pytest.approx(losses["nll"], rel=1e-6)
            assert found["margin"][row, place] == pytest.approx(-losses["margin"], rel=1e-5)
            assert found["log-odds"][row, place] == pytest.approx(-losses["log-odds"], rel=1e-5)
            agreement = float((logits[positions].argmax(-1) == answer).double().mean())
            if inside.any() or reference != "zero":  # without anything no token is more likely than another
                assert found["agreement"][row, place] == pytest.approx(agreement)
    assert np.ptp(found["loss"], axis=0).min() > 1e-3
    assert found["agreement"][:-1].min() < 1


def test_all_edges_are_the_model_to_the_bit_and_none_the_sum_of_what_stands_in() -> None:
    attributor, samples = Attributor(tiny("qwen3", torch.float32)), samples_with_counterparts(4, seed=1)
    graph, model = attributor.graph, attributor.model
    none, whole = np.zeros(graph.size, bool), np.ones(graph.size, bool)
    references = find_references(attributor, "patch", samples)
    found = run_circuits(attributor, samples, np.array([none, whole]), references, batch_size=4)
    for batch in attributor.batches(samples, 4):
        own = attributor.score([samples[place] for place in batch]).loss
        np.testing.assert_array_equal(found["loss"][1, batch], own)
    np.testing.assert_array_equal(found["agreement"][1], 1)
    for place, sample in enumerate(samples):  # the head reads what the model writes on the counterpart
        with torch.no_grad():
            tokens = replace(sample, input_ids=sample.counterpart).fed
            logits = model(torch.tensor([tokens])).logits[0, sample.answer_start - 1 :].log_softmax(-1)
        expected = -logits[range(sample.answer_length), sample.scored].mean()
        assert found["loss"][0, place] == pytest.approx(float(expected), rel=1e-4)


def test_circuits_do_not_depend_on_what_they_run_with() -> None:
    attributor, samples = Attributor(tiny("gemma2"), "heads"), samples_with_counterparts(5, seed=1)
    scores = np.random.default_rng(3).standard_normal(attributor.graph.size)
    made = circuits(attributor.graph, scores, "greedy", "magnitude", [0.1, 0.4, 0.4])
    told: list[tuple[int, int]] = []
    together = run_circuits(attributor, samples, made, ZERO, None, lambda done, total: told.append((done, total)))
    alone = [run_circuits(attributor, samples[2:3], row[None], ZERO) for row in made]
    for measure in MEASURES:
        np.testing.assert_array_equal(together[measure][1], together[measure][2])
        for row, found in enumerate(alone):
            np.testing.assert_allclose(found[measure][0, 0], together[measure][row, 2], rtol=1e-5)
    assert told[0] == (0, 15), "both sizes and the whole model, five samples each"
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# -- curves ------------------------------------------------------------------------------------------------------------


def test_areas_are_the_trapezoids_that_one_adds_up_by_hand() -> None:
    shares, f = [0.0, 0.1, 0.5, 1.0], np.array([0.0, 0.2, 1.5, 1.0])
    found = areas(f, shares)
    assert found["CPR"] == pytest.approx(0.4 * (0.2 + 1.5) / 2 + 0.5 * (1.5 + 1) / 2)
    assert found["CMD"] == pytest.approx(0.4 * (0.8 + 0.5) / 2 + 0.5 * (0.5 + 0) / 2)
    wide, narrow = np.log(5) / np.log(10), np.log(2) / np.log(10)
    assert found["CPR over log k"] == pytest.approx(wide * 0.85 + narrow * 1.25)
    assert found["CMD over log k"] == pytest.approx(wide * 0.65 + narrow * 0.25)
    assert areas(np.ones(2), [0.0, 1.0]) == {}


def test_over_mibs_sizes_a_faithful_circuit_has_mibs_areas() -> None:
    assert list(areas(np.ones(len(SHARES)), SHARES).values()) == pytest.approx([0.999, 0, 1, 0])
    f = np.random.default_rng(0).normal(size=len(SHARES))
    assert areas(f, SHARES)["CPR"] == pytest.approx(trapezoid(f, SHARES))
    assert areas(f, SHARES)["CMD"] == pytest.approx(trapezoid(abs(1 - f), SHARES))


def test_a_curve_is_of_means_over_questions_and_its_intervals_are_paired() -> None:
    rng, shares = np.random.default_rng(2), [0.0, 0.01, 0.1, 1.0]
    whole = rng.normal(3, 1, 80)
    none, some = whole - rng.uniform(2, 4, 80), whole * 0.5 + rng.normal(0, 0.3, 80)
    definition = Definition(resamples=3000)
    values = np.array([none, some, (some + whole) / 2, whole])
    found = curve(values, none, whole, shares, definition)
    gain = (some.mean() - none.mean()) / (whole.mean() - none.mean())
    assert [f.value for f in found.f] == pytest.approx([0, gain, (1 + gain) / 2, 1])
    assert (found.f[-1].low, found.f[-1].high) == (1, 1)
    drawn = [rng.integers(0, 80, 80) for _ in range(3000)]
    f = np.array(
        [[(row[d].mean() - none[d].mean()) / (whole[d].mean() - none[d].mean()) for row in values] for d in drawn]
    )
    for place in (1, 2):
        ends = np.quantile(f[:, place], [0.025, 0.975])
        np.testing.assert_allclose([found.f[place].low, found.f[place].high], ends, atol=0.012)
    for name, height in {"CPR": f[:, 1:], "CMD": abs(1 - f[:, 1:])}.items():
        ends = np.quantile(trapezoid(height, shares[1:], axis=1), [0.025, 0.975])
        np.testing.assert_allclose([found.areas[name].low, found.areas[name].high], ends, atol=0.01)
    assert found.reaches(1) == 3
    assert found.reaches(gain - 0.01) == 1
    turned = curve(-values, -none, -whole, shares, definition)
    assert turned.f[1].low == pytest.approx(found.f[1].low, abs=0.01)
    assert turned.areas["CPR"] == found.areas["CPR"]


def test_where_the_model_is_no_better_than_nothing_there_is_no_interval() -> None:
    whole = np.random.default_rng(0).normal(size=30)
    none = whole - np.linspace(-1, 1.1, 30)
    found = curve(np.array([none, whole + 1, whole]), none, whole, [0.0, 0.5, 1.0], Definition(resamples=200))
    assert np.isfinite(found.f[1].value)
    assert not np.isfinite([found.f[1].low, found.areas["CPR"].high]).any()
    nowhere = curve(np.array([whole]), none, none, [1.0], Definition(resamples=200)).f[0]
    assert not np.isfinite([nowhere.value, nowhere.low, nowhere.high]).any()


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("circuit")
    model, samples = tiny("llama", torch.float32), samples_with_counterparts(4, seed=1)
    model.save_pretrained(folder / "model")
    write_samples(folder / "samples.jsonl", samples)
    scores = attribute(Attributor(model), samples[:3])
    write_scores(folder / "scores.npz", scores)
    other = attribute(Attributor(tiny("gpt-neox", torch.float32)), samples[:1])
    write_scores(folder / "other.npz", other)
    return {name: folder / name for name in ("model", "samples.jsonl", "scores.npz", "other.npz")}


def _circuit(files: dict[str, Path], scores: str, *more: object) -> int:
    given = ["circuit", files["model"], "--sequences", files["samples.jsonl"], "--scores", files[scores]]
    return cli.main([*map(str, given), "--device", "cpu", *map(str, more)])


def test_the_command_prints_the_curve_and_what_it_depends_on(
    files: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    how = ("--extract", "greedy", "--by", "score", "--reference", "patch", "--random", 2, "--keep", 0.05, 0.5)
    assert _circuit(files, "scores.npz", *how, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    about = [told[name] for name in ("reference", "granularity", "positions", "extraction", "best", "measure")]
    assert about == ["patch", "projections", "all", "greedy", "score", "margin"]
    assert told["scored"] == {"samples": 3, "of_these": 3}
    assert [row["share"] for row in told["sizes"]] == [0, 0.05, 0.5, 1]
    assert [row["f"]["value"] for row in told["sizes"]][::3] == [0, 1]
    assert [told["sizes"][row]["edges"] for row in (0, 3)] == [0, told["edges"]]
    assert told["sizes"][2]["random"]["low"] < told["sizes"][2]["random"]["high"]
    ks, f = zip(*((row["share"], row["f"]["value"]) for row in told["sizes"][1:]), strict=True)
    assert told["areas"]["CPR"]["value"] == pytest.approx(trapezoid(f, ks))
    assert _circuit(files, "scores.npz", *how, "--loss", "nll") == 0
    out = capsys.readouterr().out
    assert "reference: patch" in out
    assert "greedy score" in out
    assert len([line for line in out.splitlines() if line.strip()[:1].isdigit()]) == 4


def test_scores_of_another_graph_are_refused_in_a_sentence(
    files: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    assert _circuit(files, "other.npz") == 2
    err = capsys.readouterr().err
    assert "another graph than this model's" in err
    assert err.count("\n") == 1
