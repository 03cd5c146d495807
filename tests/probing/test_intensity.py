"""The intensity of real effects from the edges of a check, held against that of all edges."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from probing.evidence import sampled_intensity
from probing.evidence.intensity import Sampled, estimated_intensity
from probing.evidence.tables import _sampled as of_checks
from probing.graph import graph_of
from probing.jobs.keys import ground_key
from probing.jobs.tasks import Check
from probing.method import PAPERS, Method
from probing.metrics import Definition, compare
from probing.scores import Scores
from probing.store import Store, open_store
from probing.store.records import ComparisonRow, Subject
from probing.store.spool import MeasurementBatch, ScoreBatch

GRAPH = graph_of(4)
"""77 edges in 9 x 17 cells."""

QUICK = Definition(resamples=300)


def _effects(seed: int, samples: int, scale: float) -> Scores:
    """As real ones are: few edges matter much, in one model much as in the other, and questions differ."""
    rng = np.random.default_rng(seed)
    of_edges = np.random.default_rng(0).lognormal(0, 1.2, GRAPH.size) * rng.lognormal(0, 0.3, GRAPH.size)
    edges = scale * of_edges * rng.normal(0.4, 1, (samples, GRAPH.size)) * rng.lognormal(0, 0.4, (samples, 1))
    ids = tuple(f"q{i:04}" for i in range(samples))
    return Scores(GRAPH, ids, edges.astype(np.float32), np.ones(samples, np.float32))


def _checked(scores: Scores, check: Check) -> Sampled:
    """What a check of such a run has of it, if scores are the effects."""
    numbers, first = check.edges(scores), check.strongest
    edges, names = scores.edges[:, numbers], tuple(scores.graph.edges[edge] for edge in numbers[first:])
    cells = len(scores.graph.writers) * len(scores.graph.readers)
    return Sampled(scores.ids, edges[:, :first], edges[:, first:], names, scores.graph.size - first, cells)


def test_with_every_edge_checked_it_is_the_intensity_and_its_interval_that_over_questions() -> None:
    base, tuned = _effects(1, 60, 1.0), _effects(2, 60, 1.4)
    everything = Check(strongest=20, random=10**6)
    found = estimated_intensity(_checked(base, everything), _checked(tuned, everything), Definition())
    expected = compare(base, tuned, Definition(), ("activation_intensity",))["activation_intensity"]
    for name in ("base", "tuned", "relative", "relative_low", "relative_high", "ci_low"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6)


def test_whatever_is_drawn_it_is_right_on_average_and_its_intervals_hold_the_truth() -> None:
    base, tuned = _effects(3, 2000, 1.0), _effects(4, 2000, 1.4)
    truth = np.abs(tuned.edges).mean() / np.abs(base.edges).mean() - 1
    rng = np.random.default_rng(0)
    held, found = 0, []
    for trial in range(150):
        drawn = rng.choice(2000, 80, replace=False)
        ids = tuple(f"q{i:03}" for i in range(80))
        mine = [replace(of, ids=ids, edges=of.edges[drawn], loss=of.loss[drawn]) for of in (base, tuned)]
        sampled = [_checked(of, Check(strongest=15, random=25, seed=trial)) for of in mine]
        estimate = estimated_intensity(*sampled, replace(QUICK, seed=trial))
        assert estimate.relative is not None
        held += estimate.relative_low <= truth <= estimate.relative_high
        found.append(estimate.relative)
    assert np.mean(found) == pytest.approx(truth, abs=3 * np.std(found) / np.sqrt(150) + 0.01)
    assert 0.89 <= held / 150 <= 0.99


def _store(folder: Path, scores: dict[str, Scores]) -> Store:
    """A store with a run for each side, and a check of each."""
    store = open_store(folder / "store.duckdb")
    for side, run in scores.items():
        settings = {"model": side, "cut": 4, "method": PAPERS.as_json()}
        store.runs.start(side, side, side, run.graph, len(run.ids), 8, settings)
        store.spool.put(ScoreBatch(side, run.ids, run.loss, run.edges))
        check = Check(strongest=10, random=20)
        names = [run.graph.edges[edge] for edge in check.edges(run)]
        told = {"run": side, "ground": ground_key(settings), "strongest": 10, "random": 20, "version": Check.version}
        store.evaluations.start(f"check-{side}", Check.kind, Subject("p", "q", "c", side), told, names, run.ids)
        values = run.edges[:, check.edges(run)].T
        store.spool.put(MeasurementBatch(f"check-{side}", tuple(names), {"nll": values}))
        store.batches.ingest()
        store.evaluations.finish(f"check-{side}", {}, 1.0)
    return store


def test_it_is_read_from_checks_of_the_same_edges_and_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = _effects(5, 30, 1.0), _effects(6, 30, 1.4)
    store = _store(tmp_path, {"base": base, "tuned": tuned})
    found = sampled_intensity(store, ("base", "tuned"), "nll", GRAPH, QUICK)
    assert found is not None
    by_hand = []
    for scores in (base, tuned):
        order = np.argsort(-np.abs(scores.edges).mean(0))
        drawn = [edge for edge in Check(strongest=10, random=20).edges(scores) if edge not in order[:10]]
        size = np.abs(scores.edges).mean(0, dtype=np.float64)
        by_hand.append((size[order[:10]].sum() + 67 * size[drawn].mean()) / (9 * 17))
    assert (found.base, found.tuned) == pytest.approx(by_hand)
    row = ComparisonRow(
        **{field.name: None for field in fields(ComparisonRow)}  # type: ignore[arg-type]
        | {"base_run": "base", "tuned_run": "tuned", "graph": GRAPH}
    )
    against_means = replace(row, base_run="none", tuned_run="none")
    told = of_checks(store, {Method(reference="mean"): against_means, PAPERS: row}, Method(path="exact"))
    assert told is not None, "what stands in is another question, and which was asked last does not matter"
    assert told.relative == pytest.approx(found.relative)
    assert of_checks(store, {Method(reference="mean"): against_means}, Method(path="exact")) is None
    assert sampled_intensity(store, ("base", "tuned"), "margin", GRAPH, QUICK) is None, "nothing is known of that loss"
    other = Method("blocks").as_json()
    store.runs.start("blocks", "base", "base", GRAPH, 30, 8, {"model": "base", "cut": 4, "method": other})
    assert sampled_intensity(store, ("blocks", "tuned"), "nll", GRAPH, QUICK) is None, "those are other edges"
    monkeypatch.setattr(Check, "version", Check.version + 1)
    assert sampled_intensity(store, ("base", "tuned"), "nll", GRAPH, QUICK) is None, "they were made otherwise"
    store.close()
