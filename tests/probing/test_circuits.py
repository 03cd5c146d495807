import io

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from probing.circuits import as_graphml, by_kind, by_layer, by_layer_and_kind, circuit, edge_table, strongest
from probing.metrics import Definition
from probing.residual_graph import graph_of
from probing.scores import Scores

GRAPH = graph_of(2)
QUICK = Definition(resamples=500)


@pytest.fixture
def pair() -> tuple[Scores, Scores]:
    rng = np.random.default_rng(0)
    made = []
    for scale in (1.0, 2.0):
        values = rng.normal(size=(30, *GRAPH.mask.shape)) * GRAPH.mask * scale
        made.append(Scores(GRAPH, tuple(map(str, range(30))), values.astype(np.float32), np.ones(30, np.float32)))
    return made[0], made[1]


def test_an_edges_row_holds_its_own_numbers(pair: tuple[Scores, Scores]) -> None:
    base, tuned = pair
    table = edge_table(base, tuned, QUICK).set_index("edge")
    assert list(table.index) == list(GRAPH.edges)
    row = table.loc["m0->a1<k>"]
    w, r = GRAPH.writers.index("m0"), GRAPH.readers.index("a1<k>")
    assert (row["writer"], row["reader"], row["node"], row["kind"], row["layer"]) == ("m0", "a1<k>", "a1", "k", 1)
    assert row["base_strength"] == pytest.approx(np.abs(base.scores[:, w, r]).mean(), rel=1e-5)
    assert row["tuned_effect"] == pytest.approx(tuned.scores[:, w, r].mean(), rel=1e-4)
    assert row["difference"] == pytest.approx(row["tuned_strength"] - row["base_strength"])
    assert row["ci_low"] < row["difference"] < row["ci_high"]
    assert (table["beyond_noise"] == ((table["ci_low"] > 0) | (table["ci_high"] < 0))).all()
    stronger = (table["base_strength"] > row["base_strength"]).sum()
    assert row["base_rank"] == stronger + 1


def test_samples_in_another_order_give_the_same_table(pair: tuple[Scores, Scores]) -> None:
    base, tuned = pair
    order = np.random.default_rng(1).permutation(30)
    shuffled = Scores(GRAPH, tuple(tuned.ids[i] for i in order), tuned.scores[order], tuned.loss[order])
    pd.testing.assert_frame_equal(edge_table(base, tuned, QUICK), edge_table(base, shuffled, QUICK))


def test_the_strongest_are_the_largest_in_size(pair: tuple[Scores, Scores]) -> None:
    table = edge_table(*pair, QUICK)
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
        expected = [np.abs(s.scores[:, :, columns])[:, mask].mean(1) for s in (base, tuned)]
        np.testing.assert_allclose(found[label][0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(found[label][1], expected[1], rtol=1e-5)
        assert found[label][2] == pytest.approx((expected[1] - expected[0]).mean(), rel=1e-4)


def test_a_circuit_is_acyclic_and_comes_back_from_graphml(pair: tuple[Scores, Scores]) -> None:
    table = edge_table(*pair, QUICK)
    graph = circuit(strongest(table, "tuned_strength", 15))
    assert nx.is_directed_acyclic_graph(graph)
    assert graph.number_of_edges() == 15
    again = nx.read_graphml(io.BytesIO(as_graphml(graph).encode()), force_multigraph=True)
    assert set(again.edges(keys=True)) == set(graph.edges(keys=True))
    for writer, node, name, attributes in graph.edges(keys=True, data=True):
        assert again.edges[writer, node, name] == attributes
