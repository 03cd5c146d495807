"""TransformerLens's names and edges, and what its own numbers say."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from probing.attribution import Attributor
from probing.errors import CircuitError
from probing.exchange import (
    CircuitFile,
    Hook,
    from_edge_scores,
    from_hook_frame,
    reader_at,
    reader_hooks,
    to_circuit_edges,
    to_edge_scores,
    to_hook_frame,
    writer_at,
    writer_hooks,
)
from probing.graph import Heads, ResidualGraph, graph_of
from probing.method import Method
from probing.scoring import attribute
from tests.transformer_lens import MODELS, NUMBERS, SAMPLE, made

TOLD = json.loads(NUMBERS.read_text())

HEADS = graph_of(2, False, "heads", (), (Heads(4, 2, True),) * 2)


@dataclass(frozen=True)
class Node:
    """TransformerLens's, as it documents it."""

    kind: str
    position: int
    layer: int | None = None
    head: int | None = None

    def __post_init__(self) -> None:
        of_heads = self.kind in ("attn_head_out", "q_input", "k_input", "v_input")
        assert of_heads == (self.head is not None)
        assert (self.kind == "embed") == (self.layer is None)
        assert of_heads or self.kind in ("embed", "mlp_out", "mlp_in", "logits")


def _circuit(graph: ResidualGraph, seed: int = 0) -> CircuitFile:
    rng = np.random.default_rng(seed)
    return CircuitFile(graph, rng.normal(size=graph.size), rng.random(graph.size) < 0.3)


def _their_scores() -> dict[tuple[Node, Node], float]:
    """The dictionary that `attribution_patch` gave, at every position."""
    return {
        (Node(writer[0], place, *writer[1:]), Node(reader[0], place, *reader[1:])): score
        for writer, reader, scores in TOLD["gpt2"]["edge_scores"]
        for place, score in enumerate(scores)
    }


