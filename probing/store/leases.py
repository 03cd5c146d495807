"""How long a worker may keep a job, and the batches of it that it is at: for as long as it lives and says so.

A worker holds a lock on a file of its own beside the store, which the system frees when its process is gone, however
it went; who is on another machine has none, and is judged by its silence alone.
"""

import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from probing.errors import PersonError
from probing.store.connection import Connection
from probing.store.files import try_lock


def patience() -> float:
    """Seconds that a worker may be silent: `PROBING_PATIENCE`, or half an hour.

    A worker is heard of once it has started, twice a second while it waits for work, at every batch, and every few
    seconds while it generates; loading a large model takes longest.

    Raises:
        PersonError: `PROBING_PATIENCE` is not a positive number.
    """
    text = os.environ.get("PROBING_PATIENCE", "1800")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise PersonError(f"PROBING_PATIENCE is '{text}'.", "It is a number of seconds.")
    return seconds


class Attendance:
    """Who has been heard of, and when; kept by the process that owns the store."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._opened_at = time.monotonic()
        self._heard: dict[str, float] = {}

    def greet(self, worker: str) -> None:
        """Note that a worker is there."""
        self._heard[worker] = time.monotonic()

    def silent_for(self, pid: int) -> float:
        """Seconds since the worker in a process was last heard of, or since the store was opened if it never was."""
        heard = [at for worker, at in list(self._heard.items()) if process_of(worker) == str(pid)]
        return time.monotonic() - max(heard, default=self._opened_at)

    def is_gone(self, worker: str) -> bool:
        """Whether a worker is dead, or has been silent for longer than `patience`."""
        silent = time.monotonic() - self._heard.get(worker, self._opened_at)
        return is_dead(self._store, worker) or silent > patience()


class Leases:
    """What is lent to workers one batch at a time, by the name of the batch, so that none is done twice."""

    def __init__(self, connection: Connection, attendance: Attendance) -> None:
        self._connection = connection
        self._attendance = attendance

    def take(self, worker: str, items: Sequence[str], most: int = 1) -> list[str]:
        """Lend a worker the first of some items that nobody else has, at most so many; those of who is gone are free.

        An owner of the store may die when it has lent something and has not said so. So what is lent to the worker
        already is lent to it again: it asks for nothing that it knows it has.
        """
        self._attendance.greet(worker)
        with self._connection.transaction(shown=False) as cursor:
            sql = "SELECT item, worker FROM leases WHERE item IN (SELECT unnest($1::VARCHAR[]))"
            lent = dict(cursor.execute(sql, [list(items)]).fetchall())
            others = {*lent.values()} - {worker}
            held = {holder for holder in others if not self._attendance.is_gone(holder)}
            free = [item for item in items if lent.get(item) not in held][:most]
            if free:
                cursor.execute("DELETE FROM leases WHERE item IN (SELECT unnest($1::VARCHAR[]))", [free])
                cursor.execute("INSERT INTO leases SELECT unnest($1::VARCHAR[]), $2", [free, worker])
        return free

    def give_back(self, worker: str, items: Sequence[str] | None = None) -> None:
        """Take some items back from a worker, or all that it has."""
        with self._connection.transaction(shown=False) as cursor:
            which = "worker = $1 AND ($2 IS NULL OR item IN (SELECT unnest($2::VARCHAR[])))"
            cursor.execute(f"DELETE FROM leases WHERE {which}", [worker, None if items is None else list(items)])


def process_of(worker: str) -> str:
    """The process that a worker's name begins with."""
    return worker.partition("-")[0]


def sign_of_life(store: Path, worker: str) -> IO[bytes]:
    """The lock of a worker of this process, which holds until it is closed or the process is gone."""
    file = _file(store, worker)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while (lock := try_lock(file)) is None or not file.exists():  # the store's owner looks whether it is free
        time.sleep(0.01)
    return lock


def is_dead(store: Path, worker: str) -> bool:
    """Whether a worker has had a lock, and has it no more."""
    return _is_free(_file(store, worker))


def tidy(store: Path, working: Collection[str]) -> None:
    """Remove the locks that dead workers have left, but for those of workers that still have a job."""
    kept = {_file(store, worker) for worker in working}
    for file in _file(store, "").glob("*-*"):
        lock = try_lock(file) if file not in kept else None
        if lock is not None:
            with lock:
                file.unlink(missing_ok=True)


def _file(store: Path, worker: str) -> Path:
    return store.with_name(store.name + ".workers") / worker.replace("/", "_")


def _is_free(file: Path) -> bool:
    if not file.exists():
        return False
    lock = try_lock(file)
    if lock is not None:
        lock.close()
    return lock is not None
