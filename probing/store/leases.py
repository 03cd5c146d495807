"""How long a worker may keep a job: for as long as it lives and says so.

A worker holds a lock on a file of its own beside the store, which the system frees when its process is gone, however
it went; who is on another machine has none, and is judged by its silence alone.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import IO

from probing.errors import PersonError
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
