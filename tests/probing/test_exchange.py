"""Circuits as files of others, there and back."""

import io
import json
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.architectures import architecture_of
from probing.cli import main
from probing.edge_tables import EDGE_VALUES, circuit, edge_table, edge_values, strongest
from probing.errors import CircuitError
from probing.exchange import (
    CircuitFile,
    as_eap_json,
    as_graphml,
    read_eap_json,
    read_graphml,
    read_pt,
    write_pt,
)
from probing.graph import Heads, ResidualGraph, graph_of
from probing.metrics import Definition
from probing.scores import Scores, write_scores
from tests.tiny import TINY, tiny

GRAPH = graph_of(2)
QUICK = Definition(resamples=20)


def _scores(graph: ResidualGraph, seed: int = 0) -> Scores:
    edges = np.random.default_rng(seed).normal(size=(4, graph.size)).astype(np.float32)
    return Scores(graph, ("a", "b", "c", "d"), edges, np.ones(4, np.float32))


def _table(graph: ResidualGraph) -> pd.DataFrame:
    return edge_table(graph, edge_values(_scores(graph), _scores(graph, 1), QUICK))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return _table(GRAPH)


def _heads(*heads: Heads | None, parallel: bool = False, whole: tuple[int, ...] = ()) -> ResidualGraph:
    return graph_of(len(heads), parallel, "heads", whole, heads)


def _circuit(graph: ResidualGraph, seed: int = 0) -> CircuitFile:
    rng = np.random.default_rng(seed)
    return CircuitFile(graph, rng.normal(size=graph.size), rng.random(graph.size) < 0.3)


LAYER = st.none() | st.builds(
    lambda size, groups, bias: Heads(size * groups, groups, bias),
    st.integers(1, 3), st.integers(1, 3), st.booleans(),
)  # fmt: skip


@st.composite
def head_graphs(draw: st.DrawFn) -> ResidualGraph:
    """Graphs of heads: layers of different kinds, and some whose heads cannot be told apart."""
    heads = draw(st.lists(LAYER, max_size=4))
    whole = [layer for layer, one in enumerate(heads) if one is None and draw(st.booleans())]
    return _heads(*heads, parallel=draw(st.booleans()), whole=tuple(whole))


