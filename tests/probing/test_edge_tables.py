import io
import json
import re
from dataclasses import replace
from itertools import product

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from probing.edge_tables import (
    EDGE_VALUES,
    by_kind,
    by_layer,
    by_layer_and_kind,
    changes,
    circuit,
    covering,
    edge_table,
    edge_values,
    strongest,
    through,
)
from probing.errors import CircuitError
from probing.exchange import as_eap_json, as_graphml, read_eap_json, read_graphml
from probing.graph import graph_of
from probing.metrics import Definition
from probing.scores import Scores

GRAPH = graph_of(2)
QUICK = Definition(resamples=500)


@pytest.fixture
def pair() -> tuple[Scores, Scores]:
    rng = np.random.default_rng(0)
    made = []
    for scale in (1.0, 2.0):
        values = rng.normal(size=(30, *GRAPH.mask.shape)) * GRAPH.mask * scale
        made.append(
            Scores(
                GRAPH, tuple(map(str, range(30))), GRAPH.to_edges(values.astype(np.float32)), np.ones(30, np.float32)
            )
        )
    return made[0], made[1]


def _table(base: Scores, tuned: Scores) -> pd.DataFrame:
    return edge_table(GRAPH, edge_values(base, tuned, QUICK))


def test_an_edges_row_holds_its_own_numbers(pair: tuple[Scores, Scores]) -> None:
    base, tuned = pair
    table = _table(base, tuned).set_index("edge")
    assert list(table.index) == list(GRAPH.edges)
    row = table.loc["m0->a1<k>"]
    w, r = GRAPH.writers.index("m0"), GRAPH.readers.index("a1<k>")
    assert (row["writer"], row["reader"], row["node"], row["kind"], row["layer"]) == ("m0", "a1<k>", "a1", "k", 1)
    assert row["base_strength"] == pytest.approx(np.abs(base.matrix()[:, w, r]).mean(), rel=1e-5)
    assert row["tuned_effect"] == pytest.approx(tuned.matrix()[:, w, r].mean(), rel=1e-4)
    assert row["difference"] == pytest.approx(row["tuned_strength"] - row["base_strength"])
    assert row["ci_low"] < row["difference"] < row["ci_high"]
    assert (table["beyond_noise"] == ((table["ci_low"] > 0) | (table["ci_high"] < 0))).all()
    stronger = (table["base_strength"] > row["base_strength"]).sum()
    assert row["base_rank"] == stronger + 1


def test_samples_in_another_order_give_the_same_table(pair: tuple[Scores, Scores]) -> None:
    base, tuned = pair
    order = np.random.default_rng(1).permutation(30)
    shuffled = Scores(GRAPH, tuple(tuned.ids[i] for i in order), tuned.edges[order], tuned.loss[order])
    pd.testing.assert_frame_equal(_table(base, tuned), _table(base, shuffled))


def test_the_strongest_are_the_largest_in_size(pair: tuple[Scores, Scores]) -> None:
    table = _table(*pair)
    chosen = strongest(table, "base_effect", 5)
    expected = sorted(table["base_effect"].abs(), reverse=True)[:5]
    assert list(chosen["base_effect"].abs()) == expected
    table["base_effect"] = 0.0
    assert strongest(table, "base_effect", 5).empty


