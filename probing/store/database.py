"""A store, in the process that owns its file."""

from pathlib import Path

from probing.store import protocol
from probing.store.batches import Batches
from probing.store.comparisons import Comparisons
from probing.store.connection import Connection
from probing.store.evaluations import Evaluations
from probing.store.leases import Attendance, Leases
from probing.store.queue import Queue
from probing.store.rollouts import Rollouts
from probing.store.runs import Runs
from probing.store.spool import Spool
from probing.store.summaries import Summaries


class Database:
    """An open store: its file, and tables that each have it. With `read_only` others may read the file too.

    Raises:
        StoreError: the file is not a store, is of a later version, is held by another program or cannot be written.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self.spool = Spool(path)
        self._connection = connection = Connection(path, read_only)
        self.file: protocol.ConnectionQueries = connection
        self.batches: protocol.BatchesQueries = Batches(connection, self.spool)
        attendance = Attendance(path)
        self.queue: protocol.QueueQueries = Queue(connection, attendance)
        self.leases: protocol.LeasesQueries = Leases(connection, attendance)
        self.rollouts: protocol.RolloutsQueries = Rollouts(connection)
        self.comparisons: protocol.ComparisonsQueries = Comparisons(connection)
        self.runs: protocol.RunsQueries = Runs(connection)
        self.summaries: protocol.SummariesQueries = Summaries(connection)
        self.evaluations: protocol.EvaluationsQueries = Evaluations(connection)

    def close(self) -> None:
        """Give the store up."""
        self._connection.close()
