"""The queue of jobs, and what has become of them.

A running job is lent to its worker, until that gives it back, is known to be dead, or has been silent for too long.
"""

import json
import time
from typing import Any

import duckdb
import pandas as pd
from prometheus_client import Histogram

from probing.errors import StoreError
from probing.store import leases
from probing.store.connection import Connection, now
from probing.store.records import ACTIVE, JobRow

DEATHS = 3
"""Deaths of its worker at the same batch after which a job is given up."""

BATCH_SECONDS = Histogram(
    "probing_batch_seconds",
    "Time between two finished batches of a job",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
"""Observed by the process that owns the store."""


class Queue:
    """Jobs, by number."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opened_at = time.monotonic()
        self._heard: dict[str, float] = {}
        self._batches: dict[int, tuple[str, int, float]] = {}

    def submit(self, spec: dict[str, Any], requested_by: str | None = None, urgent: bool = False) -> int:
        """Queue a job, or return the one with the same spec that is queued or running.

        Those that are `urgent`, as somebody waits for them, are done before the others, also if they were queued before
        anybody did.
        """
        text = json.dumps(spec, sort_keys=True)
        with self._connection.transaction(of_jobs=True) as cursor:
            same = cursor.execute(
                f"SELECT job_id FROM jobs WHERE status IN {ACTIVE} AND spec::VARCHAR = ?", [text]
            ).fetchone()
            if same:
                cursor.execute("UPDATE jobs SET urgent = urgent OR ? WHERE job_id = ?", [urgent, same[0]])
                return same[0]
            new = cursor.execute(
                "INSERT INTO jobs (spec, status, created, requested_by, urgent) VALUES (?, 'queued', ?, ?, ?) "
                "RETURNING job_id",
                [text, now(), requested_by, urgent],
            ).fetchone()
            assert new is not None
            return new[0]

    def is_busy(self) -> bool:
        """Whether a job waits or runs."""
        return bool(self._connection.rows(f"SELECT 1 FROM jobs WHERE status IN {ACTIVE} LIMIT 1"))

    def claim(self, worker: str, job_id: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """Lend the next queued job (or the one named) to `worker`, which does no other.

        Jobs of workers that are dead, or have been silent for longer than `leases.patience`, are queued again first.
        """
        self.greet(worker)
        with self._connection.transaction(of_jobs=True) as cursor:
            self._give_back(cursor, worker)
            self._take_back(cursor, [name for name in self._working(cursor) if self._is_gone(name)])
            job = cursor.execute(
                "SELECT job_id, spec FROM jobs WHERE status = 'queued' AND ($1 IS NULL OR job_id = $1) "
                "ORDER BY urgent DESC, job_id LIMIT 1",
                [job_id],
            ).fetchone()
            if job is not None:
                cursor.execute(
                    "UPDATE jobs SET status = 'running', worker = ?, started = coalesce(started, ?) WHERE job_id = ?",
                    [worker, now(), job[0]],
                )
            leases.tidy(self._connection.path, self._working(cursor))
        return None if job is None else (job[0], json.loads(job[1]))

    def release(self, worker: str | None = None) -> None:
        """Take the job of a worker that stops working back into the queue; or the jobs of all, as none is left."""
        with self._connection.transaction(of_jobs=True) as cursor:
            self._give_back(cursor, worker)

    def _give_back(self, cursor: duckdb.DuckDBPyConnection, worker: str | None) -> None:
        running = "status = 'running' AND ($1 IS NULL OR worker = $1)"
        cursor.execute(f"UPDATE jobs SET status = 'queued' WHERE {running}", [worker])

    def bury(self, pid: int) -> None:
        """Take the job of a worker whose process has died back into the queue, or give it up."""
        with self._connection.transaction(of_jobs=True) as cursor:
            self._take_back(cursor, [name for name in self._working(cursor) if _process_of(name) == str(pid)])

    def _working(self, cursor: duckdb.DuckDBPyConnection) -> list[str]:
        """The workers that have a job."""
        return [row[0] for row in cursor.execute("SELECT worker FROM jobs WHERE status = 'running'").fetchall()]

    def _is_gone(self, worker: str) -> bool:
        silent = time.monotonic() - self._heard.get(worker, self._opened_at)
        return leases.is_dead(self._connection.path, worker) or silent > leases.patience()

    def _take_back(self, cursor: duckdb.DuckDBPyConnection, dead: list[str]) -> None:
        """Queue the jobs of dead workers again, unless their workers died `DEATHS` times in a row at the same batch:
        `attempts` counts those."""
        theirs = "WHERE status = 'running' AND worker IN (SELECT unnest($1::VARCHAR[]))"
        cursor.execute(
            "UPDATE jobs SET attempts = CASE WHEN died_at = stage || ' ' || done THEN attempts + 1 ELSE 1 END, "
            f"died_at = stage || ' ' || done {theirs}",
            [dead],
        )
        cursor.execute(
            "UPDATE jobs SET status = 'failed', finished = $2, message = 'Its worker died or hung ' || attempts || "
            "' times at the same batch (' || stage || ', ' || done || ' of ' || total || "
            f"'). See the log, then try again.' {theirs} AND attempts >= $3",
            [dead, now(), DEATHS],
        )
        cursor.execute(f"UPDATE jobs SET status = 'queued' {theirs}", [dead])

    def report(self, job_id: int, worker: str, stage: str, done: int, total: int) -> bool:
        """Note how far `worker` is with a job; False if it should stop. Says too that the worker is alive."""
        self.greet(worker)
        with self._connection.transaction(of_jobs=True) as cursor:
            its = cursor.execute(
                "UPDATE jobs SET stage_started = CASE WHEN stage = $1 THEN coalesce(stage_started, $4) ELSE $4 END, "
                "stage = $1, done = $2, total = $3 WHERE job_id = $5 AND status = 'running' AND worker = $6 "
                "RETURNING job_id",
                [stage, done, total, now(), job_id, worker],
            ).fetchall()
        if its:
            self._time_batch(job_id, stage, done)
        return bool(its)

    def _time_batch(self, job_id: int, stage: str, done: int) -> None:
        now = time.monotonic()
        last_stage, last_done, since = self._batches.get(job_id, ("", 0, now))
        if (stage, done) == (last_stage, last_done):
            return
        if stage == last_stage and done > last_done:
            BATCH_SECONDS.observe(now - since)
        self._batches[job_id] = stage, done, now

    def greet(self, worker: str) -> None:
        """Note that a worker, whose name begins with its process and a dash, is there."""
        self._heard[worker] = time.monotonic()

    def silent_for(self, pid: int) -> float:
        """Seconds since the worker in a process was last heard of, or since the store was opened if it never was."""
        heard = [at for worker, at in list(self._heard.items()) if _process_of(worker) == str(pid)]
        return time.monotonic() - max(heard, default=self._opened_at)

    def end(self, job_id: int, status: str, message: str = "", worker: str | None = None) -> None:
        """End a job as `done`, `failed` or `cancelled`; one that has ended stays as it is.

        With `worker`, only if it is lent to that one.
        """
        with self._connection.transaction(of_jobs=True) as cursor:
            cursor.execute(
                "UPDATE jobs SET status = $1, message = $2, finished = $3 WHERE job_id = $4 "
                "AND status IN ('queued', 'running') AND ($5 IS NULL OR (status = 'running' AND worker = $5))",
                [status, message, now(), job_id, worker],
            )
        self._batches.pop(job_id, None)

    def jobs(self) -> pd.DataFrame:
        """Every job, the newest first."""
        return self._connection.frame("SELECT * FROM jobs ORDER BY job_id DESC")

    def job(self, job_id: int) -> JobRow:
        """One job.

        Raises:
            StoreError: there is none of this number.
        """
        frame = self._connection.frame("SELECT * FROM jobs WHERE job_id = ?", job_id)
        if frame.empty:
            raise StoreError(f"There is no job {job_id}.", "")
        return JobRow.of(frame.to_dict("records")[0])


def _process_of(worker: str) -> str:
    return worker.partition("-")[0]
