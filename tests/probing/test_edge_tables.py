from itertools import product

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, permutation_test

from probing.edge_tables import (
    EDGE_VALUES,
    by_kind,
    by_layer,
    by_layer_and_kind,
    changes,
    covering,
    edge_table,
    edge_values,
    strongest,
    through,
)
from probing.graph import Heads, graph_of
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
    differences = np.abs(tuned.edges.astype(float)) - np.abs(base.edges.astype(float))
    for column, of in (("", differences), ("effect_", tuned.edges.astype(float) - base.edges)):
        mine = (of[:, GRAPH.number("m0->a1<k>")],)
        found = permutation_test(mine, np.mean, permutation_type="samples", n_resamples=10_000, vectorized=True, rng=1)
        assert row[f"{column}p"] == pytest.approx(found.pvalue, abs=4 * np.sqrt(2 * found.pvalue / 10_000))
        np.testing.assert_allclose(table[f"{column}q"], false_discovery_control(table[f"{column}p"]))
    assert (table["changed"] == (table["q"] <= 0.05)).all()
    assert table["changed"].any()
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


def _made(rows: dict[str, tuple[float, float, float, float]]) -> pd.DataFrame:
    """An edge table with these effects of base and tuned, and these q-values of strength and effect."""
    values = pd.DataFrame(0.0, index=range(len(GRAPH.edges)), columns=list(EDGE_VALUES))
    values[["p", "q", "effect_p", "effect_q"]] = 1.0
    for edge, (base, tuned, q, effect_q) in rows.items():
        i = GRAPH.edges.index(edge)
        values.loc[i, ["base_effect", "tuned_effect", "q", "effect_q"]] = base, tuned, q, effect_q
        values.loc[i, ["base_strength", "tuned_strength"]] = abs(base), abs(tuned)
    return edge_table(GRAPH, values)


def test_changes_by_hand() -> None:
    table = _made(
        {
            "input->m0": (3.0, 4.0, 0.05, 0.05),  # stays among the strongest, grows
            "m0->m1": (2.0, 0.1, 0.001, 0.001),  # leaves
            "m1->logits": (0.2, 3.0, 0.01, 0.01),  # enters
            "a0->m0": (0.3, -0.25, 0.4, 0.02),  # turns round
            "a0->m1": (0.02, -0.02, 0.9, 0.06),  # seems to turn round
            "m0->logits": (0.3, 0.2, 0.06, 0.01),  # seems to grow weaker
            "input->logits": (0.3, -0.2, np.nan, np.nan),  # of an earlier version, which did not test
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
    assert through(shown, name, GRAPH) == expected


def _with_parallels_removed(graph: nx.MultiDiGraph, name: str, edges: set[str]) -> set[str]:
    """Edges beside the picked one, from its writer to its node, do not lie on a path through it."""
    writer, reader = name.split("->")
    beside = {e for w, n, e in graph.edges(keys=True) if (w, n) == (writer, reader.split("<")[0]) and e != name}
    return edges - beside


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a1.g0", ["input->a1.g0<k>", "a1.h0->m1", "a1.h1->logits", "m1->logits"]),
        ("a1.h0", ["input->a1.g0<k>", "input->a1.h0<q>", "a1.h0->m1", "m1->logits"]),
        ("a1.h2", ["a1.h2->m1", "m1->logits"]),
        ("input->a1.h0<q>", ["input->a1.h0<q>", "a1.h0->m1", "m1->logits"]),
        ("a1", ["input->a1.g0<k>", "input->a1.h0<q>", "a1.h0->m1", "a1.h1->logits", "a1.h2->m1", "m1->logits"]),
    ],
)
def test_paths_go_from_a_group_of_keys_and_values_through_each_of_its_heads(name: str, expected: list[str]) -> None:
    graph = graph_of(2, False, "heads", (), (Heads(4, 2),) * 2)
    values = pd.DataFrame(0.0, index=range(graph.size), columns=list(EDGE_VALUES))
    shown = ["input->a1.g0<k>", "input->a1.h0<q>", "a1.h0->m1", "a1.h1->logits", "a1.h2->m1", "m1->logits", "m0->m1"]
    table = edge_table(graph, values)
    assert through(table[table["edge"].isin(shown)], name, graph) == set(expected)


def test_a_breakdown_as_a_table_has_the_means(pair: tuple[Scores, Scores]) -> None:
    breakdown = by_kind(*pair, QUICK)
    table = breakdown.as_table().set_index("group")
    np.testing.assert_allclose(table["difference"], table["tuned"] - table["base"], rtol=1e-9)
    assert (table["ci_low"] <= table["difference"]).all()
