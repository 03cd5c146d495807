"""The slow twins are held to each other, to themselves and to the loss, with nothing that is fast in between."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from torch import nn
from transformers import PreTrainedModel

from probing.graph import Granularity, Heads, Reader, ResidualGraph, graph_of
from tests import literal, perturbed
from tests.tiny import LITERAL, TINY, random_samples, tiny

HEADS, EXACT = 4, 1e-9

_BIASED = ("llama, biases, tied", "gpt2", "gpt-neox", "gpt-neox, in sequence")
_EACH_ITS_OWN = ("gpt2", "gpt-neox", "gpt-neox, in sequence")
_SAMPLE = random_samples(1, seed=8)[0]


def _heads(name: str) -> ResidualGraph:
    heads = Heads(HEADS, HEADS if name in _EACH_ITS_OWN else 2, name in _BIASED)
    return graph_of(3, name == "gpt-neox", "heads", heads=(heads,) * 3)


def _perturbed(
    name: str, graph: ResidualGraph, change: Callable[[PreTrainedModel], None] = lambda model: None
) -> np.ndarray:
    with perturbed.InFloat64():
        model = tiny(name)
        change(model)
        layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        return perturbed.scores(model, list(layers), _SAMPLE, graph.writers, graph.readers).numpy()


def _literal(name: str, graph: ResidualGraph) -> np.ndarray:
    return literal.scores(tiny(name), _SAMPLE, graph.writers, graph.readers).numpy()


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("granularity", ["heads", "projections"])
@pytest.mark.parametrize("name", LITERAL)
def test_the_two_twins_agree(name: str, granularity: Granularity) -> None:
    graph = _heads(name).at(granularity)
    expected = _literal(name, graph)
    assert _difference(_perturbed(name, graph), expected) < EXACT
    np.testing.assert_array_equal(expected != 0, graph.mask)


@pytest.mark.parametrize("name", TINY)
def test_scores_of_a_blocks_heads_add_up_to_the_blocks(name: str) -> None:
    fine = _heads(name)
    coarse = fine.at("projections")
    heads, expected = _perturbed(name, fine), _perturbed(name, coarse)
    summed = np.zeros_like(expected)
    for row, writer in zip(heads, fine.writer_records, strict=True):
        for score, reader in zip(row, fine.reader_records, strict=True):
            whole = Reader(reader.block, reader.kind).name
            summed[coarse.writers.index(writer.block), coarse.readers.index(whole)] += score
    assert _difference(summed, expected) < EXACT


@pytest.mark.parametrize("name", ["llama, biases, tied", "qwen3"])
def test_a_heads_score_is_the_slope_of_the_loss_as_the_edge_is_removed(name: str) -> None:
    model, graph = tiny(name), _heads(name)
    found = literal.scores(model, _SAMPLE, graph.writers, graph.readers)
    _, written, _ = literal.run(model, _SAMPLE)
    edges = ["m0->a1.h2<q>", "a0.h3->a1.g0<k>", "a0.h0->a1.g1<v>", "a1.h1->m1", "a1.h2->a2.h0<q>", "a2.h3->logits"]
    if name in _BIASED:
        edges += ["a0.bias->a1.g1<v>", "a1.bias->m2"]
    for edge in edges:
        writer, reader = edge.split("->")
        step = 1e-5
        less, more = (literal.run(model, _SAMPLE, {reader: sign * step * written[writer]})[0] for sign in (-1, 1))
        slope = float((less - more) / (2 * step))
        assert abs(slope) > 1e-6
        score = float(found[graph.writers.index(writer), graph.readers.index(reader)])
        assert score == pytest.approx(slope, rel=1e-4, abs=1e-7), edge


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite"])
def test_heads_that_change_places_take_their_scores_with_them(name: str) -> None:
    """The groups of layer 1 do, each with its two heads: rows of q, k and v, and columns of the output projection."""
    graph = _heads(name)

    def exchange(model: PreTrainedModel) -> None:
        attention = model.model.layers[1].self_attn
        for matrix in (*(getattr(attention, f"{kind}_proj").weight for kind in "qkv"), attention.o_proj.weight.T):
            matrix.copy_(matrix.roll(len(matrix) // 2, 0))

    exchanged = {"h0": "h2", "h1": "h3", "h2": "h0", "h3": "h1", "g0": "g1", "g1": "g0"}
    writers = [replace(w, part=exchanged[w.part]).name if w.layer == 1 and w.part else w.name
               for w in graph.writer_records]  # fmt: skip
    readers = [replace(r, part=exchanged[r.part]).name if r.layer == 1 and r.part else r.name
               for r in graph.reader_records]  # fmt: skip
    before, after = _perturbed(name, graph), _perturbed(name, graph, exchange)
    places = np.ix_([graph.writers.index(w) for w in writers], [graph.readers.index(r) for r in readers])
    assert _difference(after, before[places]) < EXACT
    assert _difference(after, before) > 0.01, "the twins would notice heads in each other's places"
