"""The queue of jobs, and what has become of them.

A running job is lent to its workers. Each has it until it gives it back, is known to be dead, or has been silent for
too long; a job that none has any more is queued again.
"""

import json
import time
from collections.abc import Sequence
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


_HAS_IT = "job_id IN (SELECT job_id FROM working WHERE worker = ${})"
_ENDED = "status NOT IN ('queued', 'running')"
_JOBS = """SELECT jobs.*, (SELECT list(worker ORDER BY worker) FROM working w WHERE w.job_id = jobs.job_id) AS workers
           FROM jobs"""


class Queue:
    """Jobs, by number."""

    def __init__(self, connection: Connection, attendance: leases.Attendance) -> None:
        self._connection = connection
        self._attendance = attendance
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

    def claim(
        self, worker: str, job_id: int | None = None, join: Sequence[str] = ()
    ) -> tuple[int, dict[str, Any]] | None:
        """Lend the next queued job (or the one named) to `worker`, which does no other.

        Where none is queued, it may `join` the workers of one that runs on one of these devices (`settle`), the fewest
        first. Jobs of workers that are dead, or have been silent for longer than `leases.patience`, are queued again
        before that.
        """
        self.greet(worker)
        with self._connection.transaction(of_jobs=True) as cursor:
            self._leave(cursor, [worker])
            self._take_back(cursor, [name for name in self._working(cursor) if self._attendance.is_gone(name)])
            job = cursor.execute(
                "SELECT job_id, spec FROM jobs WHERE status = 'queued' AND ($1 IS NULL OR job_id = $1) "
                "ORDER BY urgent DESC, job_id LIMIT 1",
                [job_id],
            ).fetchone()
            if job is not None:
                cursor.execute(
                    "UPDATE jobs SET status = 'running', numerics = NULL, started = coalesce(started, ?) "
                    "WHERE job_id = ?",
                    [now(), job[0]],
                )
            elif join:
                job = cursor.execute(
                    "SELECT job_id, any_value(spec) FROM jobs JOIN working USING (job_id) WHERE status = 'running' "
                    "AND numerics->>'device' IN (SELECT unnest($2::VARCHAR[])) AND ($1 IS NULL OR job_id = $1) "
                    "GROUP BY job_id ORDER BY count(*), bool_or(urgent) DESC, job_id LIMIT 1",
                    [job_id, list(join)],
                ).fetchone()
            if job is not None:
                cursor.execute("INSERT INTO working VALUES (?, ?)", [worker, job[0]])
            leases.tidy(self._connection.path, self._working(cursor))
        return None if job is None else (job[0], json.loads(job[1]))

    def settle(self, job_id: int, numerics: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """On what, and in which dtypes, a job is computed by all of its workers: what the first of them says."""
        with self._connection.transaction(of_jobs=True) as cursor:
            if numerics is not None:
                text = json.dumps(numerics)
                cursor.execute("UPDATE jobs SET numerics = ? WHERE job_id = ? AND numerics IS NULL", [text, job_id])
            found = cursor.execute("SELECT numerics FROM jobs WHERE job_id = ?", [job_id]).fetchall()
        return json.loads(found[0][0]) if found and found[0][0] is not None else None

    def release(self, worker: str | None = None) -> None:
        """Take the job of a worker that stops working back; or the jobs of all, as none is left."""
        with self._connection.transaction(of_jobs=True) as cursor:
            self._leave(cursor, self._working(cursor) if worker is None else [worker])

    def _leave(self, cursor: duckdb.DuckDBPyConnection, workers: list[str]) -> None:
        """Some workers have no job any more, nor any part of it; a job that no other has is queued again."""
        for table in ("working", "leases"):
            cursor.execute(f"DELETE FROM {table} WHERE worker IN (SELECT unnest($1::VARCHAR[]))", [workers])
        cursor.execute(
            "UPDATE jobs SET status = 'queued' WHERE status = 'running' AND job_id NOT IN (SELECT job_id FROM working)"
        )

    def bury(self, pid: int) -> None:
        """Take the job of a worker whose process has died back, or give it up."""
        with self._connection.transaction(of_jobs=True) as cursor:
            dead = [name for name in self._working(cursor) if leases.process_of(name) == str(pid)]
            self._take_back(cursor, dead)

    def _working(self, cursor: duckdb.DuckDBPyConnection) -> list[str]:
        """The workers that have a job, or batches of something else."""
        sql = "SELECT worker FROM working UNION SELECT worker FROM leases"
        return [row[0] for row in cursor.execute(sql).fetchall()]

    def _take_back(self, cursor: duckdb.DuckDBPyConnection, dead: list[str]) -> None:
        """Take the jobs of dead workers back, unless their workers died `DEATHS` times in a row at the same batch:
        `attempts` counts those. Of several workers of a job, each is at a batch of its own: one is the same if it has
        the same name, or if nothing was done since the last death."""
        if not dead:
            return
        progress = "stage || ' ' || done"
        item = (
            "coalesce((SELECT min(item) FROM working JOIN leases USING (worker) WHERE working.job_id = jobs.job_id "
            f"AND worker IN (SELECT unnest($1::VARCHAR[]))), {progress})"
        )
        same = f"split_part(died_at, chr(10), 1) = {item} OR split_part(died_at, chr(10), 2) = {progress}"
        theirs = (
            "WHERE status = 'running' AND job_id IN "
            "(SELECT job_id FROM working WHERE worker IN (SELECT unnest($1::VARCHAR[])))"
        )
        cursor.execute(
            f"UPDATE jobs SET attempts = CASE WHEN {same} THEN attempts + 1 ELSE 1 END, "
            f"died_at = {item} || chr(10) || {progress} {theirs}",
            [dead],
        )
        cursor.execute(
            "UPDATE jobs SET status = 'failed', finished = $2, message = 'Its worker died or hung ' || attempts || "
            "' times at the same batch (' || stage || ', ' || done || ' of ' || total || "
            f"'). See the log, then try again.' {theirs} AND attempts >= $3",
            [dead, now(), DEATHS],
        )
        self._leave(cursor, dead)

    def report(self, job_id: int, worker: str, stage: str, done: int, total: int) -> bool:
        """Note how far a job is, as `worker` sees it; False if that should stop. Says too that the worker is alive."""
        self.greet(worker)
        with self._connection.transaction(of_jobs=True) as cursor:
            its = cursor.execute(
                "UPDATE jobs SET stage_started = CASE WHEN stage = $1 THEN coalesce(stage_started, $4) ELSE $4 END, "
                "stage = $1, done = $2, total = $3 WHERE job_id = $5 AND status = 'running' "
                f"AND {_HAS_IT.format(6)} RETURNING job_id",
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
        self._attendance.greet(worker)

    def silent_for(self, pid: int) -> float:
        """Seconds since the worker in a process was last heard of, or since the store was opened if it never was."""
        return self._attendance.silent_for(pid)

    def end(self, job_id: int, status: str, message: str = "", worker: str | None = None) -> None:
        """End a job as `done`, `failed` or `cancelled`; one that has ended stays as it is.

        With `worker`, only if it is lent to that one.
        """
        with self._connection.transaction(of_jobs=True) as cursor:
            cursor.execute(
                "UPDATE jobs SET status = $1, message = $2, finished = $3 WHERE job_id = $4 "
                "AND status IN ('queued', 'running') "
                f"AND ($5 IS NULL OR (status = 'running' AND {_HAS_IT.format(5)}))",
                [status, message, now(), job_id, worker],
            )
            ended = f"SELECT job_id FROM jobs WHERE job_id = $1 AND {_ENDED}"
            free = f"DELETE FROM leases WHERE worker IN (SELECT worker FROM working WHERE job_id IN ({ended}))"
            cursor.execute(free, [job_id])
            cursor.execute(f"DELETE FROM working WHERE job_id IN ({ended})", [job_id])
        self._batches.pop(job_id, None)

    def jobs(self) -> pd.DataFrame:
        """Every job, the newest first."""
        return self._connection.frame(f"{_JOBS} ORDER BY job_id DESC")

    def job(self, job_id: int) -> JobRow:
        """One job.

        Raises:
            StoreError: there is none of this number.
        """
        frame = self._connection.frame(f"{_JOBS} WHERE job_id = ?", job_id)
        if frame.empty:
            raise StoreError(f"There is no job {job_id}.", "")
        return JobRow.of(frame.to_dict("records")[0])
