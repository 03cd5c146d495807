"""Scores and circuits as frames of pandas and as tables, there and back."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.cli import main
from probing.edge_tables import EDGE_VALUES, edge_values
from probing.errors import CircuitError, ScoresError
from probing.exchange import (
    CircuitFile,
    circuit_from_frame,
    circuit_to_frame,
    from_frame,
    read_eap_json,
    to_frame,
    write_pt,
)
from probing.graph import Heads, ResidualGraph, graph_of
from probing.method import Method
from probing.metrics import Definition
from probing.scores import Scores, read_scores, write_scores

GRAPHS = {
    "projections": graph_of(2),
    "nothing": graph_of(0),
    "parallel": graph_of(3, True),
    "blocks": graph_of(2).at("blocks"),
    "hybrid": graph_of(3, whole=(1,)),
    "heads": graph_of(2, True, "heads", (), (Heads(4, 2, True), Heads(4, 4))),
    "mixed": graph_of(3, False, "heads", (2,), (Heads(4, 2, True), None, None)),
}

METHOD = Method(path="eap-ig", loss="margin", steps=7)


def _scores(graph: ResidualGraph, ids: tuple[str, ...] = ("b", "a", "007")) -> Scores:
    rng = np.random.default_rng([len(name) for name in ids])
    edges = rng.normal(size=(len(ids), graph.size)).astype(np.float32)
    return Scores(graph, ids, edges, rng.random(len(ids)).astype(np.float32), "vocabulary", METHOD)


def _check_same(read: Scores, scores: Scores) -> None:
    assert (read.graph, read.ids, read.method, read.tokenizer) == (
        scores.graph, scores.ids, scores.method, scores.tokenizer,
    )  # fmt: skip
    assert read.edges.dtype == read.loss.dtype == np.float32
    np.testing.assert_array_equal(read.edges, scores.edges)
    np.testing.assert_array_equal(read.loss, scores.loss)


# -- scores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(GRAPHS))
def test_scores_come_back_exactly_from_a_frame_in_any_order(name: str) -> None:
    scores = _scores(GRAPHS[name])
    frame = to_frame(scores)
    assert list(frame) == ["question_id", "edge", "writer", "reader", "score", "loss"]
    assert len(frame) == 3 * scores.graph.size
    _check_same(from_frame(frame), scores)
    first = frame.drop_duplicates("question_id").index  # each question's first row stays in its place
    rest = frame.drop(index=first).sample(frac=1, random_state=1)
    mixed = pd.concat([frame.loc[first], rest]).astype({"edge": str, "question_id": object, "score": float})
    mixed.attrs = frame.attrs
    _check_same(from_frame(mixed), scores)


def test_a_frame_has_each_score_in_its_row() -> None:
    scores = _scores(GRAPHS["heads"])
    row = to_frame(scores).query("question_id == 'a' and edge == 'a0.bias->a1.h2<k>'").iloc[0]
    assert (row["writer"], row["reader"]) == ("a0.bias", "a1.h2<k>")
    assert row["score"] == scores.of(["a"], ["a0.bias->a1.h2<k>"])[0, 0]
    assert row["loss"] == scores.loss[1]


@settings(max_examples=60)
@given(
    layers=st.lists(
        st.none()
        | st.builds(
            lambda groups, each, bias: Heads(groups * each, groups, bias),
            st.integers(1, 3), st.integers(1, 3), st.booleans(),
        ),
        min_size=1, max_size=4,
    ),
    parallel=st.booleans(),
    data=st.data(),
)  # fmt: skip
def test_a_frame_that_does_not_say_its_graph_has_the_one_of_its_edges(
    layers: list[Heads | None], parallel: bool, data: st.DataObject
) -> None:
    whole = tuple(layer for layer, one in enumerate(layers) if one is None and data.draw(st.booleans()))
    graph = graph_of(len(layers), parallel, "heads", whole, tuple(layers))
    scores = _scores(graph, ("q",))
    frame = to_frame(scores)
    frame.attrs.clear()
    read = from_frame(frame)
    assert read.graph.edges == graph.edges
    assert any(layers) == (read.graph == graph)
    np.testing.assert_array_equal(read.edges, scores.edges)
    assert (read.method.path, read.tokenizer) == ("eap", "")
    _check_same(from_frame(frame, graph, METHOD), Scores(graph, ("q",), scores.edges, scores.loss, "", METHOD))


def test_scores_of_numbered_questions_without_a_loss_are_read() -> None:
    frame = to_frame(_scores(GRAPHS["projections"], ("3", "1"))).astype({"question_id": int}).drop(columns="loss")
    read = from_frame(frame)
    assert read.ids == ("3", "1")
    assert np.isnan(read.loss).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(index=[30, 20]), "The edge 'a1->m1' of question 'b' is missing"),
        (lambda f: f.drop(index=25), "The edge 'input->a0<v>' of question 'a' is missing"),
        (lambda f: pd.concat([f, f[40:42]]), "The edge 'm0->a1<v>' of question 'a' is there twice"),
        (lambda f: f.assign(edge=f["edge"].astype(str).where(f.index != 5, "m1->m0")), "no edge 'm1->m0'"),
        (lambda f: f.assign(edge=f["edge"].astype(str).where(f.index != 5, "m1-m0")), "no edge 'm1-m0'"),
        (lambda f: f.assign(score=f["score"].where(f.index != 25)), "'input->a0<v>' of question 'a' has no finite"),
        (lambda f: f.assign(score=f["score"].where(f.index != 25, np.inf)), "'a' has no finite"),
        (lambda f: f.assign(score=f["score"].astype(float).where(f.index != 25, 1e300)), "'a' has no finite"),
        (lambda f: f.assign(edge=f["edge"].where(f.index != 5)), "Row 5 names no edge"),
        (lambda f: f.assign(question_id=f["question_id"].where(f.index != 5)), "Row 5 has no question_id"),
        (lambda f: f.assign(loss=f["loss"].where(f.index != 25, 9)), "Question 'a' has more than one loss"),
        (lambda f: f.assign(score="much"), "'score' has something else than numbers"),
        (lambda f: f.drop(columns="score"), "no column 'score'"),
        (lambda f: f.drop(columns="edge"), "no column 'edge'"),
        (lambda f: f.drop(columns="question_id"), "no column 'question_id'"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_a_frame_that_is_not_all_scores_is_refused_naming_the_first(change: Any, says: str) -> None:
    with pytest.raises(ScoresError, match=says):
        from_frame(change(to_frame(_scores(GRAPHS["projections"], ("b", "a")))))


@pytest.mark.parametrize(
    ("attrs", "says"),
    [
        ({"graph": "{}"}, "does not say a graph"),
        ({"graph": 3}, "does not say a graph"),
        ({"graph": graph_of(200).as_text()}, "23 edges of 160,601"),
        ({"graph": graph_of(2, True).as_text()}, "no edge 'a0->m0'"),
        ({"method": {"path": "x"}}, "does not say a method"),
        ({"method": "eap"}, "does not say a method"),
    ],
)
def test_a_frame_that_says_something_else_than_it_has_is_refused(attrs: dict[str, Any], says: str) -> None:
    frame = to_frame(_scores(GRAPHS["projections"]))
    frame.attrs = attrs
    with pytest.raises(ScoresError, match=says):
        from_frame(frame)


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        (["a9->m999999"], "not those of 1000000 layers"),
        ([f"input->m{layer}" for layer in range(900)], "900 edges of 3,241,801"),
        ([*graph_of(2).edges[:-1]], "no edge 'm1->logits'"),
        ([*graph_of(2).edges, "m1->m0"], "no edge 'm1->m0'"),
        ([*graph_of(2).edges, "m1-m0"], "no writer is called 'm1-m0'"),
        ([f"input->a0.h{head}<q>" for head in range(3)] + ["input->a0.g0<k>", "input->a0.g1<k>"], "evenly"),
    ],
)
def test_edges_of_no_graph_are_refused(edges: list[str], says: str) -> None:
    with pytest.raises(CircuitError, match=says):
        circuit_from_frame(pd.DataFrame({"edge": edges, "score": 1.0}))


# -- circuits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(GRAPHS))
def test_a_circuit_comes_back_from_a_frame(name: str) -> None:
    graph = GRAPHS[name]
    pair = [_scores(graph), _scores(graph, ("b", "a", "seven"))]
    values = edge_values(pair[0], replace(pair[1], ids=pair[0].ids), Definition(resamples=20))
    rng = np.random.default_rng(3)
    for circuit in (
        CircuitFile(graph, rng.normal(size=graph.size), rng.random(graph.size) < 0.5, values, 64),
        CircuitFile.mean(pair[0]).strongest(3),
    ):
        frame = circuit_to_frame(circuit)
        read = circuit_from_frame(frame.sample(frac=1, random_state=2))
        assert (read.graph, read.members, read.width) == (graph, circuit.members, circuit.width)
        np.testing.assert_array_equal(read.scores, circuit.scores)
        if circuit.values is None:
            assert read.values is None
        else:
            pd.testing.assert_frame_equal(read.values, circuit.values[list(EDGE_VALUES)])


def test_means_over_questions_by_hand() -> None:
    scores = _scores(GRAPHS["heads"])
    by_hand = to_frame(scores).groupby("edge", observed=True)["score"].mean()
    means = circuit_to_frame(CircuitFile.mean(scores)).set_index("edge")["score"]
    np.testing.assert_allclose(means, by_hand[means.index], rtol=1e-6)


def test_a_circuit_whose_edges_are_not_said_to_be_in_it_is_refused() -> None:
    frame = circuit_to_frame(CircuitFile.mean(_scores(GRAPHS["blocks"])))
    with pytest.raises(CircuitError, match="Row 4 does not say in_circuit"):
        circuit_from_frame(frame.assign(in_circuit=frame["in_circuit"].astype(object).where(frame.index != 4)))


# -- the command -------------------------------------------------------------------------------------------------------


def _convert(folder: Path, source: str, out: str, *more: str) -> int:
    return main(["convert", str(folder / source), "--out", str(folder / out), *more])


def test_scores_become_tables_and_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = _scores(GRAPHS["mixed"], ("007", "a, b"))
    write_scores(tmp_path / "s.npz", scores)
    assert _convert(tmp_path, "s.npz", "s.parquet") == _convert(tmp_path, "s.parquet", "p.npz") == 0
    assert f"{scores.graph.size} edges, of 2 questions" in capsys.readouterr().out
    _check_same(read_scores(tmp_path / "p.npz"), scores)
    assert _convert(tmp_path, "s.npz", "s.csv") == _convert(tmp_path, "s.csv", "c.npz") == 0
    read = read_scores(tmp_path / "c.npz")
    _check_same(read, Scores(scores.graph, scores.ids, scores.edges, scores.loss))
    _check_same(from_frame(pd.read_parquet(tmp_path / "s.parquet")), scores)


def test_a_circuit_goes_through_every_kind_of_file(tmp_path: Path) -> None:
    graph = GRAPHS["heads"]
    scores = _scores(graph)
    write_scores(tmp_path / "s.npz", scores)
    way = ["s.npz", "1.pt", "2.csv", "3.json", "4.parquet", "5.pt", "6.json"]
    for source, out in pairwise(way):
        assert _convert(tmp_path, source, out, *(["--top", "9", "--width", "8"] if source == "s.npz" else [])) == 0
    read = read_eap_json((tmp_path / "6.json").read_text())
    wanted = CircuitFile.mean(scores).strongest(9)
    assert (read.graph, read.members) == (graph, wanted.members)
    np.testing.assert_allclose(read.scores, wanted.scores, rtol=1e-13)
    assert _convert(tmp_path, "s.npz", "top.csv", "--top", "5") == 0
    assert circuit_from_frame(pd.read_csv(tmp_path / "top.csv")).members == wanted.strongest(5).members


@pytest.mark.parametrize(
    ("source", "out", "says"),
    [
        ("c.pt", "c.npz", "no scores of single questions"),
        ("c.pt", "no/c.pt", "Cannot write"),
        ("c.pt", "no/c.csv", "Cannot write"),
        ("none.csv", "c.json", "Cannot read"),
        ("none.parquet", "c.json", "Cannot read"),
        ("bad.csv", "c.json", "no column 'edge'"),
        ("empty.csv", "c.json", "is not a table"),
        ("bad.parquet", "c.json", "is not a table"),
    ],
)
def test_what_cannot_be_converted_is_said(
    source: str, out: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pt(tmp_path / "c.pt", CircuitFile.mean(_scores(GRAPHS["heads"])))
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing")
    there = sorted(path.name for path in tmp_path.iterdir())
    assert _convert(tmp_path, source, out) == 2
    assert says in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == there
