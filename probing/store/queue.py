"""The queue of jobs, and what has become of them."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
from prometheus_client import Histogram

from probing.errors import StoreError
from probing.store.connection import Connection, now

DEATHS = 3
"""Deaths of its worker at the same batch after which a job is given up."""

ACTIVE = ("queued", "running")

BATCH_SECONDS = Histogram(
    "probing_batch_seconds",
    "Time between two finished batches of a job",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
"""Observed by the process that owns the store."""


class Queue(Connection):
    """Jobs, by number."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        super().__init__(path, read_only)
        self._opened_at = time.monotonic()
        self._heard: dict[str, float] = {}
        self._batches: dict[int, tuple[str, int, float]] = {}

    def submit(self, spec: dict[str, Any], requested_by: str | None = None) -> int:
        """Queue a job, or return the one with the same spec that is queued or running."""
        text = json.dumps(spec, sort_keys=True)
        with self._transaction(of_jobs=True) as cursor:
            same = cursor.execute(
                "SELECT job_id FROM jobs WHERE status IN ('queued', 'running') AND spec::VARCHAR = ?", [text]
            ).fetchone()
            if same:
                return same[0]
            new = cursor.execute(
                "INSERT INTO jobs (spec, status, created, requested_by) VALUES (?, 'queued', ?, ?) RETURNING job_id",
                [text, now(), requested_by],
            ).fetchone()
            assert new is not None
            return new[0]

    def claim(self, worker: str, job_id: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """Give the next queued job (or the one named) to `worker`, which holds the worker's lock.

        Jobs that a dead worker left running are queued again first, unless their workers died `DEATHS` times in a row
        at the same batch: `attempts` counts those.
        """
        self.greet(worker)
        with self._transaction(of_jobs=True) as cursor:
            cursor.execute(
                "UPDATE jobs SET attempts = CASE WHEN died_at = stage || ' ' || done THEN attempts + 1 ELSE 1 END, "
                "died_at = stage || ' ' || done WHERE status = 'running' AND worker != ?",
                [worker],
            )
            cursor.execute(
                "UPDATE jobs SET status = 'failed', finished = ?, message = 'Its worker died or hung ' || attempts || "
                "' times at the same batch (' || stage || ', ' || done || ' of ' || total || "
                "'). See the log, then try again.' WHERE status = 'running' AND worker != ? AND attempts >= ?",
                [now(), worker, DEATHS],
            )
            cursor.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running' AND worker != ?", [worker])
            job = cursor.execute(
                "SELECT job_id, spec FROM jobs WHERE status = 'queued' AND ($1 IS NULL OR job_id = $1) "
                "ORDER BY job_id LIMIT 1",
                [job_id],
            ).fetchone()
            if job is None:
                return None
            cursor.execute(
                "UPDATE jobs SET status = 'running', worker = ?, started = coalesce(started, ?) WHERE job_id = ?",
                [worker, now(), job[0]],
            )
            return job[0], json.loads(job[1])

    def report(self, job_id: int, stage: str, done: int, total: int) -> bool:
        """Note how far a running job is; False if it should stop. Says too that its worker is alive."""
        self._time_batch(job_id, stage, done)
        with self._transaction(of_jobs=True) as cursor:
            cursor.execute(
                "UPDATE jobs SET stage_started = CASE WHEN stage = $1 THEN coalesce(stage_started, $4) ELSE $4 END, "
                "stage = $1, done = $2, total = $3 WHERE job_id = $5",
                [stage, done, total, now(), job_id],
            )
            row = cursor.execute("SELECT status, worker FROM jobs WHERE job_id = ?", [job_id]).fetchone()
        if row is not None and row[1] is not None:
            self.greet(row[1])
        return row is not None and row[0] == "running"

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
        self._heard[worker.partition("-")[0]] = time.monotonic()

    def silent_for(self, pid: int) -> float:
        """Seconds since the worker in a process was last heard of, or since the store was opened if it never was."""
        return time.monotonic() - self._heard.get(str(pid), self._opened_at)

    def close_job(self, job_id: int, status: str, message: str = "") -> None:
        """End a job as `done`, `failed` or `cancelled`; one that has ended stays as it is."""
        with self._transaction(of_jobs=True) as cursor:
            cursor.execute(
                "UPDATE jobs SET status = ?, message = ?, finished = ? "
                "WHERE job_id = ? AND status IN ('queued', 'running')",
                [status, message, now(), job_id],
            )
        self._batches.pop(job_id, None)

    def jobs(self) -> pd.DataFrame:
        """Every job, the newest first."""
        return self._frame("SELECT * FROM jobs ORDER BY job_id DESC")

    def job(self, job_id: int) -> dict[str, Any]:
        """One job's row."""
        frame = self._frame("SELECT * FROM jobs WHERE job_id = ?", job_id)
        if frame.empty:
            raise StoreError(f"There is no job {job_id}.", "")
        return {str(k): v for k, v in frame.iloc[0].to_dict().items()}
