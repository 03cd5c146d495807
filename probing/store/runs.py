"""The scores of models: a run is one model, the samples that it was scored on, and how.

A score is a row (sample, edge, score), in the order of samples and edges: DuckDB keeps such columns as runs of equal
and of consecutive numbers, so that a score takes little more than its own four bytes, and can be read and written in
pieces, which one array for each sample could not.
"""

import json
from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from probing.errors import StoreError
from probing.graph import ResidualGraph
from probing.method import PAPERS, Method
from probing.scores import Scores
from probing.store.connection import FINISH, Connection, insert, now
from probing.store.spool import PositionBatch, ScoreBatch


class Runs:
    """Runs and their scores by the key of all that decides them; scores at positions by run and question."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(
        self,
        key: str,
        model: str,
        identity: str,
        graph: ResidualGraph,
        samples: int,
        batch_size: int,
        settings: dict[str, Any],
    ) -> int:
        """Enter a run unless it is there; returns the size of its batches.

        A run that is resumed keeps it, and all runs of a comparison have that of the first: in bfloat16, scores depend
        on it.
        """
        run = {
            "run_key": key,
            "model": model,
            "identity": identity,
            "graph": graph.as_text(),
            "samples": samples,
            "settings": json.dumps(settings),
            "created": now(),
        }
        columns = {
            "graph": [graph.as_text()],
            "writers": [list(graph.writers)],
            "readers": [list(graph.readers)],
            "writers_before": [graph.writers_before.tolist()],
        }
        with self._connection.transaction() as cursor:
            first = cursor.execute(
                """SELECT batch_size FROM runs WHERE run_key = $1 OR run_key IN (
                       SELECT other.run_key FROM comparison_runs mine JOIN comparison_runs other USING (comparison_key)
                       WHERE mine.run_key = $1)
                   ORDER BY run_key != $1, created LIMIT 1""",
                [key],
            ).fetchall()
            size = int(first[0][0]) if first else batch_size
            insert(cursor, "runs", {name: [value] for name, value in run.items()} | {"batch_size": [size]})
            insert(cursor, "graphs", columns)
        return size

    def finish(self, key: str, provenance: dict[str, Any], seconds: float) -> None:
        """Mark a run as complete, or say with what it was made where nobody has (`FINISH`).

        Raises:
            StoreError: samples are missing.
        """
        counted = "SELECT samples, (SELECT count(*) FROM samples s WHERE s.run_key = r.run_key) FROM runs r"
        ((wanted, there),) = self._connection.rows(f"{counted} WHERE run_key = ?", key)
        if there != wanted:
            raise StoreError(f"Run {key} has {there} of its {wanted} samples.", "Start it again.")
        with self._connection.transaction() as cursor:
            cursor.execute(
                f"UPDATE runs SET {FINISH} WHERE run_key = $4", [json.dumps(provenance), seconds, now(), key]
            )

    def finished(self, key: str) -> bool:
        """Whether a run is complete."""
        return bool(self._connection.rows("SELECT 1 FROM runs WHERE run_key = ? AND finished IS NOT NULL", key))

    def scored(self, key: str) -> set[str]:
        """The questions of a run whose scores are there."""
        return {row[0] for row in self._connection.rows("SELECT question_id FROM samples WHERE run_key = ?", key)}

    def table(self) -> pd.DataFrame:
        """Every run with its pair, side, question set, cut (`alpha` or `tokens`), settings, provenance and how many
        of its samples are there.

        A run that several comparisons share has a row for each.
        """
        return self._connection.frame(
            """SELECT r.run_key, c.pair, l.side, r.model, c.question_set, c.cohort, c.alpha, c.tokens, r.samples,
                   (SELECT count(*) FROM samples s WHERE s.run_key = r.run_key) AS scored, r.graph, r.seconds,
                   r.identity, r.settings, r.provenance, r.created, r.finished
               FROM runs r JOIN comparison_runs l USING (run_key) JOIN comparisons c USING (comparison_key)
               ORDER BY r.created, l.side, c.created"""
        )

    def settings(self, key: str) -> dict[str, Any]:
        """All that decides a run.

        Raises:
            StoreError: there is no such run.
        """
        found = self._connection.rows("SELECT settings FROM runs WHERE run_key = ?", key)
        if not found:
            raise _unknown(key)
        return json.loads(found[0][0])

    def scores(self, key: str) -> Scores:
        """The scores of a run, in the order of question ids.

        Raises:
            StoreError: there is no such run.
        """
        found = self._connection.rows(
            "SELECT graph, settings->>'tokenizer', settings->>'method' FROM runs WHERE run_key = ?", key
        )
        if not found:
            raise _unknown(key)
        ((shape, tokenizer, told),) = found
        graph = ResidualGraph.from_text(shape)
        rows = self._connection.rows(
            "SELECT sample, question_id, loss FROM samples WHERE run_key = ? ORDER BY question_id", key
        )
        samples, ids, loss = zip(*rows, strict=True) if rows else ((), (), ())
        edges = self._edges(key, np.array(samples, np.int64), graph.size)
        method = Method.from_json(json.loads(told)) if told else PAPERS
        return Scores(graph, ids, edges, np.array(loss, np.float32), tokenizer or "", method)

    def _edges(self, key: str, samples: np.ndarray, edges: int) -> Float[np.ndarray, "sample edge"]:
        """A run's scores over the edges in canonical order, its samples in the order given."""
        found = np.zeros((len(samples), edges), np.float32)
        order = np.argsort(samples)
        sql = "SELECT sample, edge, score FROM scores JOIN samples USING (sample) WHERE run_key = ?"
        with self._connection.batches(sql, key) as batches:
            for batch in batches:
                sample, edge, score = (column.to_numpy() for column in batch.columns)
                found[order[np.searchsorted(samples, sample, sorter=order)], edge] = score
        return found

    def of_edge(self, keys: Sequence[str], edge: str) -> dict[str, dict[str, float]]:
        """The scores of one edge in some runs, by run and question; nothing of those that are not finished, or whose
        graph does not have it."""
        found: dict[str, dict[str, float]] = {}
        graphs: dict[str, list[str]] = {}
        sql = "SELECT run_key, graph FROM runs WHERE finished IS NOT NULL AND run_key IN (SELECT unnest($1::VARCHAR[]))"
        for key, graph in self._connection.rows(sql, list(keys)):
            graphs.setdefault(graph, []).append(key)
        for text, of_graph in graphs.items():
            graph = ResidualGraph.from_text(text)
            if not graph.knows(edge):
                continue
            rows = self._connection.rows(
                """SELECT run_key, question_id, score FROM scores JOIN samples USING (sample)
                   WHERE edge = $1 AND run_key IN (SELECT unnest($2::VARCHAR[])) ORDER BY run_key, question_id""",
                graph.number(edge),
                of_graph,
            )
            for key, question, score in rows:
                found.setdefault(key, {})[question] = score
        return found

    def positions(self, key: str, question_id: str) -> Float[np.ndarray, "position edge"] | None:
        """One sample's scores at every position, over the edges in canonical order; None if they are not there."""
        rows = self._connection.rows(
            "SELECT positions, scores FROM positions WHERE run_key = ? AND question_id = ?", key, question_id
        )
        return np.asarray(rows[0][1], np.float32).reshape(rows[0][0], -1) if rows else None


