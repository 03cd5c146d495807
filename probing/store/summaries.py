"""What pages show of a comparison at once."""

from dataclasses import asdict

import pandas as pd

from probing.edge_tables import EDGE_VALUES
from probing.store.connection import Connection, insert
from probing.summary import SUMMARY_VERSION, Summary

UP_TO_DATE = f"coalesce(version, 1) >= {SUMMARY_VERSION}"
"""Whether a row of `metric_summaries` is of this version; the first did not say which it was."""

_OF = "comparison_key = ? AND side = ?"


class Summaries:
    """Summaries by comparison and side."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, comparison_key: str, side: str, summary: Summary) -> None:
        """Keep the comparison of the base with `side`, in place of what an earlier version made of it."""
        if self.saved(comparison_key, side):
            return
        whose = {"comparison_key": comparison_key, "side": side}
        metrics = pd.DataFrame([{"metric": name, **asdict(c)} for name, c in summary.metrics.items()])
        with self._connection.transaction() as cursor:
            for table, rows in (
                ("metric_summaries", metrics.assign(version=SUMMARY_VERSION)),
                ("question_summaries", summary.questions),
            ):
                cursor.execute(f"DELETE FROM {table} WHERE {_OF}", [comparison_key, side])
                insert(cursor, table, rows.assign(**whose))
            insert(cursor, "edge_summaries", {name: [value] for name, value in whose.items()})
            find = f"SELECT summary FROM edge_summaries WHERE {_OF}"
            ((number,),) = cursor.execute(find, [comparison_key, side]).fetchall()
            cursor.execute("DELETE FROM edge_values WHERE summary = ?", [number])
            edges = summary.edges.assign(summary=number, edge=range(len(summary.edges)))
            insert(cursor, "edge_values", edges, unique=False)

    def saved(self, comparison_key: str, side: str) -> bool:
        """Whether `save` kept it, and no earlier version of it did."""
        sql = f"SELECT 1 FROM metric_summaries WHERE {_OF} AND {UP_TO_DATE} LIMIT 1"
        return bool(self._connection.rows(sql, comparison_key, side))

    def metrics(self) -> pd.DataFrame:
        """Every metric of every comparison that has a summary, by `comparison_key`, `side` and `metric`.

        Those of the first `version` have no interval of the relative difference.
        """
        return self._connection.frame(
            "SELECT * REPLACE (coalesce(version, 1) AS version) FROM metric_summaries ORDER BY ALL"
        )

    def questions(self, comparison_key: str, side: str = "tuned") -> pd.DataFrame:
        """Each question's value of every metric: `question_id`, `metric`, `base`, `tuned`; empty if not kept."""
        return self._connection.frame(
            f"SELECT question_id, metric, base, tuned FROM question_summaries WHERE {_OF} ORDER BY metric, question_id",
            comparison_key,
            side,
        )

    def edges(self, comparison_key: str, side: str = "tuned") -> pd.DataFrame:
        """`EDGE_VALUES` of every edge in canonical order; empty if not kept."""
        return self._connection.frame(
            f"SELECT {', '.join(EDGE_VALUES)} FROM edge_values "
            f"WHERE summary = (SELECT summary FROM edge_summaries WHERE {_OF}) ORDER BY edge",
            comparison_key,
            side,
        )
