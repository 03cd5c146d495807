import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.graph import Granularity, ResidualGraph, granularity_of, graph_of, kind_of, layer_of, node_of

GRANULARITIES = st.sampled_from(["projections", "blocks"])


@pytest.mark.parametrize(("layers", "edges"), [(28, 3221), (30, 3691), (32, 4193), (1, 8)])
def test_edge_count_is_the_published_one(layers: int, edges: int) -> None:
    assert len(ResidualGraph(layers).edges) == edges


@given(layers=st.integers(1, 40))
def test_a_block_that_reads_as_one_has_a_third_of_the_edges_of_its_projections(layers: int) -> None:
    into_attention = sum(1 + 2 * layer for layer in range(layers))
    apart, together = ResidualGraph(layers), graph_of(layers).together
    assert len(apart.edges) == 4 * layers**2 + 3 * layers + 1
    assert len(together.edges) == 2 * layers**2 + 3 * layers + 1 == len(apart.edges) - 2 * into_attention


def test_one_layer_by_hand() -> None:
    graph = ResidualGraph(1)
    assert graph.writers == ("input", "a0", "m0")
    assert graph.readers == ("a0<q>", "a0<k>", "a0<v>", "m0", "logits")
    assert graph.edges == (
        "input->a0<q>", "input->a0<k>", "input->a0<v>", "input->m0", "input->logits",
        "a0->m0", "a0->logits", "m0->logits",
    )  # fmt: skip


def test_parallel_mlp_does_not_read_its_own_attention() -> None:
    sequential, parallel = ResidualGraph(3), ResidualGraph(3, parallel=True)
    assert set(sequential.edges) - set(parallel.edges) == {"a0->m0", "a1->m1", "a2->m2"}


@given(layers=st.integers(1, 12), parallel=st.booleans(), granularity=GRANULARITIES)
def test_an_edge_exists_exactly_where_the_writer_has_written(
    layers: int, parallel: bool, granularity: Granularity
) -> None:
    graph = ResidualGraph(layers, parallel, granularity)

    def time_of_writing(name: str) -> float:
        if name == "input":
            return -1.0
        return int(name[1:]) + (0.4 if name[0] == "a" else 0.8)

    def time_of_reading(name: str) -> float:
        if name == "logits":
            return float(layers)
        late = name[0] == "m" and not parallel
        return layer_of(name) + (0.6 if late else 0.2)

    expected = [[time_of_writing(w) < time_of_reading(r) for r in graph.readers] for w in graph.writers]
    np.testing.assert_array_equal(graph.mask, expected)


@given(layers=st.integers(1, 6), samples=st.integers(1, 3), seed=st.integers(0, 1000), granularity=GRANULARITIES)
def test_edges_and_matrix_hold_the_same_numbers(layers: int, samples: int, seed: int, granularity: Granularity) -> None:
    graph = ResidualGraph(layers, granularity=granularity)
    values = np.random.default_rng(seed).normal(size=(samples, len(graph.edges)))
    matrix = graph.to_matrix(values)
    np.testing.assert_array_equal(graph.to_edges(matrix), values)
    assert not matrix[:, ~graph.mask].any()
    first = graph.edges.index("input->m0")
    np.testing.assert_array_equal(matrix[:, 0, graph.readers.index("m0")], values[:, first])


@given(parallel=st.booleans(), whole=st.sets(st.integers(0, 3)), seed=st.integers(0, 1000))
def test_a_merged_edge_is_the_sum_of_those_it_is_made_of(parallel: bool, whole: set[int], seed: int) -> None:
    graph = graph_of(4, parallel, whole=tuple(sorted(whole)))
    values = np.random.default_rng(seed).normal(size=(2, len(graph.edges)))
    merged = graph.together.to_edges(graph.merge(graph.to_matrix(values)))
    by_name = dict(zip(graph.edges, values.T, strict=True))
    for edge, found in zip(graph.together.edges, merged.T, strict=True):
        parts = [edge.replace("<qkv>", f"<{p}>") for p in "qkv"] if "<qkv>" in edge else [edge]
        parts = [edge] if edge in by_name else parts
        np.testing.assert_allclose(found, sum(by_name[part] for part in parts), rtol=1e-12)


GRAPHS = st.builds(
    lambda layers, parallel, granularity, whole: graph_of(
        layers, parallel, granularity, tuple(sorted(layer for layer in whole if layer < layers))
    ),
    st.integers(0, 9), st.booleans(), GRANULARITIES, st.sets(st.integers(0, 8)),
)  # fmt: skip


@given(GRAPHS)
def test_a_graph_comes_back_from_its_text(graph: ResidualGraph) -> None:
    assert ResidualGraph.from_text(graph.as_text()) == graph


@pytest.mark.parametrize(
    "change",
    [
        {"layers": -1}, {"layers": 10**9}, {"layers": 2.0}, {"layers": True}, {"layers": "2"}, {"parallel": 1},
        {"granularity": "atoms"}, {"granularity": ["blocks"]}, {"whole": [2]}, {"whole": [1, 0]}, {"whole": [0, 0]},
        {"whole": [False]}, {"whole": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_text_that_is_no_graph_is_refused(change: dict) -> None:
    row = json.loads(graph_of(2, whole=(0,)).as_text())
    with pytest.raises(ValueError, match="shape of a graph"):
        ResidualGraph.from_text(json.dumps(row | change))


@given(GRAPHS)
def test_places_are_those_of_the_names(graph: ResidualGraph) -> None:
    for layer in range(graph.layers):
        reads = [graph.readers[place] for place in graph.attention_readers(layer)]
        together = graph.granularity == "blocks" or layer in graph.whole
        assert reads == ([f"a{layer}<qkv>"] if together else [f"a{layer}<{part}>" for part in "qkv"])
        assert graph.readers[graph.mlp_reader(layer)] == f"m{layer}"
        place = graph.attention_writer(layer)
        assert graph.writers[place : place + 2] == (f"a{layer}", f"m{layer}")


def test_a_block_that_mixes_without_queries_reads_as_one() -> None:
    graph = graph_of(2, whole=(0,))
    assert graph.readers == ("a0<qkv>", "m0", "a1<q>", "a1<k>", "a1<v>", "m1", "logits")
    assert graph.together == graph_of(2, granularity="blocks", whole=(0,))
    assert graph.together.edges == graph_of(2).together.edges


def test_names_say_what_they_are() -> None:
    assert ResidualGraph(6).kinds == ("q", "k", "v", "mlp", "logits")
    assert ResidualGraph(6).together.kinds == ("qkv", "mlp", "logits")
    assert [kind_of(r) for r in ("a5<q>", "a5<k>", "a5<v>", "m3", "logits")] == list(ResidualGraph(6).kinds)
    assert [kind_of(r) for r in ("a5<qkv>", "m3", "logits")] == ["qkv", "mlp", "logits"]
    assert granularity_of(["input->m0", "input->a0<k>"]) == granularity_of([]) == "projections"
    assert granularity_of(["input->m0", "input->a0<qkv>"]) == "blocks"
    assert [layer_of(n) for n in ("a5<q>", "a5<qkv>", "m3", "a12", "input", "logits")] == [5, 5, 3, 12, None, None]
    assert [node_of(n) for n in ("a5<q>", "a5<qkv>", "m3", "logits")] == ["a5", "a5", "m3", "logits"]
