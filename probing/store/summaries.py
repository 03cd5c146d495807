"""What pages show of a comparison at once, of a training's steps, and of a question's tokens."""

from dataclasses import asdict

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.store.connection import Connection, insert
from probing.summary import SUMMARY_VERSION, Summary

UP_TO_DATE = f"coalesce(version, 1) >= {SUMMARY_VERSION}"
"""Whether a row of `metric_summaries` is of this version; the first did not say which it was."""


class Summaries(Connection):
    """Summaries by comparison and side; scores at positions by run and question."""

    def save_summary(self, comparison_key: str, side: str, summary: Summary) -> None:
        """Keep the comparison of the base with `side`, in place of what an earlier version made of it."""
        if self.has_summary(comparison_key, side):
            return
        whose = {"comparison_key": comparison_key, "side": side}
        metrics = pd.DataFrame([{"metric": name, **asdict(c)} for name, c in summary.metrics.items()])
        edges = summary.edges.assign(edge=range(len(summary.edges)))
        with self._transaction() as cursor:
            for table, rows in (
                ("metric_summaries", metrics.assign(version=SUMMARY_VERSION)),
                ("question_summaries", summary.questions),
                ("edge_summaries", edges),
            ):
                cursor.execute(f"DELETE FROM {table} WHERE comparison_key = ? AND side = ?", [comparison_key, side])
                insert(cursor, table, rows.assign(**whose))

    def has_summary(self, comparison_key: str, side: str) -> bool:
        """Whether `save_summary` kept it, and no earlier version of it did."""
        sql = f"SELECT 1 FROM metric_summaries WHERE comparison_key = ? AND side = ? AND {UP_TO_DATE} LIMIT 1"
        return bool(self._rows(sql, comparison_key, side))

    def metric_summaries(self) -> pd.DataFrame:
        """Every metric of every comparison that has a summary, by `comparison_key`, `side` and `metric`.

        Those of the first `version` have no interval of the relative difference.
        """
        return self._frame("SELECT * REPLACE (coalesce(version, 1) AS version) FROM metric_summaries ORDER BY ALL")

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
        """The training steps that were compared with the base: `side`, the step's `correct` of `asked` answers, and
        whether its summary is `up_to_date`.
        """
        return self._frame(
            f"""WITH compared AS (SELECT side, bool_and({UP_TO_DATE}) AS up_to_date FROM metric_summaries
                                 WHERE comparison_key = $1 GROUP BY side)
               SELECT r.side, sum(a.correct::INT) AS correct, count(*) AS asked, any_value(s.up_to_date) AS up_to_date
               FROM runs r JOIN compared s USING (side) JOIN answers a ON a.rollout_key = r.settings->>'rollout'
               WHERE r.comparison_key = $1 AND r.side NOT IN ('base', 'tuned') AND r.finished IS NOT NULL
               GROUP BY r.side ORDER BY r.side""",
            comparison_key,
        )

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
