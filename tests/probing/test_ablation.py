"""Edges that are really removed, against the literal twin: an offset of minus what a writer wrote removes its edge.

The families' test does the same against the perturbed twin for all types.
"""

import numpy as np
import pytest
import torch

from probing.ablation import loss_without
from probing.architectures import Intervention, architecture_of, rewriting
from probing.attribution import Attributor
from probing.graph import Edge, Granularity
from tests import literal
from tests.tiny import LITERAL, in_float64, random_samples, tiny

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
