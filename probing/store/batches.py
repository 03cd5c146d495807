"""Finished batches, out of the spool into the tables."""

from probing.store.connection import Connection
from probing.store.rollouts import insert_answers
from probing.store.runs import insert_scores
from probing.store.spool import ScoreBatch, Spool


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
                    if isinstance(batch, ScoreBatch):
                        insert_scores(cursor, batch)
                    else:
                        insert_answers(cursor, batch)
                path.unlink(missing_ok=True)
                taken += 1
        return taken
