"""What was compared with what: selections of questions, and the runs that they are made of."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from probing.cuts import Cut
from probing.rollouts import Selected
from probing.store.connection import Connection, insert, now
from probing.store.summaries import UP_TO_DATE

_ASKED = """json_merge_patch({}.settings, '{{"identity": null}}')"""
"""What decides a rollout's answers beside the model."""

_STEP = "side NOT IN ('base', 'tuned')"


_TABLES = (
    "edge_summaries", "metric_summaries", "question_summaries", "comparison_runs", "outcomes", "comparisons",
)  # fmt: skip
"""All that have rows of a comparison."""


class Comparisons:
    """Comparisons by key, and the runs of each by side: `base`, `tuned`, or a step of the tuning."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(
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
        at = Cut.from_json(settings["selection"]["alpha"])
        row = {
            "comparison_key": key,
            "pair": pair,
            "question_set": question_set,
            "cohort": settings["selection"]["cohort"],
            at.unit: at.amount,
            **dict(zip(("base_rollout", "tuned_rollout"), rollouts, strict=True)),
            "settings": json.dumps(settings),
            "cut": selected.cut if selected else None,
            "mean_length": selected.mean_length if selected else None,
            "counts": json.dumps(selected.counts) if selected else None,
            "warning": warning,
            "failure": failure,
            "created": now(),
        }
        with self._connection.transaction() as cursor:
            cursor.execute(
                f"INSERT INTO comparisons ({', '.join(row)}) VALUES ({', '.join('?' * len(row))}) "
                "ON CONFLICT DO NOTHING",
                [*row.values()],
            )
            if selected:
                columns = {
                    "comparison_key": [key] * len(selected.outcomes),
                    "question_id": [o.question_id for o in selected.outcomes],
                    "cohort": [o.cohort for o in selected.outcomes],
                    "reason": pa.array([o.reason for o in selected.outcomes], pa.string()),
                }
                insert(cursor, "outcomes", columns)

    def saved(self, key: str) -> bool:
        """Whether what a selection kept has been entered."""
        return bool(self._connection.rows("SELECT 1 FROM comparisons WHERE comparison_key = ?", key))

    def link(self, key: str, runs: Mapping[str, str]) -> dict[str, str]:
        """Say which run stands for each side, where that has not been said; returns the run of every side.

        A side keeps the run that it has: one of an earlier version has another key than the same would have now.
        """
        columns = {"comparison_key": [key] * len(runs), "side": list(runs), "run_key": list(runs.values())}
        if runs.keys() - self.runs(key).keys():
            with self._connection.transaction() as cursor:
                insert(cursor, "comparison_runs", columns)
        return self.runs(key)

    def runs(self, key: str) -> dict[str, str]:
        """The run of each side, finished or not."""
        return dict(self._connection.rows("SELECT side, run_key FROM comparison_runs WHERE comparison_key = ?", key))

    def carry(self, key: str, other: str, before: str) -> None:
        """Let a comparison have the steps that another has `before` one, with their runs and summaries: of one base on
        the same samples, by the same method. A step that it has stays as it is. Of both it is the newer one now."""
        with self._connection.transaction() as cursor:
            cursor.execute("UPDATE comparisons SET created = ? WHERE comparison_key = ?", [now(), key])
            taken = cursor.execute(
                f"""SELECT side FROM edge_summaries WHERE comparison_key = $1 AND {_STEP} AND side < $2
                    AND side NOT IN (SELECT side FROM comparison_runs WHERE comparison_key = $3)""",
                [other, before, key],
            ).fetchall()
            for (side,) in taken:
                for table in ("comparison_runs", "metric_summaries", "question_summaries"):
                    cursor.execute(
                        f"INSERT INTO {table} BY NAME SELECT * REPLACE ($1 AS comparison_key) FROM {table} "
                        "WHERE comparison_key = $2 AND side = $3",
                        [key, other, side],
                    )
                found = "SELECT summary FROM edge_summaries WHERE comparison_key = ? AND side = ?"
                ((old,),) = cursor.execute(found, [other, side]).fetchall()
                cursor.execute("INSERT INTO edge_summaries (comparison_key, side) VALUES (?, ?)", [key, side])
                ((new,),) = cursor.execute(found, [key, side]).fetchall()
                cursor.execute(
                    "INSERT INTO edge_values BY NAME SELECT * REPLACE ($1::INTEGER AS summary) FROM edge_values "
                    "WHERE summary = $2 ORDER BY edge",
                    [new, old],
                )

    def forget(self, keys: Sequence[str]) -> None:
        """Take comparisons out of the store, but not their answers and scores; one of which more was measured stays."""
        with self._connection.transaction() as cursor:
            gone = "SELECT unnest($1::VARCHAR[]) EXCEPT SELECT comparison_key FROM evaluated"
            cursor.execute(
                "DELETE FROM edge_values WHERE summary IN "
                f"(SELECT summary FROM edge_summaries WHERE comparison_key IN ({gone}))",
                [list(keys)],
            )
            for table in _TABLES:
                cursor.execute(f"DELETE FROM {table} WHERE comparison_key IN ({gone})", [list(keys)])

    def settled(self, request_key: str, steps: Sequence[str] = ()) -> bool:
        """Whether nothing is left to compute for what a request asks, with `steps` of its training, or it cannot be.

        On whatever machine it was computed: one that had another device made another comparison of the same request.
        """
        rows = self._connection.rows(
            f"""SELECT failure, list(DISTINCT side) FILTER ({UP_TO_DATE})
               FROM comparisons LEFT JOIN metric_summaries USING (comparison_key)
               WHERE settings->>'request' = ? GROUP BY comparison_key, failure""",
            request_key,
        )
        return any(failure is not None or {"tuned", *steps} <= set(sides or ()) for failure, sides in rows)

    def table(self) -> pd.DataFrame:
        """Every comparison: what it is of, its counts, accuracies, and the keys of its finished runs (or None).

        `ready` says that both runs are finished and their summary is kept, `up_to_date` that no earlier version made
        that.
        """
        return self._connection.frame(
            f"""WITH accuracies AS (
                   SELECT rollout_key, avg(correct::INT) AS accuracy FROM answers GROUP BY rollout_key),
               compared AS (SELECT comparison_key, bool_and({UP_TO_DATE}) AS up_to_date FROM metric_summaries
                            WHERE side = 'tuned' GROUP BY comparison_key),
               finished AS (SELECT comparison_key, side, run_key, graph FROM comparison_runs JOIN runs USING (run_key)
                            WHERE finished IS NOT NULL)
               SELECT c.comparison_key, c.pair, c.question_set, c.cohort, c.alpha, c.tokens, c.cut,
                   c.mean_length, c.counts,
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
               LEFT JOIN finished b ON b.comparison_key = c.comparison_key AND b.side = 'base'
               LEFT JOIN finished t ON t.comparison_key = c.comparison_key AND t.side = 'tuned'
               ORDER BY c.created DESC"""
        )

    def questions(self, key: str, question_id: str | None = None) -> pd.DataFrame:
        """Every question of a comparison, or one: text, both answers and grades, cohort, and why it was not selected.

        `*_pieces` are the texts of the tokens, `*_length` an answer's number of tokens.
        """
        return self._connection.frame(
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
            key,
            question_id,
        )

    def steps(self, key: str) -> pd.DataFrame:
        """The training steps that were compared with the base: `side`, the step's `correct` of `asked` answers, and
        whether its summary is `up_to_date`.

        A step's answers are its model's own to what the base was asked, also where another text is scored.
        """
        return self._connection.frame(
            f"""WITH compared AS (SELECT side, bool_and({UP_TO_DATE}) AS up_to_date FROM metric_summaries
                                 WHERE comparison_key = $1 GROUP BY side)
               SELECT l.side, sum(a.correct::INT) AS correct, count(*) AS asked, any_value(s.up_to_date) AS up_to_date
               FROM comparison_runs l JOIN runs r USING (run_key) JOIN compared s USING (side)
               JOIN comparisons c USING (comparison_key)
               LEFT JOIN rollouts b ON b.rollout_key = c.base_rollout
               LEFT JOIN rollouts o ON o.identity = r.identity AND {_ASKED.format("o")} = {_ASKED.format("b")}
               JOIN answers a ON a.rollout_key = coalesce(o.rollout_key, r.settings->>'rollout')
               WHERE l.comparison_key = $1 AND l.side NOT IN ('base', 'tuned') AND r.finished IS NOT NULL
               GROUP BY l.side ORDER BY l.side""",
            key,
        )
