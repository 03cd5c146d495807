"""An open DuckDB file: reads with a cursor of their own, writes one after the other, errors as sentences.

The tables of a store each have one. Their methods take and return plain values, arrays and frames, so that `sharing`
can pass them between processes. Each may be called from any thread. Repeating a write changes nothing.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from probing.errors import StoreError
from probing.store.files import private_part
from probing.store.schema import migrate

_AT_ONCE = 1_000_000
"""Rows in a piece of a large result."""


def now() -> datetime:
    """The present moment as the store keeps it, in UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


MEMORY = "400MB"
"""What DuckDB may hold at a time. By default it keeps what it has read in most of the machine's memory, beside the
scores that whoever asked for them holds; what does not fit goes to a folder beside the store while it is in use."""


_KNOWS_MORE = "provenance IS NULL OR (provenance->>'device' IS NULL AND $1 != '{}')"

FINISH = (
    f"seconds = CASE WHEN {_KNOWS_MORE} THEN $2 ELSE seconds END, "
    f"provenance = CASE WHEN {_KNOWS_MORE} THEN $1 ELSE provenance END, finished = coalesce(finished, $3)"
)
"""What becomes of an artifact that is complete, given its provenance, seconds, and the time. Of several workers that
did it together, one that found nothing left to do may come first, and knows no provenance."""


