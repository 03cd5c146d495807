"""Circuits from scores, against paths that networkx finds in a graph that is made of names alone."""

import re
from typing import get_args

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.extraction import SHARES, Best, Extraction, circuits, connected, random_circuits
from probing.graph import Edge, Heads, ResidualGraph, graph_of

GRAPHS = [
    graph_of(2),
    graph_of(2, parallel=True, granularity="blocks"),
    graph_of(3, whole=(1,)),
    graph_of(2, granularity="heads", heads=(Heads(2, 1, bias=True), Heads(2, 2))),
    graph_of(2, parallel=True, granularity="heads", heads=(Heads(4, 2), None)),
]


def _fed(reader: str, graph: ResidualGraph) -> list[str]:
    """The writers that write what a reader of this name read."""
    block, part = re.fullmatch(r"(\w+)(?:\.(\w+))?(?:<\w+>)?", reader).groups()
    if part is None or part.startswith("h"):
        return [writer for writer in graph.writers if writer == (f"{block}.{part}" if part else block)]
    heads = graph.heads[int(block[1:])]
    each = heads.queries // heads.groups
    return [f"{block}.h{int(part[1:]) * each + i}" for i in range(each)]


def _drawn(graph: ResidualGraph, inside: np.ndarray) -> nx.DiGraph:
    drawn = nx.DiGraph([("start", writer) for writer in graph.writers if re.search(r"input|bias", writer)])
    drawn.add_nodes_from([*graph.writers, *(f"into {reader}" for reader in graph.readers)])
    for reader in graph.readers:
        drawn.add_edges_from((f"into {reader}", writer) for writer in _fed(reader, graph))
    for name in graph.names(np.flatnonzero(inside)):
        edge = Edge.of(name)
        drawn.add_edge(edge.writer.name, f"into {edge.reader.name}")
    return drawn


def _on_paths(graph: ResidualGraph, inside: np.ndarray) -> set[str]:
    drawn, found = _drawn(graph, inside), set()
    for name in graph.names(np.flatnonzero(inside)):
        edge = Edge.of(name)
        if nx.has_path(drawn, "start", edge.writer.name) and nx.has_path(
            drawn, f"into {edge.reader.name}", "into logits"
        ):
            found.add(name)
    return found


@given(st.sampled_from(GRAPHS), st.integers(0, 1000), st.floats(0.05, 0.7))
@settings(max_examples=60, deadline=None)
def test_what_is_left_is_what_lies_on_a_path(graph: ResidualGraph, seed: int, share: float) -> None:
    inside = np.random.default_rng(seed).random(graph.size) < share
    assert set(graph.names(np.flatnonzero(connected(graph, inside)))) == _on_paths(graph, inside)


@given(
    st.sampled_from(GRAPHS),
    st.integers(0, 1000),
    st.sampled_from(get_args(Extraction)),
    st.sampled_from(get_args(Best)),
)
@settings(max_examples=40, deadline=None)
def test_circuits_lie_within_each_other_and_random_ones_are_of_their_sizes(
    graph: ResidualGraph, seed: int, extraction: Extraction, best: Best
) -> None:
    rng = np.random.default_rng(seed)
    shares = [0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.9, 1.0]
    found = circuits(graph, rng.standard_normal(graph.size), extraction, best, shares)
    by_chance = random_circuits(graph, found.sum(1).tolist(), rng)
    np.testing.assert_array_equal(by_chance.sum(1), found.sum(1))
    assert not found[0].any()
    assert found[-1].all()
    for made in (found, by_chance):
        assert (made[:-1] <= made[1:]).all()
        for inside in made:
            assert _on_paths(graph, inside) == set(graph.names(np.flatnonzero(inside)))


@given(st.sampled_from(GRAPHS), st.integers(0, 1000), st.floats(0, 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_greedy_takes_the_best_edge_whose_reader_is_in(
    graph: ResidualGraph, seed: int, share: float, absolute: bool
) -> None:
    scores = np.random.default_rng(seed).standard_normal(graph.size)
    value = dict(zip(graph.edges, np.abs(scores) if absolute else scores, strict=True))
    taken: list[str] = []
    n = round(share * graph.size)
    for _ in range(n):
        written = {Edge.of(name).writer.name for name in taken}
        open_to = {"logits", *(reader for reader in graph.readers if written.intersection(_fed(reader, graph)))}
        taken.append(
            max((n for n in value if n not in taken and Edge.of(n).reader.name in open_to), key=value.__getitem__)
        )
    inside = np.isin(graph.edges, taken)
    expected = _on_paths(graph, inside)
    (found,) = circuits(graph, scores, "greedy", "magnitude" if absolute else "score", [n / graph.size])
    assert set(graph.names(np.flatnonzero(found))) == expected


def test_top_takes_the_largest_and_leaves_out_what_hangs_loose() -> None:
    graph = graph_of(2)
    scores = np.zeros(graph.size)
    for value, name in enumerate(["m1->logits", "m0->m1", "a0->a1<q>", "input->m0", "input->logits"]):
        scores[graph.number(name)] = (-1) ** value * (10 - value)
    shares = [n / graph.size for n in range(1, 6)]
    found = [set(graph.names(np.flatnonzero(row))) for row in circuits(graph, scores, "top", "magnitude", shares)]
    chain = {"m1->logits", "m0->m1", "input->m0"}
    assert found == [set(), set(), set(), chain, {*chain, "input->logits"}]
    assert circuits(graph, scores, "top", "score", shares)[2].sum() == 1  # by score input->logits comes third


def test_the_keys_of_a_group_reach_each_of_its_heads_and_a_query_its_own() -> None:
    graph = GRAPHS[3]

    def of(*names: str) -> set[str]:
        inside = np.isin(graph.edges, names)
        return set(graph.names(np.flatnonzero(connected(graph, inside))))

    ends = ("a0.h0->logits", "a0.h1->logits")
    assert of("input->a0.g0<k>", *ends) == {"input->a0.g0<k>", *ends}
    assert of("input->a0.h1<q>", *ends) == {"input->a0.h1<q>", ends[1]}
    assert of("a0.bias->a1.h0<v>", "a1.h0->m1", "m1->logits") == {"a0.bias->a1.h0<v>", "a1.h0->m1", "m1->logits"}


@pytest.mark.parametrize("seed", range(3))
def test_a_large_graphs_random_circuits_are_drawn_soon_and_differ(seed: int) -> None:
    graph = graph_of(16, granularity="heads", heads=(Heads(8, 2),) * 16)
    sizes = [int(share * graph.size) for share in SHARES]
    one, other = (random_circuits(graph, sizes, np.random.default_rng(seed + 10 * i)) for i in range(2))
    np.testing.assert_array_equal(one.sum(1), sizes)
    assert (one != other).any(1)[:-1].all()
    assert (connected(graph, one[3]) == one[3]).all()
