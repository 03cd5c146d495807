"""A store, run by the process that owns its file: answers, comparisons and scores, on top of queue and summaries."""

import json
from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from probing.errors import StoreError
from probing.graph import ResidualGraph
from probing.rollouts import Answer, Selected
from probing.scores import Scores
from probing.store.connection import insert, now
from probing.store.queue import Queue
from probing.store.spool import AnswerBatch, ScoreBatch
from probing.store.summaries import UP_TO_DATE, Summaries


class Database(Queue, Summaries):
    """An open store.

    Raises:
        StoreError: the file is not a store, is of a later version, is held by another program or cannot be written.
    """

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
        insert(cursor, "samples", columns)

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
        insert(cursor, "answers", columns)

    # -- rollouts --------------------------------------------------------------------------------------------------

    def start_rollout(
        self, key: str, model: str, identity: str, question_set: str, settings: dict[str, Any], questions: int
    ) -> None:
        """Enter a rollout of `questions` questions, unless it is there."""
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, ?, NULL) ON CONFLICT DO NOTHING",
                [key, model, identity, question_set, json.dumps(settings), questions, now()],
            )

    def finish_rollout(self, key: str, provenance: dict[str, Any], seconds: float) -> None:
        """Mark a rollout as complete."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE rollouts SET provenance = ?, seconds = ?, finished = ? "
                "WHERE rollout_key = ? AND finished IS NULL",
                [json.dumps(provenance), seconds, now(), key],
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

    def question_texts(self, key: str) -> dict[str, str]:
        """The text of each question of a rollout, by its id."""
        return dict(self._rows("SELECT question_id, question FROM answers WHERE rollout_key = ?", key))

    # -- comparisons -----------------------------------------------------------------------------------------------

    def save_comparison(
        self,
        key: str,
        pair: str,
        question_set: str,
        rollouts: tuple[str, str],
        settings: dict[str, Any],
        selected: Selected | None,
        warning: str | None = None,
        failure: str | None = None,
    ) -> None:
        """Enter what a selection kept and what should be said of it, or why it kept nothing, unless it is there."""
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
                    warning,
                    failure,
                    now(),
                ],
            )
            if selected:
                columns = {
                    "comparison_key": [key] * len(selected.outcomes),
                    "question_id": [o.question_id for o in selected.outcomes],
                    "cohort": [o.cohort for o in selected.outcomes],
                    "reason": pa.array([o.reason for o in selected.outcomes], pa.string()),
                }
                insert(cursor, "outcomes", columns)

    def has_comparison(self, key: str) -> bool:
        """Whether what a selection kept has been entered."""
        return bool(self._rows("SELECT 1 FROM comparisons WHERE comparison_key = ?", key))

    def settled(self, request_key: str, steps: Sequence[str] = ()) -> bool:
        """Whether nothing is left to compute for what a request asks, with `steps` of its training, or it cannot be.

        On whatever machine it was computed: one that had another device made another comparison of the same request.
        """
        rows = self._rows(
            f"""SELECT failure, list(DISTINCT side) FILTER ({UP_TO_DATE})
               FROM comparisons LEFT JOIN metric_summaries USING (comparison_key)
               WHERE settings->>'request' = ? GROUP BY comparison_key, failure""",
            request_key,
        )
        return any(failure is not None or {"tuned", *steps} <= set(sides or ()) for failure, sides in rows)

    def comparisons(self) -> pd.DataFrame:
        """Every comparison: what it is of, its counts, accuracies, and the keys of its finished runs (or None).

        `ready` says that both runs are finished and their summary is kept, `up_to_date` that no earlier version made
        that.
        """
        return self._frame(
            f"""WITH accuracies AS (
                   SELECT rollout_key, avg(correct::INT) AS accuracy FROM answers GROUP BY rollout_key),
               compared AS (SELECT comparison_key, bool_and({UP_TO_DATE}) AS up_to_date FROM metric_summaries
                            WHERE side = 'tuned' GROUP BY comparison_key)
               SELECT c.comparison_key, c.pair, c.question_set, c.cohort, c.alpha, c.cut, c.mean_length, c.counts,
                   c.warning, c.failure, c.settings, c.created, c.base_rollout, c.tuned_rollout,
                   b.run_key AS base_run, t.run_key AS tuned_run, b.graph,
                   r.settings AS rollout_settings,
                   s.comparison_key IS NOT NULL AND b.run_key IS NOT NULL AND t.run_key IS NOT NULL AS ready,
                   coalesce(s.up_to_date, true) AS up_to_date,
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

    def questions(self, comparison_key: str, question_id: str | None = None) -> pd.DataFrame:
        """Every question of a comparison, or one: text, both answers and grades, cohort, and why it was not selected.

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
               WHERE o.comparison_key = $1 AND ($2 IS NULL OR o.question_id = $2) ORDER BY b.position""",
            comparison_key,
            question_id,
        )

    # -- runs ------------------------------------------------------------------------------------------------------

    def start_run(
        self,
        key: str,
        comparison_key: str,
        side: str,
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
        shape = graph.as_text()
        run = {
            "run_key": key,
            "comparison_key": comparison_key,
            "side": side,
            "model": model,
            "identity": identity,
            "graph": shape,
            "samples": samples,
            "batch_size": batch_size,
            "settings": json.dumps(settings),
            "created": now(),
        }
        with self._transaction() as cursor:
            first = "SELECT batch_size FROM runs WHERE comparison_key = ? ORDER BY created LIMIT 1"
            if rows := cursor.execute(first, [comparison_key]).fetchall():
                run["batch_size"] = rows[0][0]
            insert(cursor, "runs", {name: [value] for name, value in run.items()})
            writer, reader = graph.edge_index
            columns = {
                "graph": [shape] * len(graph.edges),
                "edge": list(range(len(graph.edges))),
                "name": list(graph.edges),
                "writer": [graph.writers[w] for w in writer],
                "reader": [graph.readers[r] for r in reader],
            }
            insert(cursor, "edge_names", columns)
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
        edges = scores.edges.astype(np.float64)
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
            insert(cursor, "edge_moments", columns)
            cursor.execute(
                "UPDATE runs SET provenance = ?, seconds = ?, finished = ? WHERE run_key = ? AND finished IS NULL",
                [json.dumps(provenance), seconds, now(), key],
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
                   (SELECT count(*) FROM samples s WHERE s.run_key = r.run_key) AS scored, r.graph, r.seconds,
                   r.identity, r.settings, r.provenance, r.created, r.finished
               FROM runs r JOIN comparisons c USING (comparison_key) ORDER BY r.created, r.side"""
        )

    def scores(self, key: str) -> Scores:
        """The scores of a run, in the order of question ids.

        Raises:
            StoreError: there is no such run.
        """
        found = self._rows("SELECT graph, settings->>'tokenizer' FROM runs WHERE run_key = ?", key)
        if not found:
            raise StoreError(f"There is no run '{key}'.", "List them with 'python -m probing runs'.")
        ((shape, tokenizer),) = found
        graph = ResidualGraph.from_text(shape)
        table = self._arrow("SELECT question_id, loss, scores FROM samples WHERE run_key = ? ORDER BY question_id", key)
        edges = table["scores"].combine_chunks().flatten().to_numpy().reshape(len(table), graph.size)
        ids = tuple(table["question_id"].to_pylist())
        return Scores(graph, ids, edges, table["loss"].to_numpy(), tokenizer or "")

    def long_scores(self, key: str) -> pd.DataFrame:
        """The scores of a run as rows of question, edge, writer, reader and score."""
        return self._frame(
            "SELECT question_id, edge, writer, reader, score FROM scores_long WHERE run_key = ? ORDER BY ALL", key
        )

    def edge_moments(self, key: str) -> pd.DataFrame:
        """Mean and variance of every edge's score and |score| over a run's samples, in canonical order."""
        return self._frame("SELECT * EXCLUDE run_key FROM edge_moments WHERE run_key = ? ORDER BY edge", key)
