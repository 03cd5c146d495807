"""Models whose answer is known: pairs that differ in one part, and a transformer whose circuit was written by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from transformers import GPT2LMHeadModel

from benchmarks.planted import area, recall
from benchmarks.removal import with_counterparts
from probing.ablation import loss_without
from probing.attribution import Attributor
from probing.checkpoints import find
from probing.graph import graph_of
from probing.models import load_model, load_tokenizer
from probing.sequences import Sample
from probing.zoo import induction, planted, task

HELD_OUT = [task.Problem(347, 285), task.Problem(9128, 4976), task.Problem(55555, 66666), task.Problem(808, 191)]


@pytest.mark.parametrize("node", ["a2.h1", "m4"])
def test_a_planted_pair_differs_in_its_plant_alone_and_that_matters(zoo: Path, node: str) -> None:
    checkpoint = find(str(zoo / "base"))
    base, tokenizer = load_model(checkpoint, torch.device("cpu"), torch.float32), load_tokenizer(checkpoint)
    tuned = planted.plant(base, tokenizer, node, steps=4)
    width = base.config.hidden_size // base.config.num_attention_heads
    layer, head = int(node[1]), slice(int(node[-1]) * width, (int(node[-1]) + 1) * width)
    for (name, before), after in zip(base.named_parameters(), tuned.parameters(), strict=True):
        changed = before != after
        allowed = torch.zeros_like(changed)
        if node[0] == "m" and f"layers.{layer}.mlp" in name:
            allowed[:] = True
        elif node[0] == "a" and f"layers.{layer}.self_attn" in name:
            allowed[(slice(None), head) if "o_proj" in name else head] = True
        assert not (changed & ~allowed).any(), name
        assert changed[allowed].float().mean() > 0.9 or not allowed.any(), name
    samples = planted.demonstrations(HELD_OUT, tokenizer)
    assert tokenizer.decode(samples[0].scored) == "12 13 06 632</s>"
    before, after = (loss_without(Attributor(model), samples, []) for model in (base, tuned))
    assert after.mean() < 0.85 * before.mean()


def test_first_edges_are_counted_that_touch_the_plant() -> None:
    graph = graph_of(2)
    size = np.zeros(graph.size)
    size[[graph.number(name) for name in ("m0->a1<q>", "a0->m0", "input->m1", "a1->logits")]] = [4, 3, 2, 1]
    rest = np.setdiff1d(np.arange(graph.size), [*graph.into("m0"), *graph.out_of("m0")])
    size[rest[size[rest] == 0][:6]] = 0.5
    assert recall(size, graph, "m0") == 0.2


def test_counterparts_are_others_of_the_same_shape() -> None:
    shapes = {"a": (5, 3), "b": (5, 3), "c": (6, 3), "d": (5, 2), "e": (5, 3), "f": (6, 3), "g": (7, 3)}
    samples = [Sample(name, tuple(range(i, i + n)), start, 2) for i, (name, (n, start)) in enumerate(shapes.items())]
    tokens = {sample.id: sample.input_ids for sample in samples}
    paired = {sample.id: sample.counterpart for sample in with_counterparts(samples)}
    assert paired == {"a": tokens["b"], "b": tokens["e"], "c": tokens["f"], "e": tokens["a"], "f": tokens["c"]}


def test_the_area_is_that_of_the_rank_sum_test() -> None:
    rng = np.random.default_rng(0)
    scores, true = rng.integers(-4, 5, 60), rng.random(60) < 0.3
    expected = mannwhitneyu(np.abs(scores[true]), np.abs(scores[~true])).statistic / (true.sum() * (~true).sum())
    assert area(scores, true.tolist()) == pytest.approx(expected)
    assert 0.2 < expected < 0.8


@pytest.fixture(scope="module")
def by_hand() -> GPT2LMHeadModel:
    return induction.hand_built()


def test_the_model_written_by_hand_continues_what_it_has_read(by_hand: GPT2LMHeadModel) -> None:
    for sample in induction.sequences(20, seed=1):
        first, second = sample.input_ids[: induction.LENGTH], sample.input_ids[induction.LENGTH :]
        assert first == second
        assert len(set(first)) == induction.LENGTH
        said = by_hand(torch.tensor([sample.fed])).logits[0].argmax(-1)
        assert said[sample.answer_start - 1 :].tolist() == list(sample.scored)


def test_its_two_heads_attend_where_they_should(by_hand: GPT2LMHeadModel) -> None:
    (sample,) = induction.sequences(1, seed=2)
    by_hand.set_attn_implementation("eager")
    early, late = by_hand(torch.tensor([sample.fed]), output_attentions=True).attentions
    by_hand.set_attn_implementation("sdpa")
    place = torch.arange(1, len(sample.fed))
    assert early[0, 0, place, place - 1].min() > 0.9
    again = torch.arange(induction.LENGTH + 1, len(sample.fed))
    assert late[0, 0, again, again - induction.LENGTH + 1].min() > 0.9
    assert early[0, 1:, place, place - 1].mean() < 0.3
    assert late[0, 1:, again, again - induction.LENGTH + 1].mean() < 0.3


def test_its_circuits_edges_are_needed_and_no_others(by_hand: GPT2LMHeadModel) -> None:
    attributor, samples = Attributor(by_hand, "heads"), induction.sequences(6)
    assert set(attributor.graph.edges) > induction.CIRCUIT
    whole = loss_without(attributor, samples, [])
    assert whole.max() < 0.1
    chance = np.log(induction.VOCABULARY)
    for number, name in enumerate(attributor.graph.edges):
        effect = (loss_without(attributor, samples, [number]) - whole).mean()
        assert (effect > 0.8 * chance) if name in induction.CIRCUIT else (-0.08 < effect < 0.01), (name, effect)
    others = [number for number, name in enumerate(attributor.graph.edges) if name not in induction.CIRCUIT]
    assert loss_without(attributor, samples, others).max() < 0.1


def test_what_has_no_use_is_there(by_hand: GPT2LMHeadModel) -> None:
    """A graph in which all other edges carried nothing would be no trial."""
    sample = induction.sequences(1)[0]
    states = by_hand.transformer(torch.tensor([sample.fed]), output_hidden_states=True).hidden_states
    written = states[1] - states[0]
    answerable = written @ by_hand.lm_head.weight.T
    assert written.norm(dim=-1).mean() > 0.7
    assert answerable.abs().max() < 1e-3
