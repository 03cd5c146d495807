"""Finished batches, out of the spool into the tables."""

from collections.abc import Callable
from typing import Any

from probing.store.connection import Connection
from probing.store.evaluations import insert_measurements
from probing.store.rollouts import insert_answers
from probing.store.runs import insert_positions, insert_scores
from probing.store.spool import AnswerBatch, Batch, MeasurementBatch, PositionBatch, ScoreBatch, Spool

_INSERT: dict[type[Batch], Callable[[Any, Any], None]] = {
    AnswerBatch: insert_answers,
    ScoreBatch: insert_scores,
    PositionBatch: insert_positions,
    MeasurementBatch: insert_measurements,
}


class Batches:
    """What waits in a store's spool."""

    def __init__(self, connection: Connection, spool: Spool) -> None:
        self._connection = connection
        self._spool = spool

    def ingest(self) -> int:
        """Take in the finished batches that wait, each in one transaction; returns how many."""
        taken = 0
        with self._connection.writing:
            for path, batch in self._spool.waiting():
                with self._connection.transaction() as cursor:
                    _INSERT[type(batch)](cursor, batch)
                path.unlink(missing_ok=True)
                taken += 1
        return taken
