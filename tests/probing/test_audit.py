"""Scores beside what really happens, over the strongest edges and others."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from probing.evidence import Removed, audit, best, groups
from probing.evidence.removed import Source
from probing.graph import graph_of
from probing.jobs.tasks import Check
from probing.scores import Scores
from probing.store import open_store
from probing.store.records import Subject
from probing.store.spool import MeasurementBatch

GRAPH = graph_of(5)
NAMES = GRAPH.edges
IDS = tuple(f"q{i}" for i in range(20))


def _scores(seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    edges = rng.normal(size=GRAPH.size) * rng.exponential(size=GRAPH.size) + 0.1 * rng.normal(size=(20, GRAPH.size))
    return Scores(GRAPH, IDS, edges.astype(np.float32), np.ones(20, np.float32))


def _real(scores: Scores, questions: int, edges: tuple[str, ...], noise: float = 0.3) -> Source:
    numbers = [GRAPH.number(edge) for edge in edges]
    rng = np.random.default_rng(7)
    effects = 2 * scores.edges[:questions, numbers] + noise * rng.normal(size=(questions, len(edges)))
    return Source(IDS[:questions], edges, effects.astype(np.float32))


def test_where_every_edge_was_removed_all_others_stand_beside_the_strongest(tmp_path: Path) -> None:
    scores, store = _scores(), open_store(tmp_path / "store.duckdb")
    known = Removed((_real(scores, 20, NAMES),))
    chosen = groups(store, "run", scores, known)
    store.close()
    order = np.argsort(-np.abs(scores.edges).mean(0))
    assert chosen["strongest"] == [NAMES[edge] for edge in order[:50]]
    assert set(chosen["random"]) == set(NAMES) - set(chosen["strongest"])
    found = audit(scores, known, chosen)
    assert found is not None
    assert found.whole
    assert set(found.agreement) == {"strongest", "random", "all"}
    for name, edges in (*chosen.items(), ("all", NAMES)):
        numbers = [GRAPH.number(edge) for edge in edges]
        said, happened = (np.abs(values[:, numbers]).mean(0) for values in (scores.edges, known.sources[0].effects))
        assert found.agreement[name].rank.value == pytest.approx(spearmanr(said, happened)[0])
        assert found.agreement[name].size.value == pytest.approx(happened.sum() / said.sum(), rel=1e-5)
    assert found.table["group"].tolist() == ["strongest"] * 50 + ["random"] * (GRAPH.size - 50)
    assert (found.edges, found.questions) == (GRAPH.size, 20)


def test_else_the_edges_are_those_of_the_runs_own_check_with_the_most_questions(tmp_path: Path) -> None:
    scores, store = _scores(), open_store(tmp_path / "store.duckdb")
    for key, run, strongest, units, questions, version in (
        ("a", "run", 2, NAMES[:5], 20, Check.version),
        ("b", "run", 3, NAMES[:7], 10, Check.version),
        ("c", "another", 1, NAMES[:9], 20, Check.version),
        ("d", "run", 1, NAMES[:9], 20, Check.version - 1),
    ):
        settings = {"run": run, "strongest": strongest, "version": version}
        store.evaluations.start(key, Check.kind, Subject("p", "q"), settings, units, IDS[:questions])
        nothing = np.zeros((len(units), questions), np.float32)
        store.spool.put(MeasurementBatch(key, tuple(units), {"nll": nothing}))
        store.batches.ingest()
        store.evaluations.finish(key, {}, 1.0)
    known = Removed((_real(scores, 20, NAMES[:9]), _real(scores, 10, NAMES[:7])))
    chosen = groups(store, "run", scores, known)
    assert chosen == {"strongest": list(NAMES[:2]), "random": list(NAMES[2:5])}
    assert groups(store, "nobody's", scores, known) == {}
    store.close()
    found = audit(scores, known, chosen)
    assert found is not None
    assert set(found.agreement) == {"strongest", "random"}
    assert not found.whole
    assert audit(scores, known, {}) is None


def test_the_worst_are_the_largest_estimates_that_are_wrong() -> None:
    scores = _scores()
    real = _real(scores, 20, NAMES, noise=0.01)
    sizes = np.abs(scores.edges.mean(0))
    largest = np.argsort(-sizes)
    real.effects[:, largest[[0, 3]]] *= -1  # the other sign
    real.effects[:, largest[1]] = np.tile([1.0, -1.0], 10)  # nothing, surely
    known = Removed((real,))
    found = audit(scores, known, {"strongest": list(NAMES[:10]), "random": list(NAMES[10:])})
    assert found is not None
    worst = found.worst(3)
    assert worst["edge"].tolist() == [NAMES[largest[place]] for place in (0, 1, 3)]
    assert worst["verdict"].tolist() == ["opposite", "overestimated", "opposite"]


def test_the_best_method_ranks_as_reality_does_in_both_models() -> None:
    scores = _scores()
    sure, noisy = (
        audit(scores, Removed((_real(scores, 20, NAMES, noise),)), {"strongest": list(NAMES), "random": []})
        for noise in (0.01, 9.0)
    )
    assert sure is not None
    assert noisy is not None
    assert best({"one": [noisy, sure], "other": [sure, sure], "unchecked": []}) == "other"
    assert best({"unchecked": []}) is None