class Connection:
    """The file of an open store, and the ways in. With `read_only` others may read it too, and none writes it.

    Raises:
        StoreError: the file is not a store, is of a later version, is held by another program or cannot be written.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self.writing = threading.RLock()
        """Held by whoever writes."""
        self._opened = time.time_ns()
        self._revision = 0
        self._jobs_revision = 0
        try:
            if not read_only:
                self._make()
            self._connection = duckdb.connect(str(path), read_only)
        except OSError as error:
            raise _cannot_make(path, error) from error
        except duckdb.Error as error:
            raise _cannot_open(path, error) from error
        try:
            _lock_down(self._connection, self._snapshots)
            if not read_only:
                self._make_log()
                self._overflow.mkdir(mode=0o700, exist_ok=True)
            migrate(self._connection, read_only)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise _cannot_make(path, error) from error
            if isinstance(error, duckdb.Error):
                raise _cannot_open(path, error) from error
            raise

    def _make(self) -> None:
        """Make the file, for this user only, if it is not there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            with private_part(self.path) as part:
                duckdb.connect(str(part)).close()

    def _make_log(self) -> None:
        """Make the file in which DuckDB writes ahead, for this user only: it uses one that is there, but asks for no
        mode when it makes one, which it does after each checkpoint."""
        self._log.touch(mode=0o600)

    def close(self) -> None:
        """Close the file."""
        with self.writing:
            self._connection.close()
            if not self.read_only:
                with suppress(OSError):  # they are in use, or gone
                    if not self._log.stat().st_size:
                        self._log.unlink()
                with suppress(OSError):
                    self._overflow.rmdir()

    def verify(self) -> None:
        """Read every value of every table.

        Raises:
            StoreError: one cannot be read.
        """
        for (table,) in self.rows("SELECT table_name FROM duckdb_tables() ORDER BY ALL"):
            self.rows(f"SELECT bit_xor(hash(row)) FROM {table} AS row")

    @property
    def _log(self) -> Path:
        return self.path.with_name(self.path.name + ".wal")

    @property
    def _overflow(self) -> Path:
        """Where DuckDB puts what does not fit into memory."""
        return self.path.with_name(self.path.name + ".tmp")

    @property
    def _snapshots(self) -> Path:
        """The one folder in which the database may open other files."""
        return self.path.with_name(self.path.name + ".snapshots")

    def snapshot(self) -> Path:
        """Copy the store as it is now to a new file in the folder `*.snapshots` beside it, and return its path.

        Raises:
            StoreError: there is no room for it.
        """
        target = self._snapshots / f"{now():%Y-%m-%dT%H-%M-%S}-{time.time_ns() % 10**9:09d}.duckdb"
        try:
            self._snapshots.mkdir(mode=0o700, exist_ok=True)
            with private_part(target) as part, self.writing:
                cursor = self._connection.cursor()
                source = cursor.execute("SELECT current_database()").fetchall()[0][0]
                cursor.execute(f"ATTACH '{_quoted(part)}' AS copied")
                try:
                    cursor.execute(f'COPY FROM DATABASE "{source}" TO copied')
                finally:
                    cursor.execute("DETACH copied")
        except (OSError, duckdb.Error) as error:
            raise StoreError(f"No snapshot could be written: {_first_line(error)}.", "Free some disk space.") from error
        return target

    # -- the two ways in ------------------------------------------------------------------------------------------

    def rows(self, sql: str, *parameters: Any) -> list[tuple]:
        """What a query finds."""
        try:
            return self._connection.cursor().execute(sql, parameters).fetchall()
        except duckdb.Error as error:
            raise _cannot_read(self.path, error) from error

    def frame(self, sql: str, *parameters: Any) -> pd.DataFrame:
        """What a query finds, as a table."""
        try:
            return self._connection.cursor().execute(sql, parameters).df()
        except duckdb.Error as error:
            raise _cannot_read(self.path, error) from error

    def revision(self) -> tuple[int, int, int]:
        """Changes with every change of the store: when it was opened, and counts for its jobs and for all else."""
        return self._opened, self._jobs_revision, self._revision

    def memory(self) -> int:
        """Bytes in which DuckDB keeps indexes, what it has read, and what it has yet to write away."""
        return int(self.rows("SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory()")[0][0])

    @contextmanager
    def batches(self, sql: str, *parameters: Any) -> Iterator[pa.RecordBatchReader]:
        """What a query finds, piece by piece: for what should not lie in memory twice."""
        cursor = self._connection.cursor()
        try:
            yield cursor.sql(sql, params=list(parameters)).to_arrow_reader(_AT_ONCE)
        except (duckdb.Error, pa.ArrowException) as error:
            raise _cannot_read(self.path, error) from error
        finally:
            cursor.close()

    @contextmanager
    def transaction(self, of_jobs: bool = False, shown: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """All or nothing of what is written within: of jobs or of all else, and `shown` by pages or not.

        Raises:
            StoreError: the store is only read here, or could not be written.
        """
        if self.read_only:
            raise StoreError("This store is a snapshot that is only read here.", "Nothing can be computed into it.")
        with self.writing:
            cursor = self._connection.cursor()
            try:
                self._make_log()
                cursor.execute("BEGIN")
                yield cursor
                cursor.execute("COMMIT")
                self._jobs_revision += shown and of_jobs
                self._revision += shown and not of_jobs
            except (OSError, duckdb.Error) as error:
                raise StoreError(
                    f"The store {self.path} could not be written: {_first_line(error)}.",
                    "Nothing of this step was kept; free some disk space and try again.",
                ) from error
            finally:
                cursor.close()  # rolls back what was not committed


def insert(
    cursor: duckdb.DuckDBPyConnection,
    table: str,
    columns: dict[str, Any] | pd.DataFrame,
    unique: bool = True,
    returning: str = "",
) -> list[tuple]:
    """Insert columns of equal length, and give what is to be returned of the rows that are new.

    Where rows are `unique`, those that are there already stay as they are.
    """
    rows = (
        pa.Table.from_pandas(columns, preserve_index=False) if isinstance(columns, pd.DataFrame) else pa.table(columns)
    )
    cursor.register("batch", rows)
    sql = f"INSERT INTO {table} BY NAME SELECT * FROM batch"
    sql += " ON CONFLICT DO NOTHING" if unique else ""
    found = cursor.execute(sql + (f" RETURNING {returning}" if returning else "")).fetchall()
    cursor.unregister("batch")
    return found


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _lock_down(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """No more than `MEMORY`, no file but those in `folder`, no network, no extensions, and no way to change that.

    A process that opens a file again shares the database that it has of it, which is locked already.
    """
    if connection.execute("SELECT current_setting('lock_configuration')").fetchall()[0][0]:
        return
    connection.execute(f"SET allowed_directories = ['{_quoted(folder)}/']")
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".!")


def _cannot_make(path: Path, error: OSError) -> StoreError:
    return StoreError(f"Cannot make {path}: {error.strerror}.", "Free some disk space, or name another file.")


def _cannot_read(path: Path, error: Exception) -> StoreError:
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
