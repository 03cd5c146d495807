"""Every query and transaction of a store, run by the one process that owns its file.

Methods take and return plain values, arrays and frames, so that `sharing` can pass them between processes. Each may be
called from any thread: reads use a cursor of their own, writes take turns. Repeating a write changes nothing.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from probing.errors import StoreError
from probing.residual_graph import graph_of
from probing.rollouts import Answer, Selected
from probing.scores import Scores
from probing.store.schema import migrate
from probing.store.spool import AnswerBatch, ScoreBatch, Spool
from probing.summary import Summary

ATTEMPTS = 3
"""Deaths of its worker after which a job is given up."""

ACTIVE = ("queued", "running")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Database:
    """An open store.

    Raises:
        StoreError: the file is not a store, is of a later version, is held by another program or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path)
        self._write = threading.RLock()
        self._opened = time.time_ns()
        self._revision = 0
        self._jobs_revision = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = duckdb.connect(
                str(path), config={"enable_external_access": "false", "lock_configuration": "true"}
            )
        except OSError as error:
            raise StoreError(f"Cannot make the folder of {path}: {error.strerror}.", "Name another file.") from error
        except duckdb.Error as error:
            raise _cannot_open(path, error) from error
        try:
            migrate(self._connection)
        except StoreError:
            self._connection.close()
            raise
        except duckdb.Error as error:
            self._connection.close()
            raise _cannot_open(path, error) from error

    def close(self) -> None:
        """Close the file."""
        with self._write:
            self._connection.close()

    # -- the two ways in ------------------------------------------------------------------------------------------

    def _rows(self, sql: str, *parameters: Any) -> list[tuple]:
        try:
            return self._connection.cursor().execute(sql, parameters).fetchall()
        except duckdb.Error as error:
            raise _cannot_read(self.path, error) from error

    def _frame(self, sql: str, *parameters: Any) -> pd.DataFrame:
        try:
            return self._connection.cursor().execute(sql, parameters).df()
        except duckdb.Error as error:
            raise _cannot_read(self.path, error) from error

    def revision(self) -> tuple[int, int, int]:
        """Changes with every change of the store: when it was opened, and counts for its jobs and for all else."""
        return self._opened, self._jobs_revision, self._revision

    @contextmanager
    def _transaction(self, of_jobs: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._write:
            cursor = self._connection.cursor()
            try:
                cursor.execute("BEGIN")
                yield cursor
                cursor.execute("COMMIT")
                self._jobs_revision += of_jobs
                self._revision += not of_jobs
            except duckdb.Error as error:
                raise StoreError(
                    f"The store {self.path} could not be written: {_first_line(error)}.",
                    "Nothing of this step was kept; free some disk space and try again.",
                ) from error
            finally:
                cursor.close()  # rolls back what was not committed

    # -- batches ---------------------------------------------------------------------------------------------------

    def ingest(self) -> int:
        """Take in the finished batches that wait in the spool, each in one transaction; returns how many."""
        taken = 0
        with self._write:
            for path, batch in self.spool.waiting():
                with self._transaction() as cursor:
                    if isinstance(batch, ScoreBatch):
                        self._ingest_scores(cursor, batch)
                    else:
                        self._ingest_answers(cursor, batch)
                path.unlink(missing_ok=True)
                taken += 1
        return taken

    def _ingest_scores(self, cursor: duckdb.DuckDBPyConnection, batch: ScoreBatch) -> None:
        flat = pa.array(batch.scores.ravel(), pa.float32())
        rows = pa.FixedSizeListArray.from_arrays(flat, batch.scores.shape[1]).cast(pa.list_(pa.float32()))
        columns = {
            "run_key": [batch.run_key] * len(batch.ids),
            "question_id": list(batch.ids),
            "loss": pa.array(batch.loss, pa.float32()),
            "scores": rows,
        }
        _insert(cursor, "samples", columns)

    def _ingest_answers(self, cursor: duckdb.DuckDBPyConnection, batch: AnswerBatch) -> None:
        tokens = pa.list_(pa.int32())
        columns = {
            "rollout_key": [batch.rollout_key] * len(batch.answers),
            "position": list(batch.positions),
            "question_id": [a.question_id for a in batch.answers],
            "question": list(batch.questions),
            "reference": list(batch.references),
            "prompt": list(batch.prompts),
            "prompt_tokens": pa.array([a.prompt_tokens for a in batch.answers], tokens),
            "answer_tokens": pa.array([a.tokens for a in batch.answers], tokens),
            "answer": [a.text for a in batch.answers],
            "correct": [a.correct for a in batch.answers],
            "prompt_pieces": pa.array(batch.prompt_pieces, pa.list_(pa.string())),
            "answer_pieces": pa.array(batch.answer_pieces, pa.list_(pa.string())),
        }
        _insert(cursor, "answers", columns)

    # -- rollouts --------------------------------------------------------------------------------------------------

    def start_rollout(
        self, key: str, model: str, identity: str, question_set: str, settings: dict[str, Any], questions: int
    ) -> None:
        """Enter a rollout of `questions` questions, unless it is there."""
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, ?, NULL) ON CONFLICT DO NOTHING",
                [key, model, identity, question_set, json.dumps(settings), questions, _now()],
            )

    def finish_rollout(self, key: str, provenance: dict[str, Any], seconds: float) -> None:
        """Mark a rollout as complete."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE rollouts SET provenance = ?, seconds = ?, finished = ? "
                "WHERE rollout_key = ? AND finished IS NULL",
                [json.dumps(provenance), seconds, _now(), key],
            )

    def rollout_finished(self, key: str) -> bool:
        """Whether every answer of the rollout is there."""
        return bool(self._rows("SELECT 1 FROM rollouts WHERE rollout_key = ? AND finished IS NOT NULL", key))

    def accuracy(self, key: str) -> tuple[int, int]:
        """How many of a rollout's answers are correct, and how many there are."""
        return self._rows("SELECT coalesce(sum(correct::INT), 0), count(*) FROM answers WHERE rollout_key = ?", key)[0]

    def answered(self, key: str) -> set[str]:
        """The questions of a rollout that have been answered."""
        return {row[0] for row in self._rows("SELECT question_id FROM answers WHERE rollout_key = ?", key)}

    def answers(self, key: str) -> list[Answer]:
        """The answers of a rollout in the order of its question set."""
        rows = self._rows(
            "SELECT question_id, prompt_tokens, answer_tokens, answer, correct FROM answers "
            "WHERE rollout_key = ? ORDER BY position",
            key,
        )
        return [Answer(i, tuple(prompt), tuple(tokens), text, correct) for i, prompt, tokens, text, correct in rows]

    # -- comparisons -----------------------------------------------------------------------------------------------

    def save_comparison(
        self,
        key: str,
        pair: str,
        question_set: str,
        rollouts: tuple[str, str],
        settings: dict[str, Any],
        selected: Selected | None,
        failure: str | None = None,
    ) -> None:
        """Enter what a selection kept, or why it kept nothing, unless it is there."""
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO comparisons VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [
                    key,
                    pair,
                    question_set,
                    settings["selection"]["cohort"],
                    settings["selection"]["alpha"],
                    *rollouts,
                    json.dumps(settings),
                    selected.cut if selected else None,
                    selected.mean_length if selected else None,
                    json.dumps(selected.counts) if selected else None,
                    selected.warning if selected else None,
                    failure,
                    _now(),
                ],
            )
            if selected:
                columns = {
                    "comparison_key": [key] * len(selected.outcomes),
                    "question_id": [o.question_id for o in selected.outcomes],
                    "cohort": [o.cohort for o in selected.outcomes],
                    "reason": pa.array([o.reason for o in selected.outcomes], pa.string()),
                }
                _insert(cursor, "outcomes", columns)

    def settled(self, key: str, steps: Sequence[str] = ()) -> bool:
        """Whether nothing is left to compute for a comparison and `steps` of its training, or it cannot be made."""
        if self._rows("SELECT 1 FROM comparisons WHERE comparison_key = ? AND failure IS NOT NULL", key):
            return True
        compared = self._rows("SELECT DISTINCT side FROM metric_summaries WHERE comparison_key = ?", key)
        return {"tuned", *steps} <= {side for (side,) in compared}

    def comparisons(self) -> pd.DataFrame:
        """Every comparison: what it is of, its counts, accuracies, and the keys of its finished runs (or None).

        `ready` says that both runs are finished and their summary is kept.
        """
        return self._frame(
            """WITH accuracies AS (SELECT rollout_key, avg(correct::INT) AS accuracy FROM answers GROUP BY rollout_key),
               compared AS (SELECT DISTINCT comparison_key FROM metric_summaries WHERE side = 'tuned')
               SELECT c.comparison_key, c.pair, c.question_set, c.cohort, c.alpha, c.cut, c.mean_length, c.counts,
                   c.warning, c.failure, c.settings, c.created, c.base_rollout, c.tuned_rollout,
                   b.run_key AS base_run, t.run_key AS tuned_run, b.layers, b.parallel, r.settings AS rollout_settings,
                   s.comparison_key IS NOT NULL AND b.run_key IS NOT NULL AND t.run_key IS NOT NULL AS ready,
                   before.accuracy AS base_accuracy, after.accuracy AS tuned_accuracy
               FROM comparisons c
               LEFT JOIN rollouts r ON r.rollout_key = c.base_rollout
               LEFT JOIN accuracies before ON before.rollout_key = c.base_rollout
               LEFT JOIN accuracies after ON after.rollout_key = c.tuned_rollout
               LEFT JOIN compared s ON s.comparison_key = c.comparison_key
               LEFT JOIN runs b ON b.comparison_key = c.comparison_key AND b.side = 'base' AND b.finished IS NOT NULL
               LEFT JOIN runs t ON t.comparison_key = c.comparison_key AND t.side = 'tuned' AND t.finished IS NOT NULL
               ORDER BY c.created DESC"""
        )

    def questions(self, comparison_key: str) -> pd.DataFrame:
        """Every question of a comparison: text, both answers and grades, cohort, and why it was not selected.

        `*_pieces` are the texts of the tokens, `*_length` an answer's number of tokens.
        """
        return self._frame(
            """SELECT b.position, o.question_id, b.question, b.reference, b.prompt, o.cohort, o.reason,
                   b.answer AS base_answer, t.answer AS tuned_answer, b.correct AS base_correct,
                   t.correct AS tuned_correct, len(b.answer_tokens) AS base_length,
                   len(t.answer_tokens) AS tuned_length, len(b.prompt_tokens) AS prompt_length,
                   b.prompt_pieces AS base_prompt_pieces, t.prompt_pieces AS tuned_prompt_pieces,
                   b.answer_pieces AS base_answer_pieces, t.answer_pieces AS tuned_answer_pieces
               FROM outcomes o JOIN comparisons c USING (comparison_key)
               JOIN answers b ON b.rollout_key = c.base_rollout AND b.question_id = o.question_id
               JOIN answers t ON t.rollout_key = c.tuned_rollout AND t.question_id = o.question_id
               WHERE o.comparison_key = ? ORDER BY b.position""",
            comparison_key,
        )

    # -- runs ------------------------------------------------------------------------------------------------------

    def start_run(
        self,
        key: str,
        comparison_key: str,
        side: str,
        model: str,
        identity: str,
        layers: int,
        parallel: bool,
        samples: int,
        batch_size: int,
        settings: dict[str, Any],
    ) -> int:
        """Enter a run unless it is there; returns the batch size it was started with, which a resumed run keeps."""
        graph = graph_of(layers, parallel)
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, NULL) ON CONFLICT DO NOTHING",
                [
                    key,
                    comparison_key,
                    side,
                    model,
                    identity,
                    layers,
                    parallel,
                    samples,
                    batch_size,
                    json.dumps(settings),
                    _now(),
                ],
            )
            writer, reader = graph.edge_index
            columns = {
                "layers": [layers] * len(graph.edges),
                "parallel": [parallel] * len(graph.edges),
                "edge": list(range(len(graph.edges))),
                "name": list(graph.edges),
                "writer": [graph.writers[w] for w in writer],
                "reader": [graph.readers[r] for r in reader],
            }
            _insert(cursor, "edges", columns)
        return int(self._rows("SELECT batch_size FROM runs WHERE run_key = ?", key)[0][0])

    def finish_run(self, key: str, provenance: dict[str, Any], seconds: float) -> None:
        """Mark a run as complete and keep the moments of its edges.

        Raises:
            StoreError: samples are missing.
        """
        scores = self.scores(key)
        wanted = self._rows("SELECT samples FROM runs WHERE run_key = ?", key)[0][0]
        if len(scores.ids) != wanted:
            raise StoreError(f"Run {key} has {len(scores.ids)} of its {wanted} samples.", "Start it again.")
        edges = scores.graph.to_edges(scores.scores).astype(np.float64)
        size = np.abs(edges)
        columns = {
            "run_key": [key] * edges.shape[1],
            "edge": list(range(edges.shape[1])),
            "n": [len(edges)] * edges.shape[1],
            "mean": edges.mean(0),
            "variance": edges.var(0),
            "mean_abs": size.mean(0),
            "variance_abs": size.var(0),
        }
        with self._transaction() as cursor:
            _insert(cursor, "edge_moments", columns)
            cursor.execute(
                "UPDATE runs SET provenance = ?, seconds = ?, finished = ? WHERE run_key = ? AND finished IS NULL",
                [json.dumps(provenance), seconds, _now(), key],
            )

    def run_finished(self, key: str) -> bool:
        """Whether a run is complete."""
        return bool(self._rows("SELECT 1 FROM runs WHERE run_key = ? AND finished IS NOT NULL", key))

    def scored(self, key: str) -> set[str]:
        """The questions of a run whose scores are there."""
        return {row[0] for row in self._rows("SELECT question_id FROM samples WHERE run_key = ?", key)}

    def runs(self) -> pd.DataFrame:
        """Every run with its pair, question set, α, settings, provenance and how many of its samples are there."""
        return self._frame(
            """SELECT r.run_key, c.pair, r.side, r.model, c.question_set, c.cohort, c.alpha, r.samples,
                   (SELECT count(*) FROM samples s WHERE s.run_key = r.run_key) AS scored, r.layers, r.seconds,
                   r.identity, r.settings, r.provenance, r.created, r.finished
               FROM runs r JOIN comparisons c USING (comparison_key) ORDER BY r.created, r.side"""
        )

    def scores(self, key: str) -> Scores:
        """The scores of a run, in the order of question ids.

        Raises:
            StoreError: there is no such run.
        """
        shape = self._rows("SELECT layers, parallel FROM runs WHERE run_key = ?", key)
        if not shape:
            raise StoreError(f"There is no run '{key}'.", "List them with 'python -m probing runs'.")
        graph = graph_of(*shape[0])
        try:
            table = (
                self._connection.cursor()
                .sql(
                    "SELECT question_id, loss, scores FROM samples WHERE run_key = $1 ORDER BY question_id",
                    params=[key],
                )
                .to_arrow_table()
            )
        except duckdb.Error as error:
            raise _cannot_read(self.path, error) from error
        edges = table["scores"].combine_chunks().flatten().to_numpy().reshape(len(table), len(graph.edges))
        ids = tuple(table["question_id"].to_pylist())
        return Scores(graph, ids, graph.to_matrix(edges), table["loss"].to_numpy())

    def long_scores(self, key: str) -> pd.DataFrame:
        """The scores of a run as rows of question, edge, writer, reader and score."""
        return self._frame(
            "SELECT question_id, edge, writer, reader, score FROM scores_long WHERE run_key = ? ORDER BY ALL", key
        )

    def edge_moments(self, key: str) -> pd.DataFrame:
        """Mean and variance of every edge's score and |score| over a run's samples, in canonical order."""
        return self._frame("SELECT * EXCLUDE run_key FROM edge_moments WHERE run_key = ? ORDER BY edge", key)

    # -- summaries -------------------------------------------------------------------------------------------------

    def save_summary(self, comparison_key: str, side: str, summary: Summary) -> None:
        """Keep the comparison of the base with `side`, unless it is there."""
        whose = {"comparison_key": comparison_key, "side": side}
        metrics = pd.DataFrame([{"metric": name, **asdict(c)} for name, c in summary.metrics.items()])
        edges = summary.edges.assign(edge=range(len(summary.edges)))
        with self._transaction() as cursor:
            _insert(cursor, "metric_summaries", metrics.assign(**whose))
            _insert(cursor, "question_summaries", summary.questions.assign(**whose))
            _insert(cursor, "edge_summaries", edges.assign(**whose))

    def has_summary(self, comparison_key: str, side: str) -> bool:
        """Whether `save_summary` kept it."""
        sql = "SELECT 1 FROM metric_summaries WHERE comparison_key = ? AND side = ? LIMIT 1"
        return bool(self._rows(sql, comparison_key, side))

    def metric_summaries(self) -> pd.DataFrame:
        """Every metric of every comparison that has a summary, by `comparison_key`, `side` and `metric`."""
        return self._frame("SELECT * FROM metric_summaries ORDER BY ALL")

    def question_summary(self, comparison_key: str, side: str = "tuned") -> pd.DataFrame:
        """Each question's value of every metric: `question_id`, `metric`, `base`, `tuned`; empty if not kept."""
        return self._frame(
            "SELECT question_id, metric, base, tuned FROM question_summaries WHERE comparison_key = ? AND side = ? "
            "ORDER BY metric, question_id",
            comparison_key,
            side,
        )

    def edge_summary(self, comparison_key: str, side: str = "tuned") -> pd.DataFrame:
        """`EDGE_VALUES` of every edge in canonical order; empty if not kept."""
        return self._frame(
            "SELECT * EXCLUDE (comparison_key, side, edge) FROM edge_summaries WHERE comparison_key = ? AND side = ? "
            "ORDER BY edge",
            comparison_key,
            side,
        )

    def steps(self, comparison_key: str) -> pd.DataFrame:
        """The training steps that were compared with the base: `side`, and the step's `correct` of `asked` answers."""
        return self._frame(
            """SELECT r.side, sum(a.correct::INT) AS correct, count(*) AS asked
               FROM runs r JOIN answers a ON a.rollout_key = r.settings->>'rollout'
               WHERE r.comparison_key = $1 AND r.side NOT IN ('base', 'tuned') AND r.finished IS NOT NULL
               AND r.side IN (SELECT side FROM metric_summaries WHERE comparison_key = $1)
               GROUP BY r.side ORDER BY r.side""",
            comparison_key,
        )

    # -- positions -------------------------------------------------------------------------------------------------

    def save_positions(self, run_key: str, question_id: str, scores: Float[np.ndarray, "position edge"]) -> None:
        """Keep one sample's scores at every position, over the edges in canonical order."""
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO positions VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [run_key, question_id, len(scores), scores.astype(np.float32).ravel()],
            )

    def positions(self, run_key: str, question_id: str) -> Float[np.ndarray, "position edge"] | None:
        """What `save_positions` kept; None if there is nothing."""
        rows = self._rows(
            "SELECT positions, scores FROM positions WHERE run_key = ? AND question_id = ?", run_key, question_id
        )
        return np.asarray(rows[0][1], np.float32).reshape(rows[0][0], -1) if rows else None

    # -- jobs ------------------------------------------------------------------------------------------------------

    def submit(self, spec: dict[str, Any]) -> int:
        """Queue a job, or return the one with the same spec that is queued or running."""
        text = json.dumps(spec, sort_keys=True)
        with self._transaction(of_jobs=True) as cursor:
            same = cursor.execute(
                "SELECT job_id FROM jobs WHERE status IN ('queued', 'running') AND spec::VARCHAR = ?", [text]
            ).fetchone()
            if same:
                return same[0]
            new = cursor.execute(
                "INSERT INTO jobs (spec, status, created) VALUES (?, 'queued', ?) RETURNING job_id", [text, _now()]
            ).fetchone()
            assert new is not None
            return new[0]

    def claim(self, worker: str, job_id: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """Give the next queued job (or the one named) to `worker`, which holds the worker's lock.

        Jobs that a dead worker left running are queued again first, at most `ATTEMPTS` times.
        """
        with self._transaction(of_jobs=True) as cursor:
            cursor.execute(
                "UPDATE jobs SET status = 'failed', finished = ?, message = ? "
                "WHERE status = 'running' AND worker != ? AND attempts >= ?",
                [_now(), f"Its worker died {ATTEMPTS} times. See the log, then try again.", worker, ATTEMPTS],
            )
            cursor.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running' AND worker != ?", [worker])
            job = cursor.execute(
                "SELECT job_id, spec FROM jobs WHERE status = 'queued' AND ($1 IS NULL OR job_id = $1) "
                "ORDER BY job_id LIMIT 1",
                [job_id],
            ).fetchone()
            if job is None:
                return None
            cursor.execute(
                "UPDATE jobs SET status = 'running', worker = ?, attempts = attempts + 1, "
                "started = coalesce(started, ?) WHERE job_id = ?",
                [worker, _now(), job[0]],
            )
            return job[0], json.loads(job[1])

    def report(self, job_id: int, stage: str, done: int, total: int) -> bool:
        """Note how far a running job is; False if it should stop."""
        with self._transaction(of_jobs=True) as cursor:
            cursor.execute(
                "UPDATE jobs SET stage = ?, done = ?, total = ? WHERE job_id = ?", [stage, done, total, job_id]
            )
            row = cursor.execute("SELECT status FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            return row is not None and row[0] == "running"

    def close_job(self, job_id: int, status: str, message: str = "") -> None:
        """End a job as `done`, `failed` or `cancelled`; one that has ended stays as it is."""
        with self._transaction(of_jobs=True) as cursor:
            cursor.execute(
                "UPDATE jobs SET status = ?, message = ?, finished = ? "
                "WHERE job_id = ? AND status IN ('queued', 'running')",
                [status, message, _now(), job_id],
            )

    def jobs(self) -> pd.DataFrame:
        """Every job, the newest first."""
        return self._frame("SELECT * FROM jobs ORDER BY job_id DESC")

    def job(self, job_id: int) -> dict[str, Any]:
        """One job's row."""
        frame = self._frame("SELECT * FROM jobs WHERE job_id = ?", job_id)
        if frame.empty:
            raise StoreError(f"There is no job {job_id}.", "")
        return {str(k): v for k, v in frame.iloc[0].to_dict().items()}


def _insert(cursor: duckdb.DuckDBPyConnection, table: str, columns: dict[str, Any] | pd.DataFrame) -> None:
    """Insert columns of equal length; rows that are there already stay as they are."""
    rows = (
        pa.Table.from_pandas(columns, preserve_index=False) if isinstance(columns, pd.DataFrame) else pa.table(columns)
    )
    cursor.register("batch", rows)
    cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch ON CONFLICT DO NOTHING")
    cursor.unregister("batch")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".!")


def _cannot_read(path: Path, error: duckdb.Error) -> StoreError:
    return StoreError(f"The store {path} could not be read: {_first_line(error)}.", "Restart, or restore a snapshot.")


def _cannot_open(path: Path, error: duckdb.Error) -> StoreError:
    text = str(error)
    if "Could not set lock" in text or "Conflicting lock" in text:
        return StoreError(f"Another program has {path} open.", "Close it there, or name another file with --store.")
    if isinstance(error, duckdb.IOException) and ("ermission denied" in text or "ead-only" in text):
        return StoreError(f"{path} cannot be written here.", "Check its permissions, or name another with --store.")
    return StoreError(
        f"{path} is not a store that this program can open: {_first_line(error)}.",
        "Name another file with --store or PROBING_STORE, or restore a snapshot.",
    )
