"""What runs behind the pages for as long as the server does: the store, and a worker process for its queue.

The worker is a process of its own, started when there is something to do and started again, after a pause that grows,
when it dies. Pages never compute scores; they read the store and add jobs to its queue.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from probing.errors import PersonError
from probing.jobs.plan import make_plan, shipped
from probing.pairs import load_registry
from probing.store import default_path, open_store
from probing.store.database import Database
from probing.store.queue import ACTIVE

log = logging.getLogger(__name__)

_PAUSE = 0.5
"""Seconds between looks at the queue, doubled with every death of the worker in a row."""

_LONGEST_PAUSE = 30.0
"""Where the doubling stops."""


@lru_cache(maxsize=1)
def store() -> Database:
    """The store of this server.

    Raises:
        StoreError: it cannot be opened.
    """
    return open_store()


def is_hosted() -> bool:
    """Whether strangers look at the pages.

    Raises:
        PersonError: `PROBING_MODE` is neither `local` nor `hosted`.
    """
    mode = os.environ.get("PROBING_MODE", "local")
    if mode not in ("local", "hosted"):
        raise PersonError(f"PROBING_MODE is '{mode}'.", "It can be local or hosted.")
    return mode == "hosted"


def queue_shipped() -> None:
    """Queue what the shipped pairs still lack; nothing on a store that has it all."""
    registry = load_registry()
    for spec in shipped(registry):
        try:
            plan = make_plan(spec, registry)
            if not all(store().settled(plan.comparison_key(s), plan.steps) for s in spec.selections()):
                store().submit(spec.as_json())
        except PersonError as error:
            log.warning("pair %s: %s", spec.pair, error)


class Supervisor:
    """Keeps a worker process going while there are jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ending = threading.Event()
        self._worker: subprocess.Popen | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True, name="supervisor")

    def start(self) -> None:
        """Begin to watch the queue."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker and stop watching; a job under way goes on at the next start."""
        self._ending.set()
        self._thread.join(timeout=5)
        if self._worker is not None and self._worker.poll() is None:
            self._worker.terminate()
            try:
                self._worker.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._worker.kill()

    def _watch(self) -> None:
        try:
            queue_shipped()
        except PersonError as error:
            log.error("%s", error)
        deaths = 0
        while not self._ending.wait(_PAUSE):
            if self._worker is not None:
                code = self._worker.poll()
                if code is None:
                    continue
                deaths = deaths + 1 if code else 0
                self._worker = None
                if code:
                    log.warning("the worker ended with code %d", code)
                    self._ending.wait(min(_LONGEST_PAUSE, _PAUSE * 2**deaths))
            try:
                waiting = store().jobs()["status"].isin(ACTIVE).any()
            except PersonError as error:
                log.error("%s", error)
                continue
            if waiting and not self._ending.is_set():
                self._worker = self._start_worker()

    def _start_worker(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "probing", "--verbose", "worker", "--store", str(self.path)]
        root = Path(__file__).resolve().parents[1]
        with self.path.with_name(self.path.name + ".log").open("ab") as output:
            return subprocess.Popen(
                [*command, "--parent", str(os.getpid())],
                cwd=root,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Open the store and supervise a worker for as long as the server runs.

    A store that cannot be opened stops the server with a sentence, before anybody sees a page.
    """
    started = time.monotonic()
    try:
        is_hosted()
        store()
    except PersonError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the one thing said before logging is set up
        os._exit(2)
    supervisor = Supervisor(default_path().absolute())
    supervisor.start()
    log.info("ready after %.1f s", time.monotonic() - started)
    try:
        yield {}
    finally:
        supervisor.stop()
        store().close()
        store.cache_clear()