def _unknown(key: str) -> StoreError:
    return StoreError(f"There is no run '{key}'.", "List them with 'python -m probing runs'.")


_ROWS = 4_000_000
"""Scores that are written at a time, where a sample has fewer."""


def insert_positions(cursor: duckdb.DuckDBPyConnection, batch: PositionBatch) -> None:
    """Take in a batch, unless it is there already."""
    cursor.execute(
        "INSERT INTO positions VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [batch.run_key, batch.question_id, len(batch.scores), batch.scores.astype(np.float32).ravel()],
    )


def insert_scores(cursor: duckdb.DuckDBPyConnection, batch: ScoreBatch) -> None:
    """Take in a batch; samples that are there already stay as they are."""
    columns = {
        "run_key": [batch.run_key] * len(batch.ids),
        "question_id": list(batch.ids),
        "loss": pa.array(batch.loss, pa.float32()),
    }
    new = dict(insert(cursor, "samples", columns, returning="question_id, sample"))
    edges = np.arange(batch.scores.shape[1], dtype=np.int32)
    kept = [place for place, name in enumerate(batch.ids) if name in new]
    at_once = max(1, _ROWS // len(edges))
    for start in range(0, len(kept), at_once):
        places = kept[start : start + at_once]
        samples = np.array([new[batch.ids[place]] for place in places], np.int32)
        insert(
            cursor,
            "scores",
            {
                "sample": np.repeat(samples, len(edges)),
                "edge": np.tile(edges, len(places)),
                "score": np.ravel(batch.scores[places]).astype(np.float32, copy=False),
            },
            unique=False,
        )
