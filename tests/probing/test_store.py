import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from probing.cuts import Cut, cut_of
from probing.edge_tables import EDGE_VALUES
from probing.errors import StoreError
from probing.graph import graph_of
from probing.metrics import METRICS
from probing.rollouts import Answer, Criteria, select
from probing.scores import Scores
from probing.store import Store, connection, open_snapshot, open_store, queue
from probing.store.database import Database
from probing.store.leases import sign_of_life
from probing.store.queue import DEATHS
from probing.store.records import EvaluationRow, Subject
from probing.store.schema import MIGRATIONS, VERSION
from probing.store.sharing import restore
from probing.store.spool import AnswerBatch, MeasurementBatch, PositionBatch, ScoreBatch, Spool
from probing.summary import summarise
from tests.conftest import ROOT

GRAPH = graph_of(2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


def _of_version(path: Path, version: int) -> None:
    """An empty store as an earlier program made it."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE store_version (version INTEGER PRIMARY KEY)")
        for step in range(version):
            for statement in MIGRATIONS[step]:
                connection.execute(statement)
            connection.execute("INSERT INTO store_version VALUES (?)", [step + 1])


def _fill(store: Store, samples: int = 5) -> np.ndarray:
    """One comparison with one run of `samples` questions; returns the run's edge scores."""
    answers = tuple(Answer(f"q{i}", (1, 2), (3, 4, 5), f"text {i}", True) for i in range(samples))
    for key in ("rb", "rt"):
        store.rollouts.start(key, "model", "sha256:x", "addition", {}, samples, 64)
        texts = tuple("?" for _ in answers)
        pieces = (("a", "b"),) * samples, (("c", "d", "é"),) * samples
        store.spool.put(AnswerBatch(key, tuple(range(samples)), texts, texts, texts, answers, *pieces))
        store.batches.ingest()
        store.rollouts.finish(key, {"device": "cpu"}, 1.5)
    settings = {"selection": {"cohort": "both_correct", "alpha": 0.3}, "request": "asked"}
    selected = select(store.rollouts.answers("rb"), store.rollouts.answers("rt"), Criteria())
    store.comparisons.save("c", "grpo", "addition", ("rb", "rt"), settings, selected, selected.warning)
    store.comparisons.link("c", {"base": "run"})
    store.runs.start("run", "model", "sha256:x", GRAPH, samples, 3, {})
    values = np.random.default_rng(0).normal(size=(samples, len(GRAPH.edges))).astype(np.float32)
    ids = tuple(f"q{i}" for i in range(samples))
    store.spool.put(ScoreBatch("run", ids, np.arange(samples, dtype=np.float32), values))
    return values


def _long(store: Store, key: str) -> pd.DataFrame:
    """A run's scores as those see them who write SQL."""
    made = store.file.snapshot()
    with duckdb.connect(str(made), read_only=True) as connection:
        return connection.execute("SELECT * EXCLUDE run_key FROM scores_long WHERE run_key = ?", [key]).df()


def test_what_is_put_in_comes_out(path: Path) -> None:
    store = open_store(path)
    values = _fill(store)
    assert store.batches.ingest() == 1
    store.runs.finish("run", {"device": "cpu"}, 2.0)
    scores = store.runs.scores("run")
    assert scores.ids == tuple(f"q{i}" for i in range(5))
    np.testing.assert_array_equal(scores.edges, values)
    np.testing.assert_array_equal(scores.loss, np.arange(5, dtype=np.float32))
    assert list(store.comparisons.questions("c")["question_id"]) == [f"q{i}" for i in range(5)]
    assert store.rollouts.answers("rb")[2] == Answer("q2", (1, 2), (3, 4, 5), "text 2", True)
    store.close()
    again = open_store(path)
    np.testing.assert_array_equal(again.runs.scores("run").edges, scores.edges)
    again.close()


def _pair_of_runs(store: Store) -> tuple[Scores, Scores]:
    """Both runs of the comparison, finished."""
    values = _fill(store)
    store.batches.ingest()
    store.runs.finish("run", {}, 1.0)
    ids = tuple(f"q{i}" for i in range(5))
    store.comparisons.link("c", {"tuned": "tuned"})
    store.runs.start("tuned", "model", "sha256:y", GRAPH, 5, 5, {})
    store.spool.put(ScoreBatch("tuned", ids, np.ones(5, np.float32), 1.5 * values))
    store.batches.ingest()
    store.runs.finish("tuned", {}, 1.0)
    return store.runs.scores("run"), store.runs.scores("tuned")


def test_all_runs_of_a_comparison_have_batches_of_the_size_of_the_first(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    store.comparisons.link("c", {"tuned": "tuned"})
    store.comparisons.link("d", {"base": "other"})
    assert store.runs.start("run", "model", "sha256:x", GRAPH, 5, 64, {}) == 3
    assert store.runs.start("tuned", "model", "sha256:y", GRAPH, 5, 64, {}) == 3
    assert store.runs.start("other", "model", "sha256:x", GRAPH, 5, 64, {}) == 64
    store.close()


def test_a_summary_comes_out_as_it_went_in_and_makes_the_comparison_ready(path: Path) -> None:
    store = open_store(path)
    base, tuned = _pair_of_runs(store)
    assert not store.comparisons.table()["ready"].any()
    assert not store.comparisons.settled("asked")
    summary = summarise(base, tuned)
    store.summaries.save("c", "tuned", summary)
    store.summaries.save("c", "tuned", summary)  # again changes nothing
    assert store.comparisons.table()["ready"].all()
    assert store.comparisons.settled("asked")
    assert not store.comparisons.settled("asked", ["step-000005"])
    pd.testing.assert_frame_equal(store.summaries.edges("c"), summary.edges)
    metrics = store.summaries.metrics().set_index("metric")
    assert set(metrics.index) == set(METRICS)
    for name, comparison in summary.metrics.items():
        assert metrics.loc[name, "ci_low"] == comparison.ci_low
        assert metrics.loc[name, "tuned"] == comparison.tuned
    questions = store.summaries.questions("c").set_index(["metric", "question_id"])
    assert questions.loc[("activation_intensity", "q3"), "base"] == pytest.approx(
        np.abs(base.matrix()[3]).mean(), rel=1e-6
    )
    assert store.summaries.edges("c", "step-000005").empty
    store.close()


def test_scores_at_positions_are_kept_once(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    assert store.runs.positions("run", "q1") is None
    scores = np.random.default_rng(0).normal(size=(7, len(GRAPH.edges))).astype(np.float32)
    for kept in (scores, 2 * scores):
        store.spool.put(PositionBatch("run", "q1", kept))
        store.batches.ingest()
    np.testing.assert_array_equal(store.runs.positions("run", "q1"), scores)
    store.close()


def test_the_texts_of_tokens_and_their_numbers_come_with_the_questions(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    row = store.comparisons.questions("c").iloc[2]
    assert list(row["base_prompt_pieces"]) == ["a", "b"]
    assert list(row["tuned_answer_pieces"]) == ["c", "d", "é"]
    assert (row["prompt_length"], row["base_length"], row["tuned_length"]) == (2, 3, 3)
    store.close()


def test_the_revision_tells_jobs_from_results(path: Path) -> None:
    store = open_store(path)
    process, jobs, results = store.file.revision()
    store.queue.submit({"pair": "x"})
    assert store.file.revision() == (process, jobs + 1, results)
    _fill(store)
    assert store.file.revision()[1] == jobs + 1
    assert store.file.revision()[2] > results
    store.close()


def test_a_store_of_the_first_version_keeps_its_answers_and_gains_what_is_new(path: Path) -> None:
    with duckdb.connect(str(path)) as old:
        old.execute("CREATE TABLE store_version (version INTEGER PRIMARY KEY)")
        for statement in MIGRATIONS[0]:
            old.execute(statement)
        old.execute("INSERT INTO store_version VALUES (1)")
        old.execute("INSERT INTO answers VALUES ('r', 0, 'q', '?', '!', '?', [1, 2], [3], 'a', true)")
    store = open_store(path)
    assert store.rollouts.answers("r") == [Answer("q", (1, 2), (3,), "a", True)]
    _fill(store)
    assert len(store.comparisons.questions("c")) == 5
    assert store.summaries.metrics().empty
    store.close()


def test_the_long_view_names_every_edge(path: Path) -> None:
    store = open_store(path)
    values = _fill(store)
    store.batches.ingest()
    table = _long(store, "run")
    assert len(table) == values.size
    row = table[(table["question_id"] == "q3") & (table["edge"] == "a0->m1")].iloc[0]
    assert (row["writer"], row["reader"]) == ("a0", "m1")
    assert row["score"] == values[3, GRAPH.edges.index("a0->m1")]
    store.close()


def test_questions_may_have_any_names(path: Path) -> None:
    store = open_store(path)
    values = _fill(store)
    names = ("a/b", "a_b", "../../x", "é" * 500, "")
    for name in names:
        store.spool.put(ScoreBatch("run", (name,), np.zeros(1, np.float32), values[:1]))
    assert store.batches.ingest() == 1 + len(names)
    assert set(names) < set(store.runs.scores("run").ids)
    store.close()


def test_ingesting_a_batch_twice_changes_nothing(path: Path) -> None:
    store = open_store(path)
    values = _fill(store)
    store.batches.ingest()
    spool = Spool(path)
    spool.put(ScoreBatch("run", ("q0", "q9"), np.zeros(2, np.float32), 7 + values[:2]))
    store.batches.ingest()
    scores = store.runs.scores("run")
    assert scores.ids == ("q0", "q1", "q2", "q3", "q4", "q9")
    np.testing.assert_array_equal(scores.edges[0], values[0])
    assert not list(spool.folder.iterdir())
    store.close()


def test_a_damaged_batch_is_set_aside(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    (file,) = store.spool.folder.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert store.batches.ingest() == 0
    assert [p.name for p in store.spool.folder.iterdir()] == [file.name + ".damaged"]
    store.close()


def test_a_run_with_missing_samples_cannot_be_finished(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    with pytest.raises(StoreError, match="has 0 of its 5 samples"):
        store.runs.finish("run", {}, 1.0)
    assert not store.runs.finished("run")
    store.close()


def _evaluate(store: Store) -> np.ndarray:
    """An evaluation of three units over two questions, started; returns its effects."""
    store.evaluations.start("e", "ablation", Subject("grpo", "addition", "c", "base"), {"k": 1}, "zxy", ["q1", "q0"])
    return np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)


def _take_in(store: Store, units: tuple[str, ...], **values: np.ndarray) -> None:
    store.spool.put(MeasurementBatch("e", units, values))
    store.batches.ingest()


def test_an_evaluation_comes_out_in_the_order_of_its_units_whatever_came_first(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    effects = _evaluate(store)
    _take_in(store, ("y",), effect=effects[2:], loss=1 + effects[2:])
    assert store.evaluations.measured("e") == {"y"}
    (row,) = map(EvaluationRow.of, store.evaluations.table().to_dict("records"))
    assert (row.pair, row.side, row.cuts, row.cohort, row.units, row.measured, row.questions) == (
        "grpo", "base", (Cut(0.3),), "both_correct", 3, 1, 2,
    )  # fmt: skip
    with pytest.raises(StoreError, match="has 1 of its 3 units"):
        store.evaluations.finish("e", {}, 1.0)
    _take_in(store, ("z", "x"), effect=effects[:2])
    store.evaluations.finish("e", {"device": "cpu"}, 2.5)
    store.close()
    store = open_store(path)
    found = store.evaluations.values("e")
    assert (found.units, found.ids) == (("z", "x", "y"), ("q1", "q0"))
    np.testing.assert_array_equal(found.values["effect"], effects)
    np.testing.assert_array_equal(found.values["loss"], [[np.nan] * 2, [np.nan] * 2, 1 + effects[2]])
    (row,) = map(EvaluationRow.of, store.evaluations.table().to_dict("records"))
    assert store.evaluations.finished("e")
    assert (row.settings, row.provenance, row.seconds, row.measured) == ({"k": 1}, {"device": "cpu"}, 2.5, 3)
    with duckdb.connect(str(store.file.snapshot()), read_only=True) as connection:
        long = connection.execute("SELECT * FROM measurements_long WHERE measure = 'effect'").df()
    number = long.set_index(["unit", "question_id"])["number"]
    assert len(number) == effects.size
    assert number["x", "q0"] == effects[1, 1]
    with pytest.raises(StoreError, match="There is no evaluation 'f'"):
        store.evaluations.values("f")
    store.close()


def test_an_evaluation_is_of_all_who_need_it(path: Path) -> None:
    store = open_store(path)
    _evaluate(store)
    before = store.file.revision()
    store.evaluations.link("e", Subject("grpo", "addition", "c", "base"))
    assert store.file.revision() == before, "that has been said"
    store.evaluations.link("e", Subject("ppo", "addition"))
    rows = {row["pair"]: EvaluationRow.of(row) for row in store.evaluations.table().to_dict("records")}
    assert (rows["grpo"].comparison_key, rows["grpo"].side) == ("c", "base")
    assert (rows["ppo"].comparison_key, rows["ppo"].side, rows["ppo"].cuts) == (None, None, ())
    assert store.file.revision() > before
    store.close()


def test_measurements_are_taken_in_once_and_damaged_ones_are_set_aside(path: Path) -> None:
    store = open_store(path)
    effects = _evaluate(store)
    _take_in(store, ("z", "x"), effect=effects[:2])
    _take_in(store, ("x", "y"), effect=7 + effects[1:])
    np.testing.assert_array_equal(store.evaluations.values("e").values["effect"], [*effects[:2], 7 + effects[2]])
    store.spool.put(MeasurementBatch("e", ("z",), {"effect": effects[:1]}))
    (file,) = store.spool.folder.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:100], whole[:-200]):
        file.write_bytes(damaged)
        assert store.batches.ingest() == 0
        assert [p.name for p in store.spool.folder.iterdir()] == [file.name + ".damaged"]
    store.close()


def test_a_store_of_before_there_were_evaluations_gains_them(path: Path) -> None:
    _of_version(path, 6)
    with duckdb.connect(str(path)) as old:
        old.execute("INSERT INTO jobs (spec, status, created) VALUES ('{\"pair\": \"x\"}', 'done', now()::TIMESTAMP)")
    store = open_store(path)
    assert store.queue.job(1).spec == {"pair": "x"}
    assert store.evaluations.table().empty
    _take_in(store, ("z",), effect=_evaluate(store)[:1])
    assert store.evaluations.measured("e") == {"z"}
    store.file.verify()
    store.close()


def test_an_owner_that_leaves_finishes_what_was_asked_and_nobody_sees_an_error(path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom probing.store import open_store\n"
        "store = open_store(Path(sys.argv[1]))\nprint('open', flush=True)\n"
        "for k in range(400):\n    store.queue.submit({'number': k, 'by': sys.argv[2]})\n    store.queue.jobs()\n"
        "store.close()\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    callers = [
        subprocess.Popen([*command, str(k)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for k in range(2)
    ]
    while any(caller.poll() is None for caller in callers):
        store = open_store(path)  # as the owner, or as another caller
        store.queue.jobs()
        store.close()
    for caller in callers:
        assert caller.wait() == 0, caller.stderr.read() if caller.stderr else ""
    store = open_store(path)
    assert len(store.queue.jobs()) == 800
    store.close()


def test_nothing_keeps_old_rows_alive(path: Path) -> None:
    Database(path).close()
    store = Database(path)
    job = store.queue.submit({"pair": "x"})
    store.queue.claim("worker")
    for done in range(5):
        store.queue.report(job, "worker", "stage", done, 5)
        store.queue.jobs()
    store.file._connection.cursor().execute("CHECKPOINT")  # which is refused while a transaction still sees old rows
    store.close()


# -- snapshots ---------------------------------------------------------------------------------------------------------


def test_a_snapshot_holds_all_and_is_restored_while_work_has_gone_on(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    store.batches.ingest()
    store.runs.finish("run", {}, 1.0)
    job = store.queue.submit({"pair": "x"})
    made = store.file.snapshot()
    assert made.parent == path.with_name("store.duckdb.snapshots")
    before = [store.runs.scores("run").matrix().copy(), store.comparisons.table(), store.queue.jobs()]
    store.queue.end(job, "cancelled")
    with pytest.raises(StoreError, match="in use"):
        restore(made, path)
    store.close()
    aside = restore(made, path)
    assert aside is not None
    again = open_store(path)
    np.testing.assert_array_equal(again.runs.scores("run").matrix(), before[0])
    pd.testing.assert_frame_equal(again.comparisons.table(), before[1])
    pd.testing.assert_frame_equal(again.queue.jobs(), before[2])
    assert again.queue.submit({"pair": "y"}) == job + 1, "numbers go on"
    again.close()
    old = open_store(aside)
    assert old.queue.job(job).status == "cancelled"
    old.close()


def test_a_snapshot_is_read_by_several_at_once_and_written_by_none(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    store.batches.ingest()
    made = store.file.snapshot()
    store.close()
    made.chmod(0o444)
    one, other = open_snapshot(made), open_snapshot(made)
    assert len(one.runs.scored("run")) == len(other.runs.scored("run")) == 5
    with pytest.raises(StoreError, match="only read"):
        one.queue.submit({})
    one.close()
    other.close()


def test_a_snapshot_of_an_earlier_version_is_not_read_but_restored(path: Path) -> None:
    early = path.with_name("early.duckdb")
    _of_version(early, 1)
    with pytest.raises(StoreError, match=f"version 1, and a store that is only read must have version {VERSION}"):
        open_snapshot(early)
    assert restore(early, path) is None
    store = open_store(path)
    assert store.queue.jobs().empty
    store.close()


def test_what_cannot_be_restored_leaves_the_store_as_it_was(path: Path) -> None:
    store = open_store(path)
    store.queue.submit({"pair": "x"})
    made = store.file.snapshot()
    store.close()
    for size in (0, 100, 5000, made.stat().st_size // 2):
        cut = path.with_name("cut.duckdb")
        cut.write_bytes(made.read_bytes()[:size] or b"x")
        with pytest.raises(StoreError, match=r"cut\.duckdb cannot be restored"):
            restore(cut, path)
    with pytest.raises(StoreError, match="There is no file"):
        restore(path.with_name("none"), path)
    again = open_store(path)
    assert len(again.queue.jobs()) == 1
    assert sorted(p.name for p in path.parent.iterdir() if "part" in p.name or "before" in p.name) == []
    again.close()


def test_nothing_but_snapshots_can_be_opened_through_the_database(path: Path, tmp_path: Path) -> None:
    store = Database(path)
    for sql in (
        "SELECT * FROM read_text('/etc/passwd')",
        f"COPY jobs TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'other.duckdb'}'",
        f"ATTACH '{tmp_path / 'store.duckdb.snapshots' / '..' / 'other.duckdb'}'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "INSTALL httpfs",
    ):
        with pytest.raises(StoreError, match="could not be read"):
            store.file.rows(sql)
    store.close()


# -- files that are no stores ------------------------------------------------------------------------------------------


def test_a_later_version_is_refused(path: Path) -> None:
    open_store(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO store_version VALUES (?)", [VERSION + 1])
    with pytest.raises(StoreError, match=f"version {VERSION + 1}; this program knows versions up to {VERSION}"):
        open_store(path)


def test_every_earlier_version_is_brought_up_to_date(path: Path) -> None:
    for version in range(VERSION):
        path.unlink(missing_ok=True)
        _of_version(path, version)
        store = open_store(path)
        assert store.runs.table().empty
        store.close()


def test_runs_of_before_there_were_granularities_are_of_projections(path: Path) -> None:
    _of_version(path, 3)
    with duckdb.connect(str(path)) as old:
        for edge, name in enumerate(GRAPH.edges):
            old.execute("INSERT INTO edges VALUES (2, false, ?, ?, ?, ?)", [edge, name, *name.split("->")])
        old.execute(
            """INSERT INTO runs VALUES
               ('run', 'c', 'base', 'model', 'sha256:x', 2, false, 1, 1, '{}', NULL, NULL, now()::TIMESTAMP, NULL)"""
        )
        values = [float(edge) for edge in range(len(GRAPH.edges))]
        old.execute("INSERT INTO samples VALUES ('run', 'q0', 1.0, ?)", [values])
    store = open_store(path)
    scores = store.runs.scores("run")
    assert scores.graph == GRAPH
    np.testing.assert_array_equal(scores.edges[0], values)
    long = _long(store, "run").set_index("edge")["score"]
    assert long.to_dict() == dict(zip(GRAPH.edges, values, strict=True))
    store.close()


def test_a_graph_that_was_kept_in_columns_is_the_same_in_one(path: Path) -> None:
    _of_version(path, 4)
    graphs = {f"{p}-{g}": graph_of(2, p, g) for p in (False, True) for g in ("projections", "blocks")}  # type: ignore[arg-type]
    words = {"projections": "blocks, q/k/v apart", "blocks": "blocks, attention as one"}
    with duckdb.connect(str(path)) as old:
        for key, graph in graphs.items():
            for edge, name in enumerate(graph.edges):
                row = [2, graph.parallel, graph.granularity, edge, name, *name.split("->")]
                old.execute("INSERT INTO edge_names VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            settings = json.dumps({"method": {"granularity": words[graph.granularity], "version": 1}})
            old.execute(
                """INSERT INTO comparisons VALUES
                   (?, 'p', 'q', 'both_correct', 0.3, 'b', 't', ?, 1, 1, '{}', NULL, NULL, now()::TIMESTAMP)""",
                [key, settings],
            )
            old.execute(
                """INSERT INTO runs SELECT ?, ?, 'base', 'model', 'sha256:x', 2, ?, 1, 1, '{}', '{}', 1, moment, moment,
                   ? FROM (SELECT now()::TIMESTAMP AS moment)""",
                [key, key, graph.parallel, graph.granularity],
            )
            old.execute(
                "INSERT INTO samples VALUES (?, 'q0', 1.0, ?)", [key, list(map(float, range(len(graph.edges))))]
            )
    store = open_store(path)
    rows = store.comparisons.table().set_index("comparison_key")
    for key, graph in graphs.items():
        assert store.runs.scores(key).graph == graph
        assert list(_long(store, key).set_index("edge")["score"][list(graph.edges)]) == list(range(len(graph.edges)))
        assert rows.loc[key, "graph"] == graph.as_text()
        assert json.loads(rows.loc[key, "settings"])["method"]["granularity"] == graph.granularity
    store.close()


def test_runs_of_before_they_were_artifacts_of_their_own_are_shown_as_they_were(path: Path) -> None:
    _of_version(path, 5)
    graphs = (GRAPH, graph_of(3, True, "blocks", (1,)))
    rng = np.random.default_rng(0)
    runs = {"base": ("c", "base"), "step": ("c", "step-000040"), "tuned": ("c", "tuned"), "other": ("d", "base")}
    values = {key: rng.normal(size=(4, graphs[key == "other"].size)).astype(np.float32) for key in runs}
    kept = pd.DataFrame(rng.normal(size=(GRAPH.size, 8)), columns=list(EDGE_VALUES[:8]))
    with duckdb.connect(str(path)) as old:
        for graph in graphs:
            for edge, name in enumerate(graph.edges):
                row = [graph.as_text(), edge, name, *name.split("->")]
                old.execute("INSERT INTO edge_names VALUES (?, ?, ?, ?, ?)", row)
        for key in ("c", "d"):
            old.execute(
                """INSERT INTO comparisons VALUES
                   (?, 'p', 'q', 'both_correct', 0.3, 'b', 't', '{}', 1, 1, '{}', NULL, NULL, now()::TIMESTAMP)""",
                [key],
            )
        for key, (comparison, side) in runs.items():
            graph = graphs[key == "other"]
            old.execute(
                """INSERT INTO runs (run_key, comparison_key, side, model, identity, samples, batch_size, settings,
                   provenance, seconds, created, finished, graph) SELECT ?, ?, ?, 'm', 'sha256:x', 4, 2,
                   '{"rollout": "b"}', '{}', 1, moment, moment, ? FROM (SELECT now()::TIMESTAMP AS moment)""",
                [key, comparison, side, graph.as_text()],
            )
            for number, row in enumerate(values[key]):
                old.execute("INSERT INTO samples VALUES (?, ?, ?, ?)", [key, f"q{number}", number, row.tolist()])
        old.register("kept", kept.assign(comparison_key="c", side="tuned", edge=range(GRAPH.size)))
        old.execute("INSERT INTO edge_summaries BY NAME SELECT * FROM kept")
        for side in ("tuned", "step-000040"):
            old.execute("INSERT INTO metric_summaries (comparison_key, side, metric) VALUES ('c', ?, 'loss')", [side])
        old.execute("INSERT INTO answers VALUES ('b', 0, 'q0', '', '', '', [1], [2], '', true, NULL, NULL)")
        old.execute(
            "INSERT INTO jobs (spec, status, worker, created) VALUES ('{}', 'running', '1-x', now()::TIMESTAMP)"
        )
    store = open_store(path)
    rows = store.comparisons.table().set_index("comparison_key")
    assert (rows.loc["c", "base_run"], rows.loc["c", "tuned_run"], rows.loc["d", "base_run"]) == (
        "base", "tuned", "other",
    )  # fmt: skip
    assert rows.loc["c", "ready"]
    assert not rows.loc["d", "ready"]
    assert store.comparisons.runs("c") == {"base": "base", "tuned": "tuned", "step-000040": "step"}
    assert store.comparisons.link("c", {"base": "new", "tuned": "new"})["base"] == "base", "it keeps what it has"
    assert list(store.comparisons.steps("c")["side"]) == ["step-000040"]
    edges = store.summaries.edges("c")
    pd.testing.assert_frame_equal(edges[list(kept)], kept)
    assert edges[list(EDGE_VALUES[8:])].isna().all(axis=None), "it did not test any"
    for key, (comparison, side) in runs.items():
        graph, scores = graphs[key == "other"], store.runs.scores(key)
        assert (scores.graph, scores.ids) == (graph, ("q0", "q1", "q2", "q3"))
        np.testing.assert_array_equal(scores.edges, values[key])
        np.testing.assert_array_equal(scores.loss, np.arange(4, dtype=np.float32))
        long = _long(store, key).set_index(["question_id", "edge"])
        assert len(long) == values[key].size
        for edge, name in enumerate(graph.edges):
            row = long.loc[("q2", name)]
            assert (row["writer"], row["reader"], row["score"]) == (*name.split("->"), values[key][2, edge])
        table = store.runs.table().set_index("run_key")
        assert (table.loc[key, "side"], table.loc[key, "scored"]) == (side, 4), comparison
    assert store.queue.job(1).status == "queued", "its worker cannot be there any more"
    store.close()


def test_the_steps_that_led_here_stay_as_they_were() -> None:
    """Stores out there were made by them."""
    digests = [hashlib.sha256("\n".join(step).encode()).hexdigest()[:12] for step in MIGRATIONS]
    known = (
        "97a369b059ff 46dac1267a4f 304a5986e4a0 2f3a25e5406d 0d0bcf5dc5e7 148054237d84 "  # pragma: allowlist secret
        "6f62222f2925 fabeb500dd41 f83f6bb216bc a13e33cb3226"  # pragma: allowlist secret
    )
    assert digests == known.split()


def test_somebody_elses_database_and_other_files_are_refused(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE theirs (x INTEGER)")
    with pytest.raises(StoreError, match="made by something else"):
        open_store(path)
    path.write_text("this is a letter to my aunt, not a database" * 200)
    with pytest.raises(StoreError, match="is not a store"):
        open_store(path)
    assert path.read_text().startswith("this is a letter")


def test_a_truncated_store_is_refused_in_a_sentence(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    store.batches.ingest()
    store.close()
    whole = path.read_bytes()
    for size in (1, 100, 5000, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match=r"not a store that this program can open|could not be read"):
            open_store(path).runs.scores("run")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StoreError, match="Cannot write in"):
        open_store(blocked / "store.duckdb")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Cannot write in"):
        open_store(tmp_path / "store.duckdb")


def test_a_database_open_in_another_program_is_refused(path: Path) -> None:
    open_store(path).close()
    code = f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreError, match="Another program has"):
            open_store(path)
        other.kill()


# -- several processes -------------------------------------------------------------------------------------------------


def _in_another_process(path: Path, code: str) -> str:
    program = (
        f"from pathlib import Path\nfrom probing.store import open_store\nstore = open_store(Path({str(path)!r}))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program + code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout


def test_a_second_process_reads_and_writes_through_the_owner(path: Path) -> None:
    store = open_store(path)
    values = _fill(store)
    store.batches.ingest()
    out = _in_another_process(
        path,
        "print(store.runs.scores('run').matrix().sum(), store.queue.submit({'pair': 'x'}), store.batches.ingest())",
    )
    total, job, ingested = out.split()
    assert float(total) == pytest.approx(float(values.sum()), rel=1e-4)
    assert store.queue.job(int(job)).status == "queued"
    assert ingested == "0"
    store.close()


def test_errors_cross_the_processes_with_their_sentence(path: Path) -> None:
    store = open_store(path)
    out = _in_another_process(
        path, "\ntry:\n    store.runs.scores('nope')\nexcept Exception as e:\n    print(type(e).__name__, e)"
    )
    assert out.startswith("StoreError There is no run 'nope'.")
    store.close()


def test_only_queries_can_be_called_from_outside(path: Path) -> None:
    store = open_store(path)
    named = [("file", "close"), ("file", "rows"), ("queue", "__init__"), ("spool", "put"), ("", "close")]
    out = _in_another_process(
        path,
        "\nstore.queue.jobs()\nc = store._local.connection\n"
        f"for part, name in {named!r}:\n    c.send((part, name, (), {{}}))\n    print(c.recv()[0])",
    )
    assert out.split() == ["False"] * len(named)
    assert store.queue.jobs().empty
    store.close()


def test_the_owners_address_is_for_its_user_only(path: Path) -> None:
    store = open_store(path)
    address = path.with_name(path.name + ".owner")
    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    assert json.loads(address.read_text())["pid"] == os.getpid()
    store.close()
    assert not address.exists()


def test_when_the_owner_is_killed_another_process_takes_its_place(path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom probing.store import open_store\nimport time\n"
        f"store = open_store(Path({str(path)!r}))\n"
        "print(store.queue.submit({'pair': 'x'}), flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        job = int(owner.stdout.readline())
        store = open_store(path)
        assert store.queue.job(job).status == "queued"
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert store.queue.job(job).status == "queued"
        assert json.loads(path.with_name(path.name + ".owner").read_text())["pid"] == os.getpid()
        store.close()


def test_many_threads_may_use_one_store(path: Path) -> None:
    store = open_store(path)
    _fill(store)
    store.batches.ingest()
    failures = []

    def use(i: int) -> None:
        try:
            for _ in range(10):
                store.runs.scores("run")
                store.queue.submit({"pair": str(i)})
                store.runs.table()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(store.queue.jobs()) == 8
    store.close()


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_identical_requests_share_a_job_until_it_ends(path: Path) -> None:
    store = open_store(path)
    first = store.queue.submit({"pair": "a", "n": 1})
    assert store.queue.submit({"n": 1, "pair": "a"}) == first
    assert store.queue.submit({"pair": "b"}) != first
    store.queue.end(first, "done")
    assert store.queue.submit({"pair": "a", "n": 1}) != first
    store.close()


def test_jobs_that_somebody_waits_for_are_done_before_the_others(path: Path) -> None:
    store = open_store(path)
    jobs = [store.queue.submit({"pair": name}, urgent=name in "cd") for name in "abcde"]
    assert [store.queue.job(job).urgent for job in jobs] == [False, False, True, True, False]
    assert store.queue.submit({"pair": "e"}, urgent=True) == jobs[4], "now somebody waits for it"
    assert store.queue.submit({"pair": "c"}) == jobs[2], "still"
    done = []
    while (claimed := store.queue.claim("1-worker")) is not None:
        done.append(claimed[1]["pair"])
        store.queue.end(claimed[0], "done", worker="1-worker")
    assert "".join(done) == "cdeab"
    store.close()


def test_a_job_of_a_dead_worker_is_given_out_again_and_at_last_given_up(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    for attempt in range(DEATHS):
        claimed = store.queue.claim(f"{attempt}-worker")
        assert claimed is not None
        assert claimed[0] == job
        assert store.queue.report(job, f"{attempt}-worker", "base answers", 64, 500)
        store.queue.bury(attempt)
    assert store.queue.claim("one more") is None
    assert store.queue.job(job).status == "failed"
    assert "died or hung 3 times at the same batch (base answers, 64 of 500)" in store.queue.job(job).message
    store.close()


def test_a_job_that_gets_on_between_deaths_is_never_given_up(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    for attempt in range(4 * DEATHS):
        assert store.queue.claim(f"{attempt}-worker") is not None
        assert store.queue.report(job, f"{attempt}-worker", "base answers", attempt // (DEATHS - 1), 500)
        store.queue.bury(attempt)
    store.queue.end(job, "done")
    assert store.queue.job(job).status == "done"
    store.close()


def test_a_living_worker_keeps_its_job_whoever_else_claims(path: Path) -> None:
    store = open_store(path)
    jobs = [store.queue.submit({"pair": name}) for name in "ab"]
    with sign_of_life(path, "1-a"):
        assert store.queue.claim("1-a") == (jobs[0], {"pair": "a"})
        assert store.queue.claim("2-b") == (jobs[1], {"pair": "b"}), "of one that has no lock here"
        assert store.queue.claim("3-c") is None
        assert store.queue.claim("3-c", jobs[0]) is None
        assert store.queue.report(jobs[0], "1-a", "stage", 0, 1)
        assert store.queue.report(jobs[1], "2-b", "stage", 0, 1)
    assert store.queue.claim("3-c") == (jobs[0], {"pair": "a"}), "its lock is free: it is dead"
    assert store.queue.job(jobs[0]).attempts == 1
    store.close()


def test_a_worker_that_has_been_silent_for_too_long_has_lost_its_job(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    with sign_of_life(path, "1-a"):
        store.queue.claim("1-a")
        monkeypatch.setenv("PROBING_PATIENCE", "0.3")
        time.sleep(0.2)
        store.queue.greet("1-a")
        time.sleep(0.2)
        assert store.queue.claim("2-b") is None
        time.sleep(0.2)
        assert store.queue.claim("2-b") == (job, {"pair": "a"})
        assert not store.queue.report(job, "1-a", "stage", 1, 2), "it is told to stop"
        store.queue.end(job, "failed", "what the first has to say", worker="1-a")
        assert store.queue.job(job).status == "running"
        store.queue.end(job, "done", worker="2-b")
        assert store.queue.job(job).status == "done"
    store.close()


def test_several_workers_join_a_job_that_is_settled_and_it_is_queued_again_when_none_is_left(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    assert store.queue.claim("1-a", join=("cpu",)) == (job, {"pair": "a"})
    assert store.queue.claim("2-b", join=("cpu",)) is None, "nobody knows yet on what it is computed"
    assert store.queue.settle(job) is None
    assert store.queue.settle(job, {"device": "cuda"}) == {"device": "cuda"}
    assert store.queue.settle(job, {"device": "cpu"}) == {"device": "cuda"}, "the first decides"
    assert store.queue.claim("2-b", join=("cpu",)) is None, "it has no such device"
    assert store.queue.claim("2-b") is None, "it does not want to join"
    assert store.queue.claim("2-b", join=("cpu", "cuda")) == (job, {"pair": "a"})
    assert store.queue.job(job).workers == ("1-a", "2-b")
    assert store.queue.report(job, "1-a", "stage", 1, 4)
    assert store.queue.report(job, "2-b", "stage", 2, 4)
    store.queue.release("1-a")
    assert not store.queue.report(job, "1-a", "stage", 3, 4)
    assert (store.queue.job(job).status, store.queue.job(job).workers) == ("running", ("2-b",))
    store.queue.bury(2)
    assert (store.queue.job(job).status, store.queue.job(job).workers) == ("queued", ())
    assert store.queue.claim("3-c") == (job, {"pair": "a"})
    assert store.queue.settle(job) is None, "another machine may go on with it"
    store.queue.end(job, "done", worker="3-c")
    assert store.queue.job(job).workers == ()
    store.close()


def test_workers_join_the_job_that_has_fewest_and_take_a_queued_one_before(path: Path) -> None:
    store = open_store(path)
    jobs = [store.queue.submit({"pair": name}) for name in "ab"]
    for worker, job in (("1-a", jobs[0]), ("2-b", jobs[1])):
        assert (store.queue.claim(worker, join=("cpu",)) or (0,))[0] == job
        store.queue.settle(job, {"device": "cpu"})
    assert (store.queue.claim("3-c", join=("cpu",)) or (0,))[0] == jobs[0]
    assert (store.queue.claim("4-d", join=("cpu",)) or (0,))[0] == jobs[1]
    assert (store.queue.claim("5-e", jobs[1], join=("cpu",)) or (0,))[0] == jobs[1]
    store.close()


def test_a_batch_is_lent_to_one_worker_until_it_gives_it_back_or_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(path)
    assert store.leases.take("1-a", ["x", "y", "z"], 2) == ["x", "y"]
    assert store.leases.take("2-b", ["x", "y", "z"], 2) == ["z"]
    assert store.leases.take("1-a", ["x", "y", "z"], 2) == ["x", "y"], "it did not hear that it has them"
    store.leases.give_back("2-b", ["y"])
    assert store.leases.take("2-b", ["y"]) == [], "only who has it can give it back"
    store.leases.give_back("1-a", ["y"])
    assert store.leases.take("2-b", ["x", "y"]) == ["y"]
    with sign_of_life(path, "3-c"):
        store.leases.give_back("2-b")
        assert store.leases.take("3-c", ["y", "z"], 9) == ["y", "z"]
        assert store.leases.take("2-b", ["y", "z"]) == []
    assert store.leases.take("2-b", ["y", "z"]) == ["y"], "whoever had it is dead"
    monkeypatch.setenv("PROBING_PATIENCE", "0.2")
    time.sleep(0.25)
    assert store.leases.take("4-d", ["x"]) == ["x"], "whoever had it has been silent for too long"
    store.close()


def test_deaths_at_one_batch_are_counted_whatever_others_do_meanwhile(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    assert store.queue.claim("99-steady") is not None
    store.queue.settle(job, {"device": "cpu"})
    for number in range(DEATHS):
        assert store.queue.claim(f"{number}-w", join=("cpu",)) is not None
        assert store.leases.take(f"{number}-w", ["scores q7"]) == ["scores q7"]
        assert store.queue.report(job, "99-steady", "base edges", number, 9)
        store.queue.bury(number)
    assert store.queue.job(job).status == "failed"
    assert not store.queue.report(job, "99-steady", "base edges", 8, 9), "it is told to stop"
    store.close()


def test_deaths_at_two_batches_in_turn_end_a_job_too_and_progress_forgives_them(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    for number, (item, done) in enumerate((("x", 0), ("y", 0), ("x", 1), ("y", 2), ("x", 2), ("z", 2))):
        assert store.queue.claim(f"{number}-w") is not None, "it was given up too soon"
        assert store.leases.take(f"{number}-w", [item]) == [item]
        assert store.queue.report(job, f"{number}-w", "edges", done, 9)
        store.queue.bury(number)
    assert store.queue.job(job).status == "failed"
    assert store.queue.job(job).attempts == DEATHS
    store.close()


def test_batches_of_one_who_has_no_job_are_free_when_it_is_dead_whoever_looks(path: Path) -> None:
    store = open_store(path)
    with sign_of_life(path, "5-import"):
        assert store.leases.take("5-import", ["x"]) == ["x"]
        store.queue.claim("6-w")
        assert store.leases.take("6-w", ["x"]) == []
    store.queue.claim("6-w")  # and locks that dead workers left are removed
    assert store.leases.take("6-w", ["x"]) == ["x"]
    store.close()


def test_a_job_that_one_worker_had_has_it_still_after_the_step_to_several(path: Path) -> None:
    _of_version(path, 9)
    with duckdb.connect(str(path)) as old:
        for status, worker in (("running", "7-x"), ("done", "8-y"), ("queued", None)):
            old.execute(
                "INSERT INTO jobs (spec, status, created, worker) VALUES ('{}', ?, now()::TIMESTAMP, ?)",
                [status, worker],
            )
        old.execute("INSERT INTO rollouts VALUES ('r', 'm', 'i', 'q', '{}', 5, NULL, NULL, now()::TIMESTAMP, NULL)")
    store = open_store(path)
    assert [store.queue.job(job).workers for job in (1, 2, 3)] == [("7-x",), (), ()]
    assert store.queue.report(1, "7-x", "stage", 1, 2)
    assert store.rollouts.start("r", "m", "i", "q", {}, 5, 32) == 32, "an earlier version did not say"
    assert store.rollouts.start("r", "m", "i", "q", {}, 5, 8) == 32, "from now on all do alike"
    assert store.rollouts.start("s", "m", "i", "q", {}, 5, 16) == 16
    assert store.rollouts.start("s", "m", "i", "q", {}, 5, 8) == 16, "one that is resumed keeps it"
    store.close()


def test_clocks_that_jump_take_no_job_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(path)
    store.queue.submit({"pair": "a"})
    store.queue.claim("1-a")
    later = connection.now() + timedelta(days=400)
    monkeypatch.setattr(queue, "now", lambda: later)
    monkeypatch.setattr(time, "time", lambda: later.timestamp())
    assert store.queue.claim("2-b") is None
    store.close()


def test_a_job_that_is_given_back_counts_no_death(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    for attempt in range(2 * DEATHS):
        assert store.queue.claim(f"{attempt}-w") == (job, {"pair": "a"})
        store.queue.release(f"{attempt}-w")
    assert (store.queue.job(job).status, store.queue.job(job).attempts) == ("queued", 0)
    store.close()


def test_dead_workers_leave_no_locks(path: Path) -> None:
    store = open_store(path)
    folder = path.with_name("store.duckdb.workers")
    for worker in ("1-a", "2-b"):
        store.queue.submit({"pair": worker})
        with sign_of_life(path, worker):
            store.queue.claim(worker)
            assert {file.name for file in folder.iterdir()} == {worker}, "nor does one that lost its job"
    store.close()


def test_a_restored_store_has_no_workers(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    store.queue.claim("1-a")
    made = store.file.snapshot()
    store.close()
    restore(made, path)
    again = open_store(path)
    assert again.queue.claim("2-b") == (job, {"pair": "a"})
    again.close()


def test_a_job_knows_when_its_stage_began(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    store.queue.claim("w")
    times = []
    for stage, done in (("answers", 0), ("answers", 64), ("edges", 0)):
        store.queue.report(job, "w", stage, done, 100)
        times.append(store.queue.job(job).stage_started)
        time.sleep(0.01)
    assert times[0] == times[1] < times[2]
    store.close()


def test_a_cancelled_job_is_told_to_stop(path: Path) -> None:
    store = open_store(path)
    job = store.queue.submit({"pair": "a"})
    store.queue.claim("w")
    assert store.queue.report(job, "w", "stage", 1, 2)
    store.queue.end(job, "cancelled")
    assert not store.queue.report(job, "w", "stage", 2, 2)
    store.queue.end(job, "done")
    assert store.queue.job(job).status == "cancelled"
    store.close()


def test_opening_does_not_wait_for_an_address_that_is_stale(path: Path) -> None:
    path.with_name(path.name + ".owner").write_text(json.dumps({"pid": 1, "port": 1, "key": "00"}))
    started = time.monotonic()
    open_store(path).close()
    assert time.monotonic() - started < 2


def test_a_cut_of_before_there_were_tokens_is_a_share(path: Path) -> None:
    _of_version(path, 8)
    with duckdb.connect(str(path)) as old:
        old.execute(
            """INSERT INTO comparisons VALUES
               ('c', 'p', 'q', 'both_correct', 0.3, 'b', 't', '{"method": {}}', 1, 1, '{}', NULL, NULL,
                now()::TIMESTAMP)"""
        )
    store = open_store(path)
    (row,) = store.comparisons.table().to_dict("records")
    assert (row["alpha"], cut_of(row["alpha"], row["tokens"])) == (0.3, Cut(0.3))
    store.close()
