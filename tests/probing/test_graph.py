import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.graph import Edge, Granularity, Heads, Reader, ResidualGraph, Writer, granularity_of, graph_of

GRANULARITIES = st.sampled_from(["projections", "blocks"])


@pytest.mark.parametrize(("layers", "edges"), [(28, 3221), (30, 3691), (32, 4193), (1, 8)])
def test_edge_count_is_the_published_one(layers: int, edges: int) -> None:
    assert len(ResidualGraph(layers).edges) == edges


@given(layers=st.integers(1, 40))
def test_a_block_that_reads_as_one_has_a_third_of_the_edges_of_its_projections(layers: int) -> None:
    into_attention = sum(1 + 2 * layer for layer in range(layers))
    apart, together = ResidualGraph(layers), graph_of(layers).at("blocks")
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
        return Reader.of(name).layer + (0.6 if late else 0.2)

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
    merged = graph.merge(values, "blocks")
    by_name = dict(zip(graph.edges, values.T, strict=True))
    for edge, found in zip(graph.at("blocks").edges, merged.T, strict=True):
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
        assert [graph.writers[place] for place in graph.attention_writers(layer)] == [f"a{layer}"]
        assert graph.writers[graph.mlp_writer(layer)] == f"m{layer}"


def test_a_block_that_mixes_without_queries_reads_as_one() -> None:
    graph = graph_of(2, whole=(0,))
    assert graph.readers == ("a0<qkv>", "m0", "a1<q>", "a1<k>", "a1<v>", "m1", "logits")
    assert graph.at("blocks") == graph_of(2, granularity="blocks", whole=(0,))
    assert graph.at("blocks").edges == graph_of(2).at("blocks").edges


def test_names_say_what_they_are() -> None:
    assert ResidualGraph(6).kinds == ("q", "k", "v", "mlp", "logits")
    assert ResidualGraph(6).at("blocks").kinds == ("qkv", "mlp", "logits")
    names = ("a5<q>", "a5.h2<k>", "a5.g1<v>", "a12<qkv>", "m3", "logits")
    readers = [Reader.of(name) for name in names]
    assert [reader.kind for reader in readers] == ["q", "k", "v", "qkv", "mlp", "logits"]
    assert [reader.layer for reader in readers] == [5, 5, 5, 12, 3, None]
    assert [reader.block for reader in readers] == ["a5", "a5", "a5", "a12", "m3", "logits"]
    assert [reader.node for reader in readers] == ["a5", "a5.h2", "a5.g1", "a12", "m3", "logits"]
    writers = [Writer.of(name) for name in ("input", "a3", "a3.h10", "a3.bias", "m3")]
    assert [(writer.block, writer.layer) for writer in writers] == [
        ("input", None), ("a3", 3), ("a3", 3), ("a3", 3), ("m3", 3)
    ]  # fmt: skip
    assert [reader.name for reader in readers] == list(names)


def test_the_granularity_is_told_by_the_readers() -> None:
    def told(*names: str) -> Granularity:
        return granularity_of([Reader.of(name) for name in names])

    assert told("m0", "a0<k>") == told() == "projections"
    assert told("m0", "a0<qkv>") == "blocks"
    assert told("m0", "a0<qkv>", "a1.h0<q>") == "heads"


@pytest.mark.parametrize(
    "name",
    [
        "a5", "m3<q>", "a5<m>", "logits<q>", "a5.h<q>", "h2<q>", "a5.bias<q>", "m3.h1", "input", "", "a5<q>x", "a<q>",
        "a5.h2", "A5<q>", "a٣<q>",
    ],
)  # fmt: skip
def test_what_is_no_readers_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no reader"):
        Reader.of(name)


@pytest.mark.parametrize("name", ["a5<q>", "m3.h1", "logits", "", "a5.g1", "a5.", "input.h0", "a5.h1.h2", "m"])
def test_what_is_no_writers_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no writer"):
        Writer.of(name)


HEADS = st.lists(
    st.builds(lambda groups, each, bias: Heads(groups * each, groups, bias), st.integers(1, 3), st.integers(1, 3),
              st.booleans()),
    min_size=1, max_size=4,
)  # fmt: skip


@given(HEADS, st.booleans(), st.sets(st.integers(0, 3)), st.integers(0, 999))
def test_heads_of_a_block_add_up_to_it(heads: list[Heads], parallel: bool, whole: set[int], seed: int) -> None:
    layers = len(heads)
    kept = tuple(sorted(layer for layer in whole if layer < layers))
    graph = graph_of(layers, parallel, "heads", kept, tuple(None if i in kept else one for i, one in enumerate(heads)))
    values = np.random.default_rng(seed).normal(size=(2, graph.size))
    coarse = graph.at("projections")
    assert coarse == graph_of(layers, parallel, whole=kept)
    expected = dict.fromkeys(coarse.edges, 0.0)
    for name, value in zip(graph.edges, values[1], strict=True):
        edge = Edge.of(name)
        writer, reader = edge.writer.block, edge.reader
        block = f"{reader.block}<{reader.kind}>" if reader.block[0] == "a" else reader.block
        expected[f"{writer}->{block}"] += value
    np.testing.assert_allclose(graph.merge(values, "projections")[1], list(expected.values()), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        coarse.merge(graph.merge(values, "projections"), "blocks"), graph.merge(values, "blocks"), atol=1e-12
    )
    assert [graph.number(name) for name in graph.edges] == list(range(graph.size))
    assert graph.names([0, graph.size - 1]) == [graph.edges[0], graph.edges[-1]]
    assert ResidualGraph.from_text(graph.as_text()) == graph


