"""What was measured beside scores: an evaluation has a kind, settings, questions, and named units.

Each unit (an edge that was removed, a size of a circuit, a block that was exchanged) has an array over the questions
for one or more measures. The key is that of the artifact itself: pairs and comparisons that need the same evaluation
share it, and it is linked to each.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from probing.errors import StoreError
from probing.store.connection import FINISH, Connection, insert, now
from probing.store.records import Measurements, Subject
from probing.store.spool import MeasurementBatch


class Evaluations:
    """Evaluations by the key of all that decides them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(
        self,
        key: str,
        kind: str,
        subject: Subject,
        settings: dict[str, Any],
        units: Sequence[str],
        ids: Sequence[str],
    ) -> None:
        """Enter an evaluation of `units`, in their order, over the questions `ids`, unless it is there."""
        texts = pa.list_(pa.string())
        columns = {
            "evaluation_key": [key],
            "kind": [kind],
            "settings": [json.dumps(settings)],
            "units": pa.array([list(units)], texts),
            "ids": pa.array([list(ids)], texts),
            "created": [now()],
        }
        with self._connection.transaction() as cursor:
            insert(cursor, "evaluations", columns)
        self.link(key, subject)

    def link(self, key: str, subject: Subject) -> None:
        """Say of what an evaluation is too, where that has not been said."""
        row = [key, subject.pair, subject.question_set, subject.comparison_key or "", subject.side or ""]
        sql = """SELECT 1 FROM evaluated WHERE evaluation_key = ? AND pair = ? AND question_set = ?
                 AND comparison_key = ? AND side = ?"""
        if not self._connection.rows(sql, *row):
            with self._connection.transaction() as cursor:
                cursor.execute("INSERT INTO evaluated VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)

    def finish(self, key: str, provenance: dict[str, Any], seconds: float) -> None:
        """Mark an evaluation as complete, or say with what it was made where nobody has (`FINISH`).

        Raises:
            StoreError: there is no such evaluation, or units are missing.
        """
        wanted = set(self._about(key)[0])
        if missing := wanted - self.measured(key):
            raise StoreError(
                f"Evaluation {key} has {len(wanted) - len(missing)} of its {len(wanted)} units.", "Start it again."
            )
        with self._connection.transaction() as cursor:
            values = [json.dumps(provenance), seconds, now(), key]
            cursor.execute(f"UPDATE evaluations SET {FINISH} WHERE evaluation_key = $4", values)

    def finished(self, key: str) -> bool:
        """Whether an evaluation is complete."""
        sql = "SELECT 1 FROM evaluations WHERE evaluation_key = ? AND finished IS NOT NULL"
        return bool(self._connection.rows(sql, key))

    def made_with(self, kinds: Sequence[str], settings: Mapping[str, str]) -> list[str]:
        """The keys of complete evaluations of some kinds whose settings have these values, in the order in which they
        were made."""
        same = "".join(f" AND settings->>${2 * i + 2} = ${2 * i + 3}" for i in range(len(settings)))
        sql = f"""SELECT evaluation_key FROM evaluations WHERE finished IS NOT NULL
                  AND kind IN (SELECT unnest($1::VARCHAR[])){same} ORDER BY created, evaluation_key"""
        values = [value for setting in settings.items() for value in setting]
        return [key for (key,) in self._connection.rows(sql, list(kinds), *values)]

    def settings(self, key: str) -> dict[str, Any]:
        """All that decides an evaluation.

        Raises:
            StoreError: there is no such evaluation.
        """
        return json.loads(self._row(key, "settings")[0])

    def measured(self, key: str) -> set[str]:
        """The units of an evaluation that are there."""
        sql = "SELECT DISTINCT unit FROM measurements WHERE evaluation_key = ?"
        return {row[0] for row in self._connection.rows(sql, key)}

    def values(self, key: str) -> Measurements:
        """What there is of an evaluation, finished or not.

        Raises:
            StoreError: there is no such evaluation.
        """
        names, ids = self._about(key)
        found = self._connection.frame("SELECT unit, measure, numbers FROM measurements WHERE evaluation_key = ?", key)
        there = set(found["unit"])
        units = tuple(unit for unit in names if unit in there)
        place = {unit: number for number, unit in enumerate(units)}
        values = {m: np.full((len(units), len(ids)), np.nan, np.float32) for m in sorted(set(found["measure"]))}
        for row in found[found["unit"].isin(place)].itertuples():
            values[str(row.measure)][place[str(row.unit)]] = row.numbers
        return Measurements(ids, units, values)

    def _about(self, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The units that an evaluation will have, and its questions."""
        units, ids = self._row(key, "units, ids")
        return tuple(units), tuple(ids)

    def _row(self, key: str, columns: str) -> tuple[Any, ...]:
        """Some columns of an evaluation."""
        found = self._connection.rows(f"SELECT {columns} FROM evaluations WHERE evaluation_key = ?", key)
        if not found:
            raise StoreError(f"There is no evaluation '{key}'.", "Run 'python -m probing probe PAIR --also KIND'.")
        return found[0]

    def table(self) -> pd.DataFrame:
        """Every evaluation with its pair, question set, comparison, side, settings, provenance and progress.

        One that is of several subjects has a row for each. `comparison_key`, `cohort` and its cut are missing where it
        is of a pair as a whole, and `side` where it is of both.
        """
        return self._connection.frame(
            """SELECT e.evaluation_key, e.kind, l.pair, l.question_set, nullif(l.comparison_key, '') AS comparison_key,
                   nullif(l.side, '') AS side, c.cohort, c.alpha, c.tokens, len(e.units) AS units,
                   (SELECT count(DISTINCT unit) FROM measurements m WHERE m.evaluation_key = e.evaluation_key)
                       AS measured,
                   len(e.ids) AS questions, e.seconds, e.settings, e.provenance, e.created, e.finished
               FROM evaluations e JOIN evaluated l USING (evaluation_key)
               LEFT JOIN comparisons c ON c.comparison_key = l.comparison_key
               ORDER BY e.created, l.pair, c.created, l.side"""
        )


def insert_measurements(cursor: duckdb.DuckDBPyConnection, batch: MeasurementBatch) -> None:
    """Take in a batch; units that are there already stay as they are."""
    for measure, values in batch.values.items():
        ends = np.arange(len(batch.units) + 1, dtype=np.int32) * values.shape[1]
        numbers = pa.ListArray.from_arrays(ends, np.ravel(values).astype(np.float32, copy=False))
        names = {"evaluation_key": batch.evaluation_key, "measure": measure}
        same = {name: [value] * len(batch.units) for name, value in names.items()}
        insert(cursor, "measurements", {**same, "unit": list(batch.units), "numbers": numbers})
