"""Keeps a worker going while a store has jobs.

The worker is a process of its own. It is started when there is something to do, started again after a pause that grows
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


class Supervisor:
    """Watches the queue of a store; `watch` does so until another thread calls `stop`."""

    def __init__(self, store: Store, log_to_file: bool = True) -> None:
        self.deaths = 0
        """How often a worker has died."""
        self._store = store
        self._log = log_path(store.path) if log_to_file else None
        self._patience = patience()
        self._ending = threading.Event()
        self._worker: subprocess.Popen | None = None
        self._started = 0.0

    def watch(self) -> None:
        """Keep a worker going; a job under way when this ends goes on at the next start."""
        in_a_row = 0
        while not self._ending.wait(_PAUSE):
            try:
                if self._worker is not None:
                    code = self._worker.poll()
                    if code is None:
                        self._kill_if_silent(self._worker)
                        continue
                    if code:
                        self._store.queue.bury(self._worker.pid)
                    self._worker = None
                    in_a_row = in_a_row + 1 if code else 0
                    if code:
                        self.deaths += 1
                        log.warning("the worker ended with code %d", code)
                        self._ending.wait(min(_LONGEST_PAUSE, _PAUSE * 2**in_a_row))
                if self._store.queue.is_busy() and not self._ending.is_set():
                    self._worker = self._start()
                    self._started = time.monotonic()
            except (PersonError, OSError) as error:
                log.error("%s", error)
                self._ending.wait(_LONGEST_PAUSE)
        self._end_worker()

    def stop(self) -> None:
        """Make `watch` end the worker and return."""
        self._ending.set()

    def _kill_if_silent(self, worker: subprocess.Popen) -> None:
        age = time.monotonic() - self._started  # one that never came through is as old as its silence
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

    def _end_worker(self) -> None:
        if self._worker is None or self._worker.poll() is not None:
            return
        self._worker.terminate()
        try:
            self._worker.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()