def expected(cfg: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The nodes and edges of EAP-IG's graph for a `cfg`, by its rules: heads, then the layer's MLP, then the next."""
    stream, edges = ["input"], []
    for layer in range(cfg["n_layers"]):
        heads = [f"a{layer}.h{head}" for head in range(cfg["n_heads"])]
        edges += [f"{writer}->{head}<{kind}>" for writer in stream for head in heads for kind in "qkv"]
        before_mlp = stream if cfg["parallel_attn_mlp"] else stream + heads
        edges += [f"{writer}->m{layer}" for writer in before_mlp]
        stream = [*stream, *heads, f"m{layer}"]
    return [*stream, "logits"], [*edges, *(f"{writer}->logits" for writer in stream)]


def check_for_eap_ig(text: str) -> dict[str, Any]:
    """What EAP-IG's `Graph.from_json` asks of a file, which is also what MIB's circuit track does; the content."""
    content = json.loads(text)
    cfg = content["cfg"]
    assert {name: type(value) for name, value in cfg.items()} == {
        "n_layers": int, "n_heads": int, "parallel_attn_mlp": bool, "d_model": int,
    }  # fmt: skip
    nodes, edges = expected(cfg)
    assert sorted(content["nodes"]) == sorted(nodes)
    assert sorted(content["edges"]) == sorted(edges)
    assert all(type(node["in_graph"]) is bool for node in content["nodes"].values())
    assert content["nodes"]["logits"]["in_graph"]
    for edge in content["edges"].values():
        assert (type(edge["score"]), type(edge["in_graph"])) == (float, bool)
    return content


# -- EAP-IG's JSON -----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(graph=head_graphs(), seed=st.integers(0, 99), width=st.integers(0, 9))
def test_every_graph_of_heads_makes_the_file_that_eap_ig_expects_and_comes_back(
    graph: ResidualGraph, seed: int, width: int
) -> None:
    whole = CircuitFile(**{**vars(_circuit(graph, seed)), "width": width})
    text = as_eap_json(whole)
    content = check_for_eap_ig(text)
    assert content["cfg"]["n_heads"] == max((one.queries for one in graph.heads if one), default=1)
    read = read_eap_json(text)
    assert (read.graph, read.width, read.members) == (graph, width, whole.members)
    np.testing.assert_allclose(read.scores, whole.scores, rtol=1e-14)
    np.testing.assert_array_equal(read.scores.astype(np.float32), whole.scores.astype(np.float32))


def test_grouped_heads_by_hand() -> None:
    graph = _heads(Heads(4, 2, bias=True))
    scores = np.arange(1.0, graph.size + 1)
    inside = np.zeros(graph.size, bool)
    inside[graph.number("input->a0.g1<k>")] = True
    content = check_for_eap_ig(as_eap_json(CircuitFile(graph, scores, inside)))
    edges = content["edges"]
    for group, heads in {"g0": ("h0", "h1"), "g1": ("h2", "h3")}.items():
        for head in heads:
            score = scores[graph.number(f"input->a0.{group}<k>")]
            assert edges[f"input->a0.{head}<k>"] == {"score": score / 2, "in_graph": group == "g1"}
    assert edges["a0.h3->m0"]["score"] == scores[graph.number("a0.h3->m0")]
    assert set(content["left_out"]) == {"a0.bias->m0", "a0.bias->logits"}
    assert content["left_out"]["a0.bias->m0"]["score"] == scores[graph.number("a0.bias->m0")]
    assert [name for name, node in content["nodes"].items() if node["in_graph"]] == [
        "input",
        "a0.h2",
        "a0.h3",
        "logits",
    ]


def test_a_block_whose_heads_cannot_be_told_apart_is_shared_by_all() -> None:
    graph = _heads(Heads(2, 2), None, None, whole=(2,))
    scores = np.ones(graph.size)
    edges = check_for_eap_ig(as_eap_json(CircuitFile(graph, scores, scores > 0)))["edges"]
    assert edges["m0->a1.h1<q>"]["score"] == 1 / 2
    assert edges["a1.h0->m1"]["score"] == 1 / 2
    assert edges["a1.h0->a2.h0<k>"]["score"] == 1 / (2 * 2 * 3)


def test_a_head_that_a_layer_has_not_scores_zero() -> None:
    graph = _heads(Heads(3, 3), Heads(2, 1))
    whole = CircuitFile(graph, np.ones(graph.size), np.ones(graph.size, bool))
    content = check_for_eap_ig(as_eap_json(whole))
    assert content["edges"]["m0->a1.h2<k>"] == content["edges"]["a1.h2->m1"] == {"score": 0.0, "in_graph": False}
    assert not content["nodes"]["a1.h2"]["in_graph"]


@pytest.mark.parametrize("heads", [(Heads(4, 2, True), None), (Heads(2, 2), Heads(2, 1, True))])
def test_values_beside_the_edges_come_back_exactly_from_heads(heads: tuple[Heads | None, ...]) -> None:
    graph = _heads(*heads)
    table = _table(graph)
    shown = CircuitFile.shown(graph, table, set(graph.edges[::5]))
    read = read_eap_json(as_eap_json(shown))
    assert read.members == set(graph.edges[::5])
    assert read.values is not None
    pd.testing.assert_frame_equal(read.values, table[list(EDGE_VALUES)])
    assert read_eap_json(as_eap_json(CircuitFile.shown(graph, table, [], beside=False))).values is None


def test_eap_igs_json_comes_back_with_nothing_lost(table: pd.DataFrame) -> None:
    values = table[list(EDGE_VALUES)].copy()
    values.loc[3, "ci_low"] = -np.inf  # a single question has no interval
    table = edge_table(GRAPH, values)
    shown = set(strongest(table, "tuned_strength", 12)["edge"])
    read = read_eap_json(as_eap_json(CircuitFile.shown(GRAPH, table, shown)))
    assert read.graph == GRAPH
    assert read.members == shown
    assert read.values is not None
    again = edge_table(GRAPH, read.values.fillna({"ci_low": -np.inf}))
    pd.testing.assert_frame_equal(again, table)
    np.testing.assert_array_equal(read.scores, table["tuned_effect"])


def test_projections_are_written_with_each_block_as_its_only_head(table: pd.DataFrame) -> None:
    content = check_for_eap_ig(as_eap_json(CircuitFile.shown(GRAPH, table, {"m0->a1<k>"}, beside=False)))
    assert content["cfg"]["n_heads"] == 1
    assert {name for name, node in content["nodes"].items() if node["in_graph"]} == {"m0", "a1.h0", "logits"}
    assert [name for name, edge in content["edges"].items() if edge["in_graph"]] == ["m0->a1.h0<k>"]
    full = json.loads(as_eap_json(CircuitFile.shown(GRAPH, table, set())))["edges"]["m0->a1.h0<k>"]
    row = table.set_index("edge").loc["m0->a1<k>"]
    assert full == {"score": row["tuned_effect"], "in_graph": False, **row[list(EDGE_VALUES)]}


def test_files_of_before_edges_were_tested_say_of_none_that_it_changed(table: pd.DataFrame) -> None:
    content = json.loads(as_eap_json(CircuitFile.shown(GRAPH, table, set())))
    for edge in content["edges"].values():
        for name in ("p", "q", "effect_p", "effect_q"):
            del edge[name]
    read = read_eap_json(json.dumps(content)).values
    assert read is not None
    pd.testing.assert_frame_equal(read[list(EDGE_VALUES[:8])], table[list(EDGE_VALUES[:8])])
    again = edge_table(GRAPH, read)
    assert not again[["changed", "flipped"]].any(axis=None)


@pytest.mark.parametrize("graph", [graph_of(3), graph_of(3, True), graph_of(3, whole=(1,)), graph_of(3).at("blocks")])
def test_files_of_before_edges_were_left_out_are_read(graph: ResidualGraph) -> None:
    whole = _circuit(graph)
    content = json.loads(as_eap_json(whole))
    del content["left_out"]
    read = read_eap_json(json.dumps(content))
    assert (read.graph, read.members) == (graph, whole.members)
    del content["graph"]
    if not graph.whole:
        assert read_eap_json(json.dumps(content)).within(graph).members == whole.members


def test_every_architectures_graph_comes_back_from_both_files() -> None:
    found = {architecture_of(tiny(name)).graph for name in TINY}
    for graph in found | {graph.at("blocks") for graph in found}:
        table = _table(graph)
        shown = set(graph.edges[::3])
        brought = read_eap_json(as_eap_json(CircuitFile.shown(graph, table, shown)))
        assert (brought.graph, brought.members) == (graph, shown)
        np.testing.assert_allclose(brought.scores, table["tuned_effect"])
        assert read_graphml(as_graphml(circuit(table[table["edge"].isin(shown)])).encode()) == shown


def theirs(layers: int, heads: int, parallel: bool = False) -> dict[str, Any]:
    """A file as EAP-IG writes it, each edge with a score of its own and every seventh in the circuit."""
    cfg = {"n_layers": layers, "n_heads": heads, "parallel_attn_mlp": parallel, "d_model": 8}
    nodes, edges = expected(cfg)
    return {
        "cfg": cfg,
        "nodes": {name: {"in_graph": True} for name in nodes},
        "edges": {name: {"score": float(k), "in_graph": k % 7 == 0} for k, name in enumerate(edges)},
    }


@pytest.mark.parametrize("parallel", [False, True])
def test_a_file_of_eap_igs_has_its_own_heads(parallel: bool) -> None:
    content = theirs(3, 4, parallel)
    read = read_eap_json(json.dumps(content))
    assert read.graph == _heads(*(Heads(4, 4),) * 3, parallel=parallel)
    assert read.members == {name for name, edge in content["edges"].items() if edge["in_graph"]}
    assert dict(zip(read.graph.edges, read.scores, strict=True)) == {
        name: edge["score"] for name, edge in content["edges"].items()
    }
    assert read.width == 8


def _merged(content: dict[str, Any], ours: Callable[[str], str]) -> tuple[dict[str, float], set[str]]:
    """The scores and the circuit of a file's edges, with their names in a coarser graph: by hand."""
    scores: dict[str, float] = {}
    for name, edge in content["edges"].items():
        scores[ours(name)] = scores.get(ours(name), 0.0) + edge["score"]
    return scores, {ours(name) for name, edge in content["edges"].items() if edge["in_graph"]}


def _in_pairs(name: str) -> str:
    """Heads 2g and 2g + 1 share keys and values."""
    return re.sub(r"\.h(\d+)<([kv])>", lambda found: f".g{int(found[1]) // 2}<{found[2]}>", name)


@pytest.mark.parametrize(
    ("graph", "ours"),
    [
        (_heads(*(Heads(4, 2),) * 3), _in_pairs),
        (graph_of(3), lambda name: re.sub(r"\.h\d+", "", name)),
        (graph_of(3).at("blocks"), lambda name: re.sub(r"<.>", "<qkv>", re.sub(r"\.h\d+", "", name))),
    ],
)
def test_heads_of_another_programs_circuit_are_merged(graph: ResidualGraph, ours: Callable[[str], str]) -> None:
    content = theirs(3, 4)
    read = read_eap_json(json.dumps(content)).within(graph)
    scores, members = _merged(content, ours)
    assert dict(zip(graph.edges, read.scores, strict=True)) == scores
    assert read.members == members


def test_a_graph_with_biases_takes_a_circuit_without() -> None:
    graph = _heads(*(Heads(4, 2, True),) * 3)
    content = theirs(3, 4)
    read = read_eap_json(json.dumps(content)).within(graph)
    scores, members = _merged(content, _in_pairs)
    found = dict(zip(graph.edges, read.scores, strict=True))
    assert {name: score for name, score in found.items() if ".bias" not in name} == scores
    assert {score for name, score in found.items() if ".bias" in name} == {0.0}
    assert read.members == members


@pytest.mark.parametrize(
    "graph",
    [
        graph_of(2), graph_of(4), graph_of(3, parallel=True), _heads(*(Heads(8, 4),) * 3), _heads(*(Heads(2, 2),) * 3),
    ],
)  # fmt: skip
def test_a_circuit_of_another_model_is_refused_with_a_sentence(graph: ResidualGraph) -> None:
    read = read_eap_json(json.dumps(theirs(3, 4)))
    with pytest.raises(CircuitError, match="3 layers, 4 heads in each"):
        read.within(graph)
    with pytest.raises(CircuitError, match="nor a finer one"):
        _circuit(graph_of(3)).within(_heads(*(Heads(2, 2),) * 3))


def test_a_graph_larger_than_its_file_is_not_made() -> None:
    for cfg in (
        {"n_layers": 1000000000, "parallel_attn_mlp": False},
        {"n_layers": 2, "n_heads": 10**9, "parallel_attn_mlp": False},
    ):
        with pytest.raises(CircuitError, match="not a circuit"):
            read_eap_json(json.dumps({"cfg": cfg, "nodes": {}, "edges": theirs(2, 2)["edges"]}))
    text = _heads(*(Heads(1024, 1024),) * 1000).as_text()
    with pytest.raises(CircuitError, match="not a circuit"):
        read_eap_json(json.dumps(theirs(2, 2) | {"graph": text}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["edges"].pop("m0->m1"), "'m0->m1' differs"),
        (lambda c: c["edges"].update({"m1->m0": {"score": 0, "in_graph": False}}), "'m1->m0' differs"),
        (lambda c: c["cfg"].update(n_heads=3), "2 layers and 3 heads"),
        (lambda c: c["cfg"].update(parallel_attn_mlp=True), "differs"),
        (lambda c: c["edges"]["m0->m1"].update(score=float("nan")), "'m0->m1' has no finite score"),
        (lambda c: c["edges"]["m0->m1"].pop("score"), "not a circuit"),
        (lambda c: c.update(edges=list(c["edges"])), "not a circuit"),
        (lambda c: c.pop("cfg"), "not a circuit"),
        (lambda c: c.update(graph="{}"), "not a circuit"),
    ],
)
def test_a_file_that_is_no_circuit_is_refused_with_a_sentence(
    change: Callable[[dict[str, Any]], object], says: str
) -> None:
    content = theirs(2, 2)
    change(content)
    with pytest.raises(CircuitError, match=says):
        read_eap_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[1]", "null", '{"cfg": {"n_layers": 2}, "edges": {}}', "[" * 100_000])
def test_what_is_not_such_json_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(CircuitError, match="not a circuit"):
        read_eap_json(text)


# -- EAP-IG's .pt ------------------------------------------------------------------------------------------------------


def _pt(layers: int = 2, heads: int = 3, parallel: bool = False) -> dict[str, Any]:
    """What EAP-IG's `Graph.to_pt` saves, from the names and their places as it documents them."""
    cfg = {"n_layers": layers, "n_heads": heads, "parallel_attn_mlp": parallel, "d_model": 16}
    nodes, edges = expected(cfg)
    into: list[str] = []
    for layer in range(layers):
        into += [f"a{layer}.h{head}<{kind}>" for kind in "qkv" for head in range(heads)] + [f"m{layer}"]
    into.append("logits")
    scores, inside = torch.zeros(len(nodes) - 1, len(into)), torch.zeros(len(nodes) - 1, len(into), dtype=torch.bool)
    for k, name in enumerate(edges):
        writer, _, reader = name.partition("->")
        scores[nodes.index(writer), into.index(reader)] = k + 0.5
        inside[nodes.index(writer), into.index(reader)] = k % 5 == 0
    return {
        "cfg": cfg, "src_nodes": nodes[:-1], "dst_nodes": into, "edges_scores": scores, "edges_in_graph": inside,
        "nodes_in_graph": torch.ones(len(nodes) - 1, dtype=torch.bool),
    }  # fmt: skip


@pytest.mark.parametrize("parallel", [False, True])
def test_a_pt_of_eap_igs_is_read(parallel: bool, tmp_path: Path) -> None:
    torch.save(_pt(parallel=parallel), tmp_path / "c.pt")
    read = read_pt(tmp_path / "c.pt")
    assert read.graph == _heads(*(Heads(3, 3),) * 2, parallel=parallel)
    _, edges = expected({"n_layers": 2, "n_heads": 3, "parallel_attn_mlp": parallel})
    assert dict(zip(read.graph.edges, read.scores, strict=True)) == {name: k + 0.5 for k, name in enumerate(edges)}
    assert read.members == set(edges[::5])
    assert read.width == 16


def as_eap_ig_reads(path: Path) -> tuple[dict[str, float], set[str], set[str]]:
    """Every edge's score, the circuit's edges and its nodes, by the names that EAP-IG's places have.

    What `Graph.from_pt` asks of a file: it is loaded with PyTorch's defaults, has these keys, and its matrices have the
    shape of the graph of its `cfg`, where a node's row and column follow from its layer and head.
    """
    content = torch.load(path)
    cfg, scores, inside = content["cfg"], content["edges_scores"], content["edges_in_graph"]
    layers, heads = cfg["n_layers"], cfg["n_heads"]
    assert set(cfg) == {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"}
    rows, columns = 1 + layers * (heads + 1), layers * (3 * heads + 1) + 1
    assert scores.shape == inside.shape == (rows, columns)
    assert content["nodes_in_graph"].shape == (rows,)
    assert inside.dtype == content["nodes_in_graph"].dtype == torch.bool
    nodes, edges = expected(cfg)
    assert content["src_nodes"] == nodes[:-1]

    def row(name: str) -> int:
        found = re.fullmatch(r"a(\d+)\.h(\d+)|m(\d+)|input", name)
        assert found
        if name == "input":
            return 0
        layer, place = (found[1], int(found[2])) if found[1] else (found[3], heads)
        return 1 + int(layer) * (heads + 1) + place

    def column(name: str) -> int:
        found = re.fullmatch(r"a(\d+)\.h(\d+)<([qkv])>|m(\d+)|logits", name)
        assert found
        if name == "logits":
            return columns - 1
        layer, place = (found[1], "qkv".index(found[3]) * heads + int(found[2])) if found[1] else (found[4], 3 * heads)
        assert content["dst_nodes"][int(layer) * (3 * heads + 1) + place] == name
        return int(layer) * (3 * heads + 1) + place

    places = {name: (row(name.partition("->")[0]), column(name.partition("->")[2])) for name in edges}
    elsewhere = torch.ones_like(inside)
    for place in places.values():
        elsewhere[place] = False
    assert not scores[elsewhere].any()
    assert not inside[elsewhere].any()
    there = {name for name, on in zip(nodes, content["nodes_in_graph"].tolist(), strict=False) if on}
    assert all(set(re.sub("<.>", "", name).split("->")) <= there | {"logits"} for name in edges if inside[places[name]])
    members = {name for name, place in places.items() if inside[place]}
    return {name: scores[place].item() for name, place in places.items()}, members, there


@settings(max_examples=60)
@given(graph=head_graphs(), seed=st.integers(0, 99), width=st.integers(0, 9))
def test_every_graph_of_heads_makes_the_pt_that_eap_ig_expects_and_comes_back(
    graph: ResidualGraph, seed: int, width: int
) -> None:
    whole = CircuitFile(**{**vars(_circuit(graph, seed)), "width": width})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.pt"
        write_pt(path, whole)
        scores, members, _ = as_eap_ig_reads(path)
        read = read_pt(path)
    records = json.loads(as_eap_json(whole))["edges"]
    assert scores == pytest.approx({name: edge["score"] for name, edge in records.items()}, rel=1e-14)
    assert members == {name for name, edge in records.items() if edge["in_graph"]}
    assert (read.graph, read.width, read.members, read.values) == (graph, width, whole.members, None)
    np.testing.assert_allclose(read.scores, whole.scores, rtol=1e-14)
    np.testing.assert_array_equal(read.scores.astype(np.float32), whole.scores.astype(np.float32))


@pytest.mark.parametrize(
    ("graph", "name", "theirs"),
    [
        (_heads(Heads(4, 2, bias=True)), "input->a0.g1<k>", {"input->a0.h2<k>": 0.5, "input->a0.h3<k>": 0.5}),
        (graph_of(2), "m0->a1<v>", {"m0->a1.h0<v>": 1.0}),
        (graph_of(2, whole=(1,)), "m0->a1<qkv>", {f"m0->a1.h0<{kind}>": 1 / 3 for kind in "qkv"}),
        (graph_of(2).at("blocks"), "a0->m1", {"a0.h0->m1": 1.0}),
    ],
)
def test_a_pt_has_a_score_where_it_belongs_and_the_values_come_back(
    graph: ResidualGraph, name: str, theirs: dict[str, float], tmp_path: Path
) -> None:
    table = _table(graph)
    shown = CircuitFile.shown(graph, table, {name})
    score = table.set_index("edge").loc[name, "tuned_effect"]
    write_pt(tmp_path / "c.pt", shown)
    scores, members, nodes = as_eap_ig_reads(tmp_path / "c.pt")
    assert members == set(theirs)
    assert {edge: scores[edge] for edge in theirs} == pytest.approx({edge: score * of for edge, of in theirs.items()})
    assert nodes == {node for edge in theirs for node in re.sub("<.>", "", edge).split("->")}
    read = read_pt(tmp_path / "c.pt")
    assert (read.graph, read.members) == (graph, {name})
    assert read.values is not None
    pd.testing.assert_frame_equal(read.values, table[list(EDGE_VALUES)])


@pytest.mark.parametrize(
    "change",
    [
        {"graph": _heads(Heads(4, 2, bias=True)).as_text()},
        {"graph": "{}"},
        {"graph": 3},
        {"left_out": {}},
        {"left_out": {"scores": torch.zeros(4), "in_graph": torch.zeros(3, dtype=torch.bool)}},
        {"values": torch.zeros(5, len(EDGE_VALUES))},
        {"values": "all"},
    ],
)
def test_a_pt_of_ours_whose_parts_do_not_fit_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    write_pt(tmp_path / "c.pt", _circuit(_heads(Heads(4, 2, bias=True), None)))
    torch.save(torch.load(tmp_path / "c.pt") | change, tmp_path / "c.pt")
    with pytest.raises(CircuitError, match="do not fit together"):
        read_pt(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"edges_scores": torch.zeros(9, 20)},
        {"edges_scores": torch.zeros(9, 21, dtype=torch.complex64)},
        {"edges_scores": torch.zeros(1).expand(9, 21)},
        {"edges_scores": torch.zeros(9, 21, device="meta")},
        {"edges_scores": torch.zeros(9, 21).to_sparse()},
        {"edges_scores": [[0.0] * 21] * 9},
        {"edges_in_graph": torch.zeros(9, 22, dtype=torch.bool)},
        {"nodes_in_graph": torch.zeros(8, dtype=torch.bool)},
        {"src_nodes": [f"m{k}" for k in range(9)]},
        {"dst_nodes": None},
        {"cfg": {"n_layers": 10**9, "n_heads": 3, "parallel_attn_mlp": False, "d_model": 1}},
        {"cfg": {"n_layers": 2, "n_heads": 0, "parallel_attn_mlp": False, "d_model": 1}},
        {"cfg": {"n_layers": 2}},
        {"cfg": None},
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_pt_whose_parts_do_not_fit_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    torch.save(_pt() | change, tmp_path / "c.pt")
    with pytest.raises(CircuitError, match="do not fit together"):
        read_pt(tmp_path / "c.pt")


def test_a_pt_with_an_infinite_score_is_refused(tmp_path: Path) -> None:
    content = _pt()
    content["edges_scores"][0, -1] = torch.inf
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CircuitError, match="not finite"):
        read_pt(tmp_path / "c.pt")


class _Malicious:
    """Would make a file where it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (self.trace,)  # type: ignore[return-value]


def test_a_pickle_that_would_run_something_is_refused_and_does_not(tmp_path: Path) -> None:
    trace = tmp_path / "was-run"
    torch.save(_pt() | {"cfg": _Malicious(trace)}, tmp_path / "c.pt")
    with pytest.raises(CircuitError, match="asks to run code") as refused:
        read_pt(tmp_path / "c.pt")
    assert "\n" not in str(refused.value)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(_Malicious(trace)))
    with pytest.raises(CircuitError, match="not a circuit"):
        read_pt(tmp_path / "bare.pt")
    assert not trace.exists()
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert trace.exists(), "it would have"


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path: Path) -> None:
    torch.save(_pt(), tmp_path / "c.pt")
    with (
        zipfile.ZipFile(tmp_path / "c.pt") as archive,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in archive.infolist():
            bomb.writestr(member.filename, archive.read(member))
        bomb.writestr("c/data/99", bytes(2**24))
    with pytest.raises(CircuitError, match="would unpack"):
        read_pt(tmp_path / "bomb.pt")
    with pytest.raises(CircuitError, match="no file"):
        read_pt(tmp_path / "none.pt")


def test_the_pages_read_and_write_circuits_without_pytorch() -> None:
    code = "import sys, dashboard.exchange; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_pt_becomes_json_and_graphml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(_pt(), tmp_path / "c.pt")
    for kind in ("json", "graphml"):
        assert main(["convert", str(tmp_path / "c.pt"), "--out", str(tmp_path / f"c.{kind}")]) == 0
    _, edges = expected(_pt()["cfg"])
    assert f"{len(edges)} edges, {len(edges[::5])} of them in the circuit" in capsys.readouterr().out
    content = check_for_eap_ig((tmp_path / "c.json").read_text())
    assert {name for name, edge in content["edges"].items() if edge["in_graph"]} == set(edges[::5])
    assert content["cfg"] == _pt()["cfg"]
    assert read_graphml((tmp_path / "c.graphml").read_bytes()) == set(edges[::5])


def test_scores_become_a_submission_of_their_strongest_edges(tmp_path: Path) -> None:
    graph = _heads(*(Heads(4, 2, True),) * 2)
    scores = _scores(graph)
    write_scores(tmp_path / "s.npz", scores)
    assert (
        main(["convert", str(tmp_path / "s.npz"), "--out", str(tmp_path / "c.json"), "--top", "9", "--width", "8"]) == 0
    )
    content = check_for_eap_ig((tmp_path / "c.json").read_text())
    assert content["cfg"]["d_model"] == 8
    mean = {name: float(score) for name, score in zip(graph.edges, scores.edges.astype(float).mean(0), strict=True)}
    assert content["edges"]["m0->m1"]["score"] == pytest.approx(mean["m0->m1"])
    read = read_eap_json((tmp_path / "c.json").read_text())
    assert read.members == set(sorted(mean, key=lambda name: -abs(mean[name]))[:9])
    assert main(["convert", str(tmp_path / "c.json"), "--out", str(tmp_path / "d.json"), "--top", "4"]) == 0
    assert len(read_eap_json((tmp_path / "d.json").read_text()).members) == 4


@pytest.mark.parametrize(
    ("source", "out", "says"),
    [
        ("c.pt", "c.txt", "not written as '.txt'"),
        ("none.json", "c.json", "Cannot read"),
        ("c.pt", "no/c.json", "Cannot"),
    ],
)
def test_what_cannot_be_converted_is_said(
    source: str, out: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(_pt(), tmp_path / "c.pt")
    assert main(["convert", str(tmp_path / source), "--out", str(tmp_path / out)]) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


# -- GraphML -----------------------------------------------------------------------------------------------------------


def test_a_circuit_is_acyclic_and_comes_back_from_graphml(table: pd.DataFrame) -> None:
    graph = circuit(strongest(table, "tuned_strength", 15))
    assert nx.is_directed_acyclic_graph(graph)
    assert graph.number_of_edges() == 15
    again = nx.read_graphml(io.BytesIO(as_graphml(graph).encode()), force_multigraph=True)
    assert set(again.edges(keys=True)) == set(graph.edges(keys=True))
    for writer, node, name, attributes in graph.edges(keys=True, data=True):
        assert again.edges[writer, node, name] == attributes


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "changes",
    [
        {r' attr\.type="\w+"': ""},  # keys without types
        {r'"d(\d+)"': r'"key\1"'},
        {r' xmlns="[^"]*"': ""},
        {r'(attr\.name="writer"[^/]*) />': r"\1><default>input</default></key>", r'<data key="d0">input</data>': ""},
        {r"<edge ": '<!-- <edge source="x"/> --><edge '},
    ],
)
def test_graphml_that_another_program_wrote_again_holds_the_same_edges_and_nothing_is_warned_of(
    table: pd.DataFrame, changes: dict[str, str]
) -> None:
    shown = table.head(9)
    text = as_graphml(circuit(shown))
    for written, by_others in changes.items():
        text, found = re.subn(written, by_others, text)
        assert found
    assert read_graphml(text.encode()) == set(shown["edge"])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<graphml",
        b'<graphml><graph><edge source="a" target="b"/></graph></graphml>',
        b'<graphml><graph><edge source="a" target="b"><data key="d0">x</data></edge></graph></graphml>',
        b"\xff\xfe<\x00g\x00",
        b'<!DOCTYPE g [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;">]><graphml>&c;</graphml>',
        b'<!DOCTYPE graphml SYSTEM "file:///etc/passwd"><graphml/>',
        b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"/></graphml>',
    ],
)
def test_graphml_of_something_else_is_refused_with_a_sentence(text: bytes) -> None:
    with pytest.raises(CircuitError, match="GraphML"):
        read_graphml(text)
