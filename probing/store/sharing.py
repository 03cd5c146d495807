"""One store, several processes.

DuckDB lets a single process hold a file. The first process to come owns it: it keeps a lock, opens the file, and
answers the calls of the others, as `owner` has it. `open_store` hides the difference: it gives a `Store`, wherever its
methods run. When the owner ends, or is killed, whichever process calls next takes its place.
"""

import contextlib
import functools
import os
import shutil
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from probing.errors import StoreError
from probing.pairs import STORE
from probing.store import protocol
from probing.store.database import Database
from probing.store.files import private_part, try_lock
from probing.store.owner import PATIENCE, Owner, UnreachableError, reach
from probing.store.protocol import PARTS, QUERIES, Store
from probing.store.spool import Spool


def default_path() -> Path:
    """`PROBING_STORE`, or data/store.duckdb."""
    return Path(os.environ.get("PROBING_STORE") or STORE)


def open_store(path: Path | None = None) -> Store:
    """The store in `path`, made if need be, shared with whoever else has it open.

    Raises:
        StoreError: the file is not a store, is of a later version, or cannot be written.
    """
    shared = SharedStore((path or default_path()).absolute())
    shared.connect()
    return shared


def open_snapshot(path: Path) -> Store:
    """A store that is only read, by any number of processes at once.

    Raises:
        StoreError: it is not there, is not a store, or is of another version.
    """
    if not path.exists():
        raise StoreError(f"There is no store {path}.", "Name one with PROBING_STORE.")
    return Database(path, read_only=True)


def move(source: Path, target: Path) -> Path:
    """Move a file into place, also from another file system, where it is copied first; returns the target.

    Raises:
        StoreError: there is no room, or no such folder.
    """
    try:
        with private_part(target) as part:
            shutil.move(source, part)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error.strerror}.", "Free some space, or name another.") from error
    return target


def restore(snapshot: Path, path: Path) -> Path | None:
    """Put a copy of a snapshot in a store's place, and return where that store is now, if there was one.

    Raises:
        StoreError: the snapshot is no store or of a later version, the store is in use, or there is no room.
    """
    if not snapshot.exists():
        raise StoreError(f"There is no file {snapshot}.", "Name a snapshot.")
    lock = try_lock(path.with_name(path.name + ".lock"))
    if lock is None:
        raise StoreError(f"The store {path} is in use.", "Stop the dashboard and its worker first.")
    before = None
    with lock:
        try:
            with private_part(path) as part:
                _copy_of(snapshot, part)
                if path.exists():
                    before = path.with_name(f"{path.name}.before-{time.time_ns() // 10**9}")
                    _rename_with_log(path, before)
        except OSError as error:
            raise StoreError(f"Cannot restore to {path}: {error.strerror}.", "Free some disk space.") from error
    return before


def _copy_of(snapshot: Path, part: Path) -> None:
    """Copy a snapshot, and see that the copy is a store, and one that this program can read.

    Raises:
        StoreError: it is not.
        OSError: there is no room.
    """
    try:
        shutil.copyfile(snapshot, part)
        with contextlib.closing(Database(part)) as restored:
            restored.file.verify()
            restored.queue.release()
    except StoreError as error:
        raise StoreError(f"{snapshot} cannot be restored: {error.what}".replace(str(part), str(snapshot))) from error


def _rename_with_log(path: Path, target: Path) -> None:
    """Rename a store and what it has written ahead."""
    log = path.with_name(path.name + ".wal")
    path.replace(target)
    if log.exists():
        log.replace(target.with_name(target.name + ".wal"))


class SharedStore:
    """Passes calls on to the database: directly in the process that owns it, else over a connection to that one."""

    read_only = False
    file: protocol.ConnectionQueries
    batches: protocol.BatchesQueries
    queue: protocol.QueueQueries
    leases: protocol.LeasesQueries
    rollouts: protocol.RolloutsQueries
    comparisons: protocol.ComparisonsQueries
    runs: protocol.RunsQueries
    summaries: protocol.SummariesQueries
    evaluations: protocol.EvaluationsQueries

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path)
        self._owner: Owner | None = None
        self._becoming = threading.Lock()
        self._local = threading.local()
        for part in PARTS:
            setattr(self, part, _PASSED_ON[part](functools.partial(self._call, part)))

    def connect(self) -> None:
        """Own the store or reach its owner.

        Raises:
            StoreError: neither is possible.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._become_owner():
            try:
                self._local.connection = reach(self.path)
                return
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _become_owner(self) -> bool:
        with self._becoming:
            if self._owner is not None:
                return True
            lock = try_lock(self.path.with_name(self.path.name + ".lock"))
            if lock is None:
                return False
            try:
                self._owner = Owner(self.path, lock)
            except BaseException:
                lock.close()
                raise
            return True

    def _call(self, part: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            owner = self._owner
            if owner is not None:
                return getattr(getattr(owner.database, part), name)(*args, **kwargs)
            connection: Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                self.connect()
                continue
            try:
                connection.send((part, name, args, kwargs))
                while not connection.poll(PATIENCE):
                    reach(self.path).close()  # a call may take its time, but its owner still greets who comes
                worked, result = connection.recv()
            except (EOFError, OSError):
                self._local.connection = None
                continue
            if worked:
                return result
            raise result

    def close(self) -> None:
        """Give the store up."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None
        if self._owner is not None:
            self._owner.close()
            self._owner = None


Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Any]


class _Part:
    """A part of a store whose methods are passed on."""

    def __init__(self, call: Call) -> None:
        self._call = call


def _passed_on(query: Any) -> Any:
    @functools.wraps(query)
    def call(self: _Part, *args: Any, **kwargs: Any) -> Any:
        return self._call(query.__name__, args, kwargs)

    return call


_PASSED_ON = {
    part: type(queries.__name__, (_Part,), {name: _passed_on(getattr(queries, name)) for name in QUERIES[part]})
    for part, queries in PARTS.items()
}
"""For each part of a store, a class with the methods of its protocol."""
