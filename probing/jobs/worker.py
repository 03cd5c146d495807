"""Doing the jobs of a queue, one after the other.

A worker is a process that shares the store with its owner. It leaves each finished batch in the spool and asks the
owner to take it in, so neither its own death nor the owner's loses a finished batch; whoever continues the job starts
at the first batch that is missing. Several workers may share a job (`probing.jobs.crew`). How many work at a time on a
store, `places` says; each has a GPU to itself: locks beside the store and in the folder for temporary files see to it.
"""

import logging
import os
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import IO

from probing.errors import PersonError, StoreError
from probing.fitting import is_out_of_memory
from probing.jobs.bench import Bench
from probing.jobs.crew import Alone, Crew, new_name
from probing.jobs.job import Job, find_weights_note
from probing.jobs.loading import Models
from probing.jobs.numerics import planned
from probing.jobs.places import place_of, places
from probing.jobs.plan import SIDES, Numerics, Request, Spec, make_request
from probing.jobs.progress import Progress, silent
from probing.pairs import load_registry
from probing.store import Store
from probing.store.leases import sign_of_life
from probing.store.records import JobRow

log = logging.getLogger(__name__)


def _threads() -> int:
    """A worker's share of this machine's cores."""
    return max(1, (os.cpu_count() or 1) // places())


class Cancelled(Exception):  # noqa: N818 - a request, not an error
    """The job should not go on."""


@dataclass
class Worker:
    """Runs jobs of one store, one after the other; keeps the model it used last."""

    store: Store
    name: str = field(default_factory=new_name)
    progress: Progress = silent
    crew: Crew = field(default_factory=lambda: Alone(Bench(Models(threads=_threads()))))
    _alive: IO[bytes] | None = None

    def work(self, job_id: int | None = None) -> bool:
        """Do the next job in the queue (or the one named), or join those who are at one; False if there is none."""
        self._alive = self._alive or sign_of_life(self.store.path, self.name)
        claimed = self.store.queue.claim(self.name, job_id, self.crew.devices)
        if claimed is None:
            return False
        number, spec = claimed
        log.info("job %d: %s", number, spec)
        try:
            self._run(number, make_request(Spec.from_json(spec), load_registry()))
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

    def _run(self, job_id: int, request: Request) -> None:
        def report(stage: str, done: int, total: int) -> None:
            self.progress(stage, done, total)
            if not self.store.queue.report(job_id, self.name, stage, done, total):
                raise Cancelled

        queue = self.store.queue
        settled = queue.settle(job_id) or queue.settle(job_id, asdict(self.crew.numerics(request)))
        if settled is None:
            raise Cancelled
        plan = planned(request, Numerics(**settled))
        if note := find_weights_note(*(plan.checkpoints[side] for side in SIDES)):
            log.info("job %d: %s", job_id, note)
        Job(self.store, self.crew, plan, report, self.name).do()


def serve(store: Store, parent: int, idle: float = 1800.0, pause: float = 0.2, rest: float = 60.0) -> None:
    """Work on the queue until the `parent` process is gone, or nothing has been queued for `idle` seconds.

    A job under way is finished first. After `rest` seconds without one, models are let go: what stays is a process that
    starts at once when somebody asks for an edge.
    """
    bench = Bench(Models(threads=_threads()))
    worker = Worker(store, crew=Alone(bench))
    last = time.monotonic()

    def is_wanted() -> bool:
        return os.getppid() == parent and time.monotonic() < last + idle

    while is_wanted():
        store.queue.greet(worker.name)
        lock = place_of(store) if store.queue.is_busy() else None
        if lock is not None:
            with lock:
                while is_wanted() and worker.work():
                    last = time.monotonic()
        if time.monotonic() > last + rest:
            bench.let_go()
        time.sleep(pause)


def do_all(store: Store, specs: Iterable[Spec], progress: Progress, crew: Crew | None = None) -> None:
    """Do several jobs, one after the other, here or as a `crew` does them.

    Raises:
        StoreError: one of them failed.
    """
    for spec in specs:
        job = follow(store, store.queue.submit(spec.as_json()), progress, crew=crew)
        if job.status != "done":
            raise StoreError(job.message or f"The job was {job.status}.")


def follow(store: Store, job_id: int, progress: Progress, pause: float = 0.2, crew: Crew | None = None) -> JobRow:
    """See a job to its end: do it or join in where there is a place for one more worker, else watch; returns its final
    row. A `crew` is a place of its own."""
    worker = Worker(store, progress=progress)
    if crew is not None:
        worker.crew = crew
    while (job := store.queue.job(job_id)).is_active:
        lock = place_of(store) if crew is None else nullcontext()
        worked = False
        if lock is not None:
            with lock:
                worked = worker.work(job_id)
        if not worked:
            progress(job.stage, job.done, job.total)
            time.sleep(pause)
    return job