def test_breakdowns_average_the_edges_into_each_group(pair: tuple[Scores, Scores]) -> None:
    base, tuned = pair
    by_hand = {
        "1": [r for r in GRAPH.readers if r.startswith(("a1", "m1"))],
        "q": ["a0<q>", "a1<q>"],
        "logits": ["logits"],
        "a1<v>": ["a1<v>"],
    }
    found = {}
    for breakdown in (by_layer(*pair, QUICK), by_kind(*pair, QUICK), by_layer_and_kind(*pair, QUICK)):
        for i, label in enumerate(breakdown.labels):
            found[label] = (breakdown.base[i], breakdown.tuned[i], breakdown.difference[i])
    for label, readers in by_hand.items():
        columns = [GRAPH.readers.index(r) for r in readers]
        mask = GRAPH.mask[:, columns]
        expected = [np.abs(s.matrix()[:, :, columns])[:, mask].mean(1) for s in (base, tuned)]
        np.testing.assert_allclose(found[label][0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(found[label][1], expected[1], rtol=1e-5)
        assert found[label][2] == pytest.approx((expected[1] - expected[0]).mean(), rel=1e-4)


def test_a_circuit_is_acyclic_and_comes_back_from_graphml(pair: tuple[Scores, Scores]) -> None:
    table = _table(*pair)
    graph = circuit(strongest(table, "tuned_strength", 15))
    assert nx.is_directed_acyclic_graph(graph)
    assert graph.number_of_edges() == 15
    again = nx.read_graphml(io.BytesIO(as_graphml(graph).encode()), force_multigraph=True)
    assert set(again.edges(keys=True)) == set(graph.edges(keys=True))
    for writer, node, name, attributes in graph.edges(keys=True, data=True):
        assert again.edges[writer, node, name] == attributes


def _made(rows: dict[str, tuple[float, float, float, float]]) -> pd.DataFrame:
    """An edge table with these effects of base and tuned, and these ends of the difference of strengths."""
    values = pd.DataFrame(0.0, index=range(len(GRAPH.edges)), columns=list(EDGE_VALUES))
    for edge, (base, tuned, low, high) in rows.items():
        i = GRAPH.edges.index(edge)
        values.loc[i, ["base_effect", "tuned_effect", "ci_low", "ci_high"]] = base, tuned, low, high
        values.loc[i, ["base_strength", "tuned_strength"]] = abs(base), abs(tuned)
        values.loc[i, ["effect_ci_low", "effect_ci_high"]] = tuned - base - 0.1, tuned - base + 0.1
    return edge_table(GRAPH, values)


def test_changes_by_hand() -> None:
    table = _made(
        {
            "input->m0": (3.0, 4.0, 0.5, 1.5),  # stays among the strongest, grows
            "m0->m1": (2.0, 0.1, -2.5, -1.5),  # leaves
            "m1->logits": (0.2, 3.0, 2.0, 3.5),  # enters
            "a0->m0": (0.3, -0.25, -0.2, 0.1),  # turns round
            "a0->m1": (0.02, -0.02, -0.01, 0.01),  # turns round within noise
        }
    )
    found = changes(table, 2).set_index(table["edge"])
    by_hand = {
        "gained": {"m1->logits"},
        "lost": {"m0->m1"},
        "strengthened": {"input->m0", "m1->logits"},
        "weakened": {"m0->m1"},
        "flipped": {"a0->m0"},
    }
    assert {name: set(found.index[found[name]]) for name in found} == by_hand


def test_covering_counts_the_strongest_edges_that_hold_a_share() -> None:
    table = _made({"input->m0": (5.0, 1, 0, 0), "m0->m1": (-3.0, 1, 0, 0), "a0->m1": (2.0, 1, 0, 0)})
    shares = {0.1: 1, 0.5: 1, 0.51: 2, 0.8: 2, 0.81: 3, 1.0: 3}
    assert {share: covering(table, "base_effect", share) for share in shares} == shares
    assert covering(_made({}), "base_effect", 0.5) == 0


@pytest.mark.parametrize("name", ["m0", "input", "logits", "a1", "m0->a1<k>", "a0->logits"])
def test_the_edges_through_a_node_or_edge_are_those_of_every_path(pair: tuple[Scores, Scores], name: str) -> None:
    shown = strongest(_table(*pair), "tuned_strength", 25)
    graph = nx.MultiDiGraph()
    for row in shown.itertuples():
        graph.add_edge(row.writer, row.node, key=row.edge)
    expected = set()
    for start, end in product(graph.nodes, graph.nodes):
        for path in nx.all_simple_edge_paths(graph, start, end) if start != end else ():
            nodes, edges = {start, *(e[1] for e in path)}, {e[2] for e in path}
            if name in edges or name in nodes:
                expected |= edges
    if "->" in name:
        expected &= _with_parallels_removed(graph, name, expected)
    assert through(shown, name) == expected


def _with_parallels_removed(graph: nx.MultiDiGraph, name: str, edges: set[str]) -> set[str]:
    """Edges beside the picked one, from its writer to its node, do not lie on a path through it."""
    writer, reader = name.split("->")
    beside = {e for w, n, e in graph.edges(keys=True) if (w, n) == (writer, reader.split("<")[0]) and e != name}
    return edges - beside


def test_eap_igs_json_comes_back_with_nothing_lost(pair: tuple[Scores, Scores]) -> None:
    values = edge_values(*pair, QUICK)
    values.loc[3, "ci_low"] = -np.inf  # a single question has no interval
    table = edge_table(GRAPH, values)
    shown = set(strongest(table, "tuned_strength", 12)["edge"])
    read = read_eap_json(as_eap_json(GRAPH, table, shown, width=96))
    assert read.graph == GRAPH
    assert read.members == shown
    again = edge_table(GRAPH, read.table[list(EDGE_VALUES)].fillna({"ci_low": -np.inf}))
    pd.testing.assert_frame_equal(again, table)
    np.testing.assert_array_equal(read.table["score"], table["tuned_effect"])


def test_eap_igs_json_has_the_nodes_and_edges_that_eap_ig_builds_from_its_cfg(pair: tuple[Scores, Scores]) -> None:
    content = json.loads(as_eap_json(GRAPH, _table(*pair), {"m0->a1<k>"}))
    cfg = content["cfg"]
    assert {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"} <= set(cfg)
    stream, edges = ["input"], set()
    for layer in range(cfg["n_layers"]):
        heads = [f"a{layer}.h{head}" for head in range(cfg["n_heads"])]
        edges |= {f"{w}->{h}<{p}>" for w in stream for h in heads for p in "qkv"}
        stream += heads
        edges |= {f"{w}->m{layer}" for w in stream}
        stream.append(f"m{layer}")
    edges |= {f"{w}->logits" for w in stream}
    assert set(content["edges"]) == edges
    assert set(content["nodes"]) == {*stream, "logits"}
    assert {name for name, node in content["nodes"].items() if node["in_graph"]} == {"m0", "a1.h0", "logits"}
    assert [name for name, edge in content["edges"].items() if edge["in_graph"]] == ["m0->a1.h0<k>"]


def test_a_circuit_with_attention_blocks_as_one_reader_comes_back_from_both_files(pair: tuple[Scores, Scores]) -> None:
    base, tuned = (replace(s, graph=s.graph.at("blocks"), edges=s.graph.merge(s.edges, "blocks")) for s in pair)
    table = edge_table(base.graph, edge_values(base, tuned, QUICK))
    assert set(table["kind"]) == {"qkv", "mlp", "logits"}
    shown = table[table["edge"].isin({"m0->a1<qkv>", "a1->logits"})]
    assert read_graphml(as_graphml(circuit(shown)).encode()) == set(shown["edge"])
    read = read_eap_json(as_eap_json(base.graph, table, set(shown["edge"])))
    assert (read.graph, read.members) == (base.graph, set(shown["edge"]))
    np.testing.assert_allclose(read.table.set_index("edge")["score"][table["edge"]], table["tuned_effect"], rtol=1e-6)
    assert by_kind(base, tuned, QUICK).labels == ("qkv", "mlp", "logits")


def test_the_edges_of_a_circuit_come_back_from_graphml(pair: tuple[Scores, Scores]) -> None:
    table = _table(*pair)
    shown = table.head(9)
    assert read_graphml(as_graphml(circuit(shown)).encode()) == set(shown["edge"])


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
    pair: tuple[Scores, Scores], changes: dict[str, str]
) -> None:
    shown = _table(*pair).head(9)
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


def test_a_graph_larger_than_its_file_is_not_made() -> None:
    with pytest.raises(CircuitError, match="not a circuit"):
        read_eap_json('{"cfg": {"n_layers": 1000000000, "parallel_attn_mlp": false}, "nodes": {}, "edges": {}}')


def test_heads_of_another_programs_circuit_are_merged() -> None:
    stream: list[str] = ["input"]
    edges = {}
    for layer in range(2):
        heads = [f"a{layer}.h{h}" for h in range(2)]
        edges |= {f"{w}->{h}<{p}>": {"score": 1.0, "in_graph": False} for w in stream for h in heads for p in "qkv"}
        stream += heads
        edges |= {f"{w}->m{layer}": {"score": 1.0, "in_graph": False} for w in stream}
        stream.append(f"m{layer}")
    edges |= {f"{w}->logits": {"score": 1.0, "in_graph": False} for w in stream}
    edges["a0.h1->a1.h0<q>"]["in_graph"] = True
    cfg = {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
    read = read_eap_json(json.dumps({"cfg": cfg, "nodes": {}, "edges": edges}))
    assert read.members == {"a0->a1<q>"}
    scores = read.table.set_index("edge")["score"]
    assert (scores["a0->a1<q>"], scores["a0->m1"], scores["m0->m1"]) == (4.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a circuit"),
        ("[1]", "not a circuit"),
        ('{"cfg": {"n_layers": 2}, "edges": {}}', "not a circuit"),
        (
            '{"cfg": {"n_layers": 2, "parallel_attn_mlp": false}, "nodes": {}, "edges": {}}',
            "not those of a model with 2",
        ),
    ],
)
def test_a_file_that_is_no_circuit_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(CircuitError, match=says):
        read_eap_json(text)


def test_a_breakdown_as_a_table_has_the_means(pair: tuple[Scores, Scores]) -> None:
    breakdown = by_kind(*pair, QUICK)
    table = breakdown.as_table().set_index("group")
    np.testing.assert_allclose(table["difference"], table["tuned"] - table["base"], rtol=1e-9)
    assert (table["ci_low"] <= table["difference"]).all()