def test_a_layer_of_heads_by_hand() -> None:
    graph = graph_of(1, granularity="heads", heads=(Heads(4, 2, bias=True),))
    assert graph.writers == ("input", "a0.h0", "a0.h1", "a0.h2", "a0.h3", "a0.bias", "m0")
    assert graph.readers == (
        "a0.h0<q>", "a0.h1<q>", "a0.h2<q>", "a0.h3<q>", "a0.g0<k>", "a0.g1<k>", "a0.g0<v>", "a0.g1<v>", "m0", "logits",
    )  # fmt: skip
    assert graph.edges[8:12] == ("input->m0", "input->logits", "a0.h0->m0", "a0.h0->logits")
    alone = graph_of(1, granularity="heads", heads=(Heads(2, 2),))
    assert alone.readers == ("a0.h0<q>", "a0.h1<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0", "logits")


def test_the_edge_count_of_32_layers_of_32_heads_is_the_known_one() -> None:
    assert graph_of(32, granularity="heads", heads=(Heads(32, 8),) * 32).size == 805_681


@pytest.mark.parametrize("name", ["m0->input", "a0->m1", "m1->m0", "a9->logits", "m0", "", "input->a0.h0<q>", "a->b"])
def test_an_edge_that_a_graph_does_not_have_has_no_number(name: str) -> None:
    with pytest.raises(ValueError, match=r"is called|no edge"):
        graph_of(2, parallel=True).number(name if name != "a0->m1" else "a0->m0")


@pytest.mark.parametrize(
    "heads",
    [
        [[2, 1, False]], [[0, 1, False], None], [[3, 2, False], None], [[2, 1], None, None], [[2, 1, 1], None],
        [[2.0, 1, False], None], [None, [2, 1, False]], "x", [[10**9, 1], None],
    ],
)  # fmt: skip
def test_a_text_with_impossible_heads_is_refused(heads: object) -> None:
    row = {"layers": 2, "parallel": False, "granularity": "heads", "whole": [1], "heads": heads}
    with pytest.raises(ValueError, match="shape of a graph"):
        ResidualGraph.from_text(json.dumps(row))


GROUPED = graph_of(3, False, "heads", (), (Heads(4, 2, bias=True), None, Heads(2, 2)))


def test_a_blocks_nodes_are_its_heads_bias_and_groups_or_itself() -> None:
    assert GROUPED.nodes == {
        "input": ("input",),
        "a0": ("a0.h0", "a0.h1", "a0.h2", "a0.h3", "a0.bias", "a0.g0", "a0.g1"),
        "m0": ("m0",), "a1": ("a1",), "m1": ("m1",), "a2": ("a2.h0", "a2.h1"), "m2": ("m2",), "logits": ("logits",),
    }  # fmt: skip
    assert GROUPED.parts("a0.g1") == ("a0.g1",)
    assert GROUPED.block_of["a2.h1"] == GROUPED.block_of["a2"] == "a2"
    assert graph_of(2).nodes["a1"] == ("a1",)


def test_a_group_feeds_the_heads_that_share_it() -> None:
    assert GROUPED.feeds == (("a0.g0", "a0.h0"), ("a0.g0", "a0.h1"), ("a0.g1", "a0.h2"), ("a0.g1", "a0.h3"))


@pytest.mark.parametrize("name", ["input", "a0", "a0.h2", "a0.bias", "a0.g1", "a1", "a2", "m1", "logits"])
def test_the_edges_of_a_block_or_node_are_those_that_name_it(name: str) -> None:
    ends = [edge.split("->") for edge in GROUPED.edges]

    def is_of(end: str) -> bool:
        return end.split("<")[0] == name or end.startswith(f"{name}.")

    assert GROUPED.out_of(name).tolist() == [i for i, (writer, _) in enumerate(ends) if is_of(writer)]
    assert GROUPED.into(name).tolist() == [i for i, (_, reader) in enumerate(ends) if is_of(reader)]


def test_a_graph_knows_its_blocks_nodes_and_edges_and_nothing_else() -> None:
    assert all(map(GROUPED.knows, ("a0", "a0.h3", "a0.g0", "input", "logits", *GROUPED.edges)))
    assert not any(map(GROUPED.knows, ("", "a0.h4", "a3", "m0<q>", "a0->m0", "m0->a0.h0<q>", "m0->", "->", "x->y")))
