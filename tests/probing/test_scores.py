"""Scores keep their graph on every way out and back."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probing.architectures import architecture_of
from probing.cli import main
from probing.errors import ScoresError
from probing.graph import ResidualGraph, graph_of
from probing.long_form import write_long
from probing.metrics import Definition, compare
from probing.scores import Scores, read_scores, write_scores
from probing.store import open_snapshot, open_store
from probing.store.spool import ScoreBatch
from tests.tiny import TINY, tiny

QUICK = Definition(resamples=20)


def _graphs() -> dict[str, ResidualGraph]:
    """The graph of every architecture, at both granularities, and some that mix kinds of blocks."""
    found = {name: architecture_of(tiny(name)).graph for name in TINY}
    found |= {"hybrid": graph_of(4, whole=(0, 1, 3)), "parallel hybrid": graph_of(3, True, whole=(1,))}
    return found | {f"{name}, blocks": graph.at("blocks") for name, graph in found.items()}


@pytest.fixture(scope="module")
def graphs() -> dict[str, ResidualGraph]:
    return _graphs()


def _scores(graph: ResidualGraph, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    edges = rng.normal(size=(4, len(graph.edges))).astype(np.float32)
    ids = tuple(f"q{i}" for i in range(4))
    return Scores(graph, ids, edges, rng.random(4, np.float32), "vocabulary")


def _same(found: Scores, wanted: Scores) -> None:
    assert (found.graph, found.ids, found.tokenizer) == (wanted.graph, wanted.ids, wanted.tokenizer)
    np.testing.assert_array_equal(found.edges, wanted.edges)
    np.testing.assert_array_equal(found.loss, wanted.loss)


def test_every_graph_comes_back_from_its_file(graphs: dict[str, ResidualGraph], tmp_path: Path) -> None:
    for graph in set(graphs.values()):
        write_scores(tmp_path / "s.npz", _scores(graph))
        _same(read_scores(tmp_path / "s.npz"), _scores(graph))


def test_every_graph_comes_back_from_the_store_its_exports_and_a_snapshot(
    graphs: dict[str, ResidualGraph], tmp_path: Path
) -> None:
    path = tmp_path / "store.duckdb"
    different = {f"run{i}": graph for i, graph in enumerate(sorted(set(graphs.values()), key=ResidualGraph.as_text))}
    with closing(open_store(path)) as store:
        for key, graph in different.items():
            scores = _scores(graph)
            store.runs.start(key, "m", "sha256:x", graph, 4, 2, {"tokenizer": scores.tokenizer})
            store.spool.put(ScoreBatch(key, scores.ids, scores.loss, scores.edges))
            store.batches.ingest()
            _same(store.runs.scores(key), scores)
        snapshot = store.file.snapshot()
    for key, graph in different.items():
        outs = {kind: tmp_path / f"{key}.{kind}" for kind in ("npz", "csv", "parquet")}
        for kind, out in outs.items():
            assert main(["export", key, "--format", kind, "--out", str(out), "--store", str(path)]) == 0
        _same(read_scores(outs["npz"]), _scores(graph))
        wanted = dict(zip(graph.edges, _scores(graph).edges[1], strict=True))
        for table in (pd.read_csv(outs["csv"]), pd.read_parquet(outs["parquet"])):
            one = table[table["question_id"] == "q1"].set_index("edge")["score"]
            assert one.astype(np.float32).to_dict() == wanted
    with closing(open_snapshot(snapshot)) as kept:
        for key, graph in different.items():
            _same(kept.runs.scores(key), _scores(graph))


def test_questions_may_have_any_names_in_rows_for_other_programs(tmp_path: Path) -> None:
    names = ('with "quotes"', "a, b", "two\nlines", "plain")
    scores = replace(_scores(graph_of(2)), ids=names)
    for kind, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        write_long(tmp_path / kind, scores, kind)  # type: ignore[arg-type]
        table = read(tmp_path / kind)
        assert list(table) == ["question_id", "edge", "writer", "reader", "score", "loss"]
        assert set(table["question_id"]) == {*names}
        assert table.equals(table.sort_values(["question_id", "edge"], ignore_index=True))
        one = table[table["question_id"] == names[1]].set_index("edge")["score"].astype(np.float32)
        assert one.to_dict() == dict(zip(scores.graph.edges, scores.edges[1], strict=True))


def test_a_parallel_pair_compares_from_files_as_it_does_in_memory(tmp_path: Path) -> None:
    graph = graph_of(3, parallel=True)
    assert len(graph.edges) == 43
    pair = [_scores(graph, seed) for seed in (0, 1)]
    for name, scores in zip(("base", "tuned"), pair, strict=True):
        write_scores(tmp_path / f"{name}.npz", scores)
    read = [read_scores(tmp_path / f"{name}.npz") for name in ("base", "tuned")]
    assert compare(*read, QUICK) == compare(*pair, QUICK)
    strength = np.sort(np.abs(pair[0].edges).mean(0, dtype=np.float64))
    by_hand = np.abs(strength[:, None] - strength).sum() / (2 * len(strength) * strength.sum())
    assert compare(*read, QUICK)["gini"].base == pytest.approx(by_hand, rel=1e-5)


def _without(path: Path, *names: str, **changed: np.ndarray) -> None:
    with np.load(path) as file:
        content = {name: file[name] for name in file.files if name not in names}
    np.savez(path, **(content | changed))


@pytest.mark.parametrize(
    "graph", [graph_of(3), graph_of(3, True), graph_of(3).at("blocks"), graph_of(3, True).at("blocks")]
)
def test_files_of_before_graphs_were_written_are_read(graph: ResidualGraph, tmp_path: Path) -> None:
    out = tmp_path / "old.npz"
    write_scores(out, _scores(graph))
    _without(out, "graph", "tokenizer")
    _same(read_scores(out), replace(_scores(graph), tokenizer=""))


@pytest.mark.parametrize(
    "changed",
    [
        {"graph": np.array(graph_of(3, True).as_text())},
        {"graph": np.array(graph_of(4).as_text())},
        {"graph": np.array("{}")},
        {"graph": np.array("no JSON")},
        {"graph": np.zeros(3)},
        {"writers": np.array(["input"])},
        {"readers": np.array("m0")},
        {"ids": np.array(["q0"])},
        {"loss": np.zeros((4, 1))},
    ],
)
def test_a_file_whose_parts_contradict_each_other_is_refused(changed: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "s.npz"
    write_scores(out, _scores(graph_of(3)))
    _without(out, **changed)
    with pytest.raises(ScoresError, match=r"do not fit together|no edge is|not finite"):
        read_scores(out)
