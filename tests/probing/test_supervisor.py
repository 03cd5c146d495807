"""The worker's watcher: real processes that die, hang and are started again."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.serving import small_registry
from probing.cuts import Cut
from probing.errors import PersonError
from probing.jobs.plan import Spec
from probing.jobs.supervisor import LOG_SIZE, Supervisor, log_path
from probing.jobs.worker import serve
from probing.rollouts import Criteria
from probing.store import Store, open_store
from probing.store.files import try_lock
from probing.store.leases import patience
from probing.store.queue import DEATHS
from tests.conftest import ROOT
from tests.waiting import until

SPEC = Spec("small", "few", (Cut(0.3),), Criteria(n=8))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("PROBING_PAIRS", str(small_registry(tmp_path)))
    opened = open_store(tmp_path / "store.duckdb")
    yield opened
    opened.close()


@pytest.fixture(params=[1, 2])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many workers the store has at a time."""
    monkeypatch.setenv("PROBING_WORKERS", str(request.param))
    return request.param


@pytest.fixture
def watched(store: Store) -> Iterator[Callable[[], Supervisor]]:
    running: list[tuple[Supervisor, threading.Thread]] = []

    def start() -> Supervisor:
        supervisor = Supervisor(store)
        thread = threading.Thread(target=supervisor.watch)
        thread.start()
        running.append((supervisor, thread))
        return supervisor

    yield start
    for supervisor, thread in running:
        supervisor.stop()
        thread.join()


def _children() -> list[psutil.Process]:
    """The workers that this process has started and that are alive."""

    def is_worker(child: psutil.Process) -> bool:
        try:
            return "worker" in child.cmdline()
        except (psutil.ZombieProcess, psutil.NoSuchProcess):
            return False

    return [child for child in psutil.Process().children() if is_worker(child)]


def test_a_worker_that_hangs_is_killed_and_its_job_is_finished_by_the_next(
    workers: int, store: Store, watched: Callable[[], Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.queue.submit(SPEC.as_json())
    supervisor = watched()
    until(lambda: store.queue.job(job).status == "running")
    name = store.queue.job(job).workers[0]
    worker = psutil.Process(int(name.split("-")[0]))

    def hangs() -> bool:
        """It is stopped while it is at a batch: without that, another would finish the job before it is missed."""
        worker.suspend()
        at_a_batch = (name,) in store._owner.database.file.rows("SELECT worker FROM leases")  # type: ignore[attr-defined]
        if not at_a_batch:
            worker.resume()
        return at_a_batch

    until(hangs)
    with monkeypatch.context() as impatient:  # until it is killed: the next one may take its time to start
        impatient.setattr(supervisor, "_patience", 3.0)
        until(lambda: not worker.is_running())
    until(lambda: store.queue.job(job).status == "done")
    until(lambda: supervisor.deaths >= 1)
    assert store.queue.job(job).attempts == 1


def test_a_job_at_which_workers_die_again_and_again_fails_with_the_reason(
    workers: int, store: Store, watched: Callable[[], Supervisor]
) -> None:
    job = store.queue.submit(SPEC.as_json())
    watched()
    killed: set[int] = set()

    def kill() -> bool:
        row = store.queue.job(job)
        pid = int((row.workers or ("0-",))[0].split("-")[0])
        if row.status == "running" and pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        return row.status == "failed"

    until(kill)
    assert len(killed) == DEATHS
    assert f"died or hung {DEATHS} times at the same batch" in store.queue.job(job).message


def test_a_long_log_is_put_aside(store: Store, watched: Callable[[], Supervisor]) -> None:
    log = log_path(store.path)
    log.write_bytes(b"x" * (LOG_SIZE + 1))
    job = store.queue.submit(SPEC.as_json())
    watched()
    until(lambda: store.queue.job(job).status == "done")
    assert log.with_name(log.name + ".1").stat().st_size == LOG_SIZE + 1
    assert f"job {job}: " in log.read_text()


def test_a_worker_run_by_hand_does_the_queue_logs_json_and_leaves_nothing_behind(store: Store) -> None:
    job = store.queue.submit(SPEC.as_json())
    command = [sys.executable, "-m", "probing", "--verbose", "worker", "--store", str(store.path)]
    hand = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PROBING_LOG": "json"}, stderr=subprocess.PIPE, text=True
    )
    until(lambda: store.queue.job(job).status == "done")
    (worker,) = psutil.Process(hand.pid).children()
    hand.terminate()
    _, errors = hand.communicate(timeout=30)
    assert hand.returncode == 0
    assert not worker.is_running()
    events = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    (event,) = [event for event in events if event["message"].startswith(f"job {job}: ")]
    assert event["level"] == "INFO"
    assert event["process"] == worker.pid


def test_two_workers_and_a_command_line_share_the_work(store: Store) -> None:
    jobs = [store.queue.submit(replace(SPEC, selection=Criteria(n=8, seed=seed)).as_json()) for seed in range(3)]
    command = [sys.executable, "-m", "probing", "--verbose", "worker", "--store", str(store.path)]
    workers = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    probe = [sys.executable, "-m", "probing", "--verbose", "probe", "small", "--alpha", "0.3", "--samples", "8"]
    mine = subprocess.run([*probe, "--seed", "0", "--store", str(store.path)], cwd=ROOT, capture_output=True, text=True)
    assert mine.returncode == 0, mine.stderr
    until(lambda: (store.queue.jobs()["status"] == "done").all())
    for worker in workers:
        worker.terminate()
    said = mine.stderr + "".join(worker.communicate(timeout=60)[1] for worker in workers)
    assert "lock" not in said.lower()
    assert "Traceback" not in said
    begun = [int(number) for number in re.findall(r"job (\d+): \{", said)]
    assert sorted(begun) == sorted({*begun}), "no job was begun twice"
    assert {*begun} == {*jobs, *store.queue.jobs()["job_id"]}


def test_a_worker_that_never_comes_through_is_killed(
    store: Store, watched: Callable[[], Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.queue.submit(SPEC.as_json())
    supervisor = watched()
    until(lambda: bool(_children()))
    (worker,) = _children()
    worker.suspend()  # long before it has loaded what it needs
    monkeypatch.setattr(supervisor, "_patience", 0.5)
    until(lambda: supervisor.deaths == 1, 30)
    assert not worker.is_running()
    assert store.queue.job(job).status == "queued"


def test_a_worker_is_heard_of_whatever_it_does_and_is_as_silent_as_the_time_since(store: Store) -> None:
    job = store.queue.submit(SPEC.as_json())
    for say in (
        lambda: store.queue.greet("12-abc"),
        lambda: store.queue.claim("12-abc"),
        lambda: store.queue.report(job, "12-abc", "stage", 0, 1),
    ):
        before = time.monotonic()
        say()
        assert store.queue.silent_for(12) <= time.monotonic() - before
        time.sleep(0.05)
        assert 0.05 <= store.queue.silent_for(12) <= time.monotonic() - before
    assert store.queue.silent_for(1) >= 0.15, "one that was never heard of is as silent as the store is old"


def test_a_worker_that_waits_for_another_is_heard_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with try_lock(store.path.with_name(store.path.name + ".worker")) as lock:
        assert lock is not None
        started = time.monotonic()
        serve(store, os.getppid(), idle=0.5, pause=0.05)
        assert store.queue.silent_for(os.getpid()) < time.monotonic() - started - 0.3


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_patience_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_PATIENCE", text)
    with pytest.raises(PersonError, match="PROBING_PATIENCE"):
        patience()