def _check_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    """To what float32 explains: transformers computes norms in it whatever the weights are."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-6 * np.abs(theirs).max())


# -- what it computes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
def test_what_transformer_lens_has_at_the_hooks_makes_the_same_scores(name: str) -> None:
    attributor = Attributor(made(name), "heads")
    columns = ["sender_hook", "sender_head", "receiver_hook", "receiver_head", "score"]
    theirs = from_hook_frame(pd.DataFrame(TOLD[name]["zero"], columns=columns), attributor.graph)
    ours = attribute(attributor, [SAMPLE]).edges[0]
    assert np.abs(ours).min() > 0
    _check_equal(ours, theirs.scores)


def test_its_attribution_patching_finds_our_scores_against_a_counterpart() -> None:
    attributor = Attributor(made("gpt2"), "heads")
    theirs = from_edge_scores(_their_scores())
    assert theirs.graph == graph_of(2, False, "heads", (), (Heads(2, 2),) * 2)
    ours = attribute(attributor, [SAMPLE], method=Method(reference="patch")).edges[0]
    _check_equal(ours, theirs.within(attributor.graph).scores)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "writer", "reader", "sender", "receiver"),
    [
        (HEADS, "input", "a0.h1<q>", Hook("blocks.0.hook_resid_pre"), Hook("blocks.0.hook_q_input", 1)),
        (HEADS, "a0.h3", "a1.g1<v>", Hook("blocks.0.attn.hook_result", 3), Hook("blocks.1.hook_v_input", 1)),
        (HEADS, "a0.bias", "m1", Hook("blocks.0.attn.b_O"), Hook("blocks.1.hook_mlp_in")),
        (HEADS, "m1", "logits", Hook("blocks.1.hook_mlp_out"), Hook("blocks.1.hook_resid_post")),
        (graph_of(2), "a0", "a1<k>", Hook("blocks.0.hook_attn_out"), Hook("blocks.1.hook_k_input")),
        (graph_of(2).at("blocks"), "m0", "a1<qkv>", Hook("blocks.0.hook_mlp_out"), Hook("blocks.1.hook_attn_in")),
    ],
)
def test_a_writer_and_a_reader_are_at_these_hooks(
    graph: ResidualGraph, writer: str, reader: str, sender: Hook, receiver: Hook
) -> None:
    assert (writer_hooks(graph)[writer], reader_hooks(graph)[reader]) == (sender, receiver)
    assert writer_at(graph, sender.name, sender.head) == writer
    assert reader_at(graph, receiver.name, receiver.head) == reader


@pytest.mark.parametrize("graph", [HEADS, graph_of(3), graph_of(3, True).at("blocks"), graph_of(3, whole=(1,))])
def test_every_hook_is_one_writers_or_readers(graph: ResidualGraph) -> None:
    for hooks, names, at in (
        (writer_hooks(graph), graph.writers, writer_at),
        (reader_hooks(graph), graph.readers, reader_at),
    ):
        assert tuple(hooks) == names
        assert [at(graph, hook.name, hook.head) for hook in hooks.values()] == list(names)


def test_other_names_of_a_hook_are_known() -> None:
    assert writer_at(HEADS, "hook_embed") == "input"
    assert writer_at(HEADS, "blocks.1.attn.hook_z", 2) == "a1.h2"
    assert writer_at(graph_of(2), "blocks.1.attn.hook_out") == "a1"
    assert writer_at(graph_of(2), "blocks.1.mlp.hook_out") == "m1"
    assert reader_at(HEADS, "blocks.1.attn.hook_k_input", 1) == "a1.g1<k>"


@pytest.mark.parametrize(
    ("at", "name", "head", "says"),
    [
        (writer_at, "blocks.0.hook_mlp_in", None, "Nothing in this graph writes at 'blocks.0.hook_mlp_in'"),
        (writer_at, "blocks.0.attn.hook_result", 4, "of head 4"),
        (writer_at, "blocks.1.hook_resid_pre", None, "writes at"),
        (reader_at, "blocks.0.hook_resid_post", None, "reads at"),
        (reader_at, "blocks.0.hook_k_input", 2, "of head 2"),
    ],
)
def test_a_hook_that_is_nothing_here_is_refused(at: Any, name: str, head: int | None, says: str) -> None:
    with pytest.raises(CircuitError, match=says):
        at(HEADS, name, head)


@pytest.mark.parametrize("graph", [HEADS, graph_of(2, True), graph_of(2).at("blocks")])
def test_edges_by_hooks_come_back(graph: ResidualGraph) -> None:
    circuit = _circuit(graph)
    frame = to_hook_frame(circuit)
    read = from_hook_frame(frame.sample(frac=1, random_state=0), graph)
    np.testing.assert_array_equal(read.scores, circuit.scores)
    assert read.members == circuit.members
    assert not from_hook_frame(frame.drop(columns="in_circuit"), graph).members


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="sender_head"), "no column 'sender_head'"),
        (lambda f: f.drop(index=3), "'input->a0.h3<q>' is missing"),
        (lambda f: pd.concat([f, f[5:6]]), "'input->a0.g1<k>' is there twice"),
        (lambda f: f.assign(score=f["score"].mask(f.index == 2)), "'input->a0.h2<q>' has no finite score"),
        (lambda f: f.assign(sender_head="x"), "'sender_head' has something else"),
        (lambda f: f.assign(sender_head=np.inf), "something else than whole numbers"),
        (lambda f: f.assign(sender_head=1.5), "something else than whole numbers"),
        (lambda f: f.assign(sender_hook="hook_nothing"), "Nothing in this graph writes at 'hook_nothing'"),
        (lambda f: f.assign(sender_hook="blocks.1.hook_mlp_out", sender_head=None), "no edge 'm1->a0"),
    ],
)
def test_edges_by_hooks_that_are_not_the_graphs_are_refused(change: Any, says: str) -> None:
    with pytest.raises(CircuitError, match=says):
        from_hook_frame(change(to_hook_frame(_circuit(HEADS))), HEADS)


# -- its edges ---------------------------------------------------------------------------------------------------------


def test_its_own_edges_come_back() -> None:
    theirs = _their_scores()
    circuit = from_edge_scores(theirs)
    again = to_edge_scores(circuit, 5, Node)
    assert set(again) == set(theirs)
    np.testing.assert_allclose(from_edge_scores(again).scores, circuit.scores, rtol=1e-14)
    by_hand = sum(s for (w, r), s in theirs.items() if (w.kind, w.layer, r.kind) == ("mlp_out", 0, "logits"))
    assert circuit.scores[circuit.graph.number("m0->logits")] == pytest.approx(by_hand)


def test_heads_share_a_groups_edges_and_positions_share_all() -> None:
    circuit = _circuit(HEADS)
    edges = to_edge_scores(circuit, 3, Node)
    assert len(edges) == 3 * HEADS.ungrouped().size
    score = circuit.scores[HEADS.number("m0->a1.g1<k>")]
    for head in (2, 3):
        edge = (Node("mlp_out", 1, 0), Node("k_input", 1, 1, head))
        assert edges[edge] == pytest.approx(score / 6)
    parts = HEADS.ungrouped()
    back = from_edge_scores(edges).within(HEADS).scores
    there = np.unique(parts.places_in(HEADS))
    np.testing.assert_allclose(back[there], circuit.scores[there], rtol=1e-12)
    assert {HEADS.edges[k].split("->")[0] for k in set(range(HEADS.size)) - set(there)} == {"a0.bias", "a1.bias"}


def test_a_circuits_edges_are_kept_at_every_position() -> None:
    graph = HEADS.ungrouped()
    inside = np.isin(np.arange(graph.size), [graph.number("m0->a1.h2<v>"), graph.number("input->logits")])
    kept = to_circuit_edges(CircuitFile(graph, np.ones(graph.size), inside), 2, Node)
    assert set(kept) == {
        edge
        for place in (0, 1)
        for edge in (
            (Node("mlp_out", place, 0), Node("v_input", place, 1, 2)),
            (Node("embed", place), Node("logits", place, 1)),
        )
    }


def test_parallel_blocks_are_known_by_their_edges() -> None:
    graph = graph_of(2, True, "heads", (), (Heads(3, 3),) * 2)
    assert from_edge_scores(to_edge_scores(_circuit(graph), 2, Node)).graph == graph


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w, r, s: {} if (w.kind, r.kind, w.position) == ("embed", "logits", 1) else {(w, r): s}, "at all 5"),
        (lambda w, r, s: {} if (w.kind, r.kind) == ("embed", "logits") else {(w, r): s}, "no edge 'input->logits'"),
        (lambda w, r, s: {(w, r): float("nan")}, "no finite score"),
        (lambda w, r, s: {(r, w): s}, "at the wrong end"),
        (lambda w, r, s: {(w, Node("logits", 9, 1)): s}, "joins two positions"),
        (lambda w, r, s: {}, "no edge 'input->logits'"),
    ],
)
def test_edges_that_are_not_all_there_are_refused(change: Any, says: str) -> None:
    edges = {key: score for (w, r), s in _their_scores().items() for key, score in change(w, r, s).items()}
    with pytest.raises(CircuitError, match=says):
        from_edge_scores(edges)
