"""Doing the jobs of a queue, one after the other.

A worker is a process that shares the store with its owner. It leaves each finished batch in the spool and asks the
owner to take it in, so neither its own death nor the owner's loses a finished batch; whoever continues the job starts
at the first batch that is missing. One worker works at a time on a store, and one on a GPU whatever its store: locks
beside the store and in the folder for temporary files see to it.
"""

import logging
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO

from probing.errors import PersonError, StoreError
from probing.fitting import is_out_of_memory
from probing.jobs.job import Job, find_weights_note
from probing.jobs.loading import Models
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Plan, Spec
from probing.jobs.progress import Progress
from probing.pairs import load_registry
from probing.store import Store
from probing.store.files import try_lock
from probing.store.leases import sign_of_life
from probing.store.records import JobRow

log = logging.getLogger(__name__)


class Cancelled(Exception):  # noqa: N818 - a request, not an error
    """The job should not go on."""


def worker_lock(store: Store) -> IO[bytes] | None:
    """The right to be the one worker of a store, until closed; None while another has it."""
    return try_lock(store.path.with_name(store.path.name + ".worker"))


@dataclass
class Worker:
    """Runs jobs of one store, one after the other; keeps the model it used last."""

    store: Store
    name: str = field(default_factory=lambda: f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
    progress: Progress = lambda stage, done, total: None
    models: Models = field(default_factory=Models)
    _alive: IO[bytes] | None = None

    def work(self, job_id: int | None = None) -> bool:
        """Do the next job in the queue (or the one named); False if there is none."""
        self._alive = self._alive or sign_of_life(self.store.path, self.name)
        claimed = self.store.queue.claim(self.name, job_id)
        if claimed is None:
            return False
        number, spec = claimed
        log.info("job %d: %s", number, spec)
        try:
            self._run(number, make_plan(Spec.from_json(spec), load_registry()))
        except Cancelled:
            log.info("job %d: stopped", number)
        except PersonError as error:
            log.warning("job %d: %s", number, error)
            self.store.queue.end(number, "failed", str(error), self.name)
        except KeyboardInterrupt:
            self.store.queue.release(self.name)
            raise
        except Exception as error:
            log.exception("job %d", number)
            reason = f"A fault in the program: {type(error).__name__}. See the log."
            if is_out_of_memory(error):
                reason = "The device ran out of memory with a single question. Try --dtype bfloat16, or shorter ones."
            self.store.queue.end(number, "failed", reason, self.name)
        else:
            self.store.queue.end(number, "done", worker=self.name)
        return True

    def _run(self, job_id: int, plan: Plan) -> None:
        def report(stage: str, done: int, total: int) -> None:
            self.progress(stage, done, total)
            if not self.store.queue.report(job_id, self.name, stage, done, total):
                raise Cancelled

        if note := find_weights_note(*(plan.checkpoints[side] for side in SIDES)):
            log.info("job %d: %s", job_id, note)
        Job(self.store, self.models, plan, report).do()


def serve(store: Store, parent: int, idle: float = 1800.0, pause: float = 0.2, rest: float = 60.0) -> None:
    """Work on the queue until the `parent` process is gone, or nothing has been queued for `idle` seconds.

    A job under way is finished first. After `rest` seconds without one, models are let go: what stays is a process that
    starts at once when somebody asks for an edge.
    """
    worker = Worker(store)
    last = time.monotonic()

    def is_wanted() -> bool:
        return os.getppid() == parent and time.monotonic() < last + idle

    while is_wanted():
        store.queue.greet(worker.name)
        lock = worker_lock(store) if store.queue.is_busy() else None
        if lock is not None:
            with lock:
                while is_wanted() and worker.work():
                    last = time.monotonic()
        if time.monotonic() > last + rest:
            worker.models.let_go()
        time.sleep(pause)


def do_all(store: Store, specs: Iterable[Spec], progress: Progress) -> None:
    """Do several jobs, one after the other.

    Raises:
        StoreError: one of them failed.
    """
    for spec in specs:
        job = follow(store, store.queue.submit(spec.as_json()), progress)
        if job.status != "done":
            raise StoreError(job.message or f"The job was {job.status}.")


def follow(store: Store, job_id: int, progress: Progress, pause: float = 0.2) -> JobRow:
    """See a job to its end: do it here if no other worker is at work, else watch; returns its final row."""
    worker = Worker(store, progress=progress)
    while (job := store.queue.job(job_id)).is_active:
        lock = worker_lock(store)
        if lock is not None:
            with lock:
                worker.work(job_id)
        else:
            progress(job.stage, job.done, job.total)
            time.sleep(pause)
    return job
