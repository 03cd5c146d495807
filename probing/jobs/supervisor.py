"""Keeps workers going while a store has jobs, as many as it has places for (`probing.jobs.places`).

Each worker is a process of its own. It is started when there is something to do, started again after a pause that grows
when it dies, and killed when it has not been heard of for too long, which counts as a death.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from probing.errors import PersonError
from probing.jobs.places import places
from probing.store import Store
from probing.store.files import private
from probing.store.leases import patience

log = logging.getLogger(__name__)

_PAUSE = 0.5
"""Seconds between looks at the queue, doubled with every death of the worker in a row."""

_LONGEST_PAUSE = 30.0
"""Where the doubling stops."""

ROOT = Path(__file__).resolve().parents[2]
"""The folder from which processes of the program's are started."""

LOG_SIZE = 5 * 1024 * 1024
"""Bytes of a worker's log after which the next worker starts a new one; the one before is kept as `*.1`."""


def log_path(store: Path) -> Path:
    """Where a worker's log lies, if it is kept in a file."""
    return store.with_name(store.name + ".log")


@contextmanager
def opened_log(path: Path | None) -> Iterator[IO[bytes] | None]:
    """Where a process that is about to start logs to: the end of a file, which begins anew where it has grown long; or
    None, for where this one logs to."""
    if path is None:
        yield None
        return
    if path.exists() and path.stat().st_size > LOG_SIZE:
        path.replace(path.with_name(path.name + ".1"))
    with private(path, "ab") as output:
        yield output


class _Place:
    """A place for a worker, and the one that has it."""

    def __init__(self) -> None:
        self.worker: subprocess.Popen | None = None
        self.started = 0.0
        self.deaths_in_a_row = 0
        self.empty_until = 0.0


class Supervisor:
    """Watches the queue of a store; `watch` does so until another thread calls `stop`.

    Raises:
        PersonError: a setting is none.
    """

    def __init__(self, store: Store, log_to_file: bool = True) -> None:
        self.deaths = 0
        """How often a worker has died."""
        self._store = store
        self._log = log_path(store.path) if log_to_file else None
        self._patience = patience()
        self._places = [_Place() for _ in range(places())]
        self._ending = threading.Event()

    def watch(self) -> None:
        """Keep workers going; a job under way when this ends goes on at the next start."""
        while not self._ending.wait(_PAUSE):
            try:
                for place in self._places:
                    self._look_at(place)
            except (PersonError, OSError) as error:
                log.error("%s", error)
                self._ending.wait(_LONGEST_PAUSE)
        for place in self._places:
            _end(place.worker)

    def stop(self) -> None:
        """Make `watch` end the workers and return."""
        self._ending.set()

    def _look_at(self, place: _Place) -> None:
        if place.worker is not None:
            code = place.worker.poll()
            if code is None:
                self._kill_if_silent(place.worker, place.started)
                return
            if code:
                self._store.queue.bury(place.worker.pid)
            place.worker = None
            place.deaths_in_a_row = place.deaths_in_a_row + 1 if code else 0
            if code:
                self.deaths += 1
                log.warning("the worker ended with code %d", code)
                place.empty_until = time.monotonic() + min(_LONGEST_PAUSE, _PAUSE * 2**place.deaths_in_a_row)
        if time.monotonic() > place.empty_until and self._store.queue.is_busy():
            place.worker = self._start()
            place.started = time.monotonic()

    def _kill_if_silent(self, worker: subprocess.Popen, started: float) -> None:
        age = time.monotonic() - started  # one that never came through is as old as its silence
        silent = min(age, self._store.queue.silent_for(worker.pid))
        if silent > self._patience:
            log.warning("the worker has not been heard of for %.0f s and is killed", silent)
            worker.kill()
            worker.wait()

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "probing", "--verbose", "worker", "--store", str(self._store.path)]
        command += ["--parent", str(os.getpid())]
        with opened_log(self._log) as output:
            return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _end(worker: subprocess.Popen | None) -> None:
    if worker is None or worker.poll() is not None:
        return
    worker.terminate()
    try:
        worker.wait(timeout=10)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
