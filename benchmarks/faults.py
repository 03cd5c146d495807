"""Sudden deaths, full disks, damaged stores, turned-back clocks, strays: is anything lost, is anything wrong?

    python -m benchmarks.faults                 # all of it, half an hour
    python -m benchmarks.faults --quick         # a little of each

Real processes on real stores, with two of the models that ship. After each fault the store must open, or say in a
sentence what is wrong; whatever had been acknowledged must be there; and in the end every score must be, bit for bit,
that of a run which nothing disturbed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.serving import ROOT, Server, small_registry
from probing.errors import PersonError
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Spec
from probing.jobs.progress import silent
from probing.jobs.worker import do_all
from probing.pairs import load_registry
from probing.rollouts import ALPHAS, Criteria
from probing.store import Store, open_store
from probing.store.sharing import restore

QUESTIONS = 160
JOBS_AT_A_TIME = 3
RACERS = 6


class FaultError(Exception):
    """Something was lost or wrong."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise FaultError(what)


def _spec(seed: int) -> Spec:
    return Spec("small", "few", ALPHAS, Criteria(n=24, seed=seed))


class Truth:
    """The same jobs, done in this process and undisturbed."""

    def __init__(self, folder: Path) -> None:
        self._store = open_store(folder / "undisturbed.duckdb")

    def compare(self, store: Store, specs: list[Spec]) -> int:
        """Require that a store has every result of some jobs, bit for bit; returns the number of scores compared."""
        do_all(self._store, specs, silent)
        compared = 0
        for spec in specs:
            plan = make_plan(spec, load_registry())
            for side in SIDES:
                key = plan.rollout_key(side)
                _require(store.rollouts.answers(key) == self._store.rollouts.answers(key), f"answers of {side} differ")
                for selection in spec.selections():
                    run = self._store.comparisons.runs(plan.comparison_key(selection))[side]
                    ours, theirs = store.runs.scores(run), self._store.runs.scores(run)
                    _require(ours.ids == theirs.ids, f"samples of {side} differ")
                    _require(np.array_equal(ours.edges, theirs.edges), f"scores of {side} differ")
                    _require(np.array_equal(ours.loss, theirs.loss), f"losses of {side} differ")
                    _require(
                        store.summaries.edges(plan.comparison_key(selection)).equals(
                            self._store.summaries.edges(plan.comparison_key(selection))
                        ),
                        "summaries differ",
                    )
                    compared += ours.edges.size
        return compared

    def close(self) -> None:
        """Close its store."""
        self._store.close()


def _cli(*arguments: str, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "probing", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]


def _acknowledged(store: Store, specs: list[Spec]) -> set[tuple[str, str]]:
    """Every answer and sample that a store says it has: its key and question."""
    found: set[tuple[str, str]] = set()
    for spec in specs:
        plan = make_plan(spec, load_registry())
        for side in SIDES:
            key = plan.rollout_key(side)
            found |= {(key, question) for question in store.rollouts.answered(key)}
        for selection in spec.selections():
            for run in store.comparisons.runs(plan.comparison_key(selection)).values():
                found |= {(run, question) for question in store.runs.scored(run)}
    return found


# -- sudden deaths -----------------------------------------------------------------------------------------------------


class Deaths:
    """A dashboard with its worker and a command line on one store, each killed again and again."""

    def __init__(self, folder: Path, rng: random.Random, truth: Truth) -> None:
        self.killed = dict.fromkeys(("worker", "dashboard", "command line"), 0)
        self.scores = 0
        self._folder, self._rng, self._truth = folder, rng, truth
        self._epoch = 0
        self._seed = 0
        self._server: Server | None = None
        self._command: subprocess.Popen | None = None
        self._begin()

    def _begin(self) -> None:
        """A new store with new jobs."""
        self._epoch += 1
        self._path = self._folder / f"epoch-{self._epoch}" / "store.duckdb"
        self._path.parent.mkdir()
        self._specs = []
        for _ in range(JOBS_AT_A_TIME):
            self._seed += 1
            self._specs.append(_spec(self._seed))
        self._submit()

    def _submit(self) -> None:
        """Queue whatever is not done; a job that was given up after deaths at one batch is tried again."""
        with closing(open_store(self._path)) as store:
            for spec in self._specs:
                plan = make_plan(spec, load_registry())
                if not all(store.comparisons.settled(plan.request_key(s)) for s in spec.selections()):
                    store.queue.submit(spec.as_json())

    def round(self) -> None:
        """Kill one process at a random moment of its work."""
        if self._server is None:
            self._server = Server(self._path)
        if self._command is None or self._command.poll() is not None:
            self._command = _cli("probe", "small", "--store", str(self._path), "--samples", "24", "--seed",
                                 str(self._specs[-1].selection.seed))  # fmt: skip
        seen: set[tuple[str, str]] = set()
        until = time.monotonic() + self._rng.uniform(0.3, 9.0)
        with closing(open_store(self._path)) as store:
            while time.monotonic() < until:
                seen |= _acknowledged(store, self._specs)
                time.sleep(0.01)
        victim = self._kill()
        with closing(open_store(self._path)) as store:
            lost = seen - _acknowledged(store, self._specs)
            _require(not lost, f"the death of the {victim} lost {len(lost)} acknowledged results")
            store.file.verify()
            jobs = store.queue.jobs()
            done = not jobs["status"].isin(("queued", "running")).any()
        if done:
            self._submit()
            with closing(open_store(self._path)) as store:
                done = not store.queue.jobs()["status"].isin(("queued", "running")).any()
            if done:
                self.end()
                self._begin()

    def _kill(self) -> str:
        assert self._server is not None and self._command is not None
        workers = [p for p in psutil.Process(self._server.process.pid).children() if "worker" in p.cmdline()]
        alive = {"dashboard": True, "worker": bool(workers), "command line": self._command.poll() is None}
        able = [name for name, here in alive.items() if here]
        victim = min(able, key=lambda name: (self.killed[name], self._rng.random()))
        if victim == "worker":
            workers[0].kill()
        elif victim == "command line":
            self._command.kill()
            self._command.communicate()
            self._command = None
        else:
            self._server.process.kill()
            self._server.process.wait()
            self._server = None
        self.killed[victim] += 1
        return victim

    def end(self) -> None:
        """Let the work be finished, and compare it."""
        with closing(open_store(self._path)) as store:
            do_all(store, self._specs, silent)
            self.scores += self._truth.compare(store, self._specs)
        self.stop()

    def stop(self) -> None:
        """End the processes."""
        if self._command is not None:
            self._command.kill()
            self._command.communicate()
            self._command = None
        if self._server is not None:
            self._server.stop()
            self._server = None


def deaths(folder: Path, rounds: int, truth: Truth) -> str:
    """SIGKILL at random moments to worker, dashboard and command line while they write."""
    victims = Deaths(folder, random.Random(0), truth)
    try:
        for number in range(1, rounds + 1):
            victims.round()
            if number % 20 == 0:
                print(f"    {number} rounds, killed so far: {victims.killed}", flush=True)
        victims.end()
    finally:
        victims.stop()
    killed = ", ".join(f"{count} × the {name}" for name, count in victims.killed.items())
    return f"{rounds} rounds ({killed}): nothing lost, {victims.scores:,} scores equal bit for bit"


# -- full disk ---------------------------------------------------------------------------------------------------------


@contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of a few megabytes; what it gives makes it larger."""

    def grow(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield grow
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(folder: Path, rounds: int, truth: Truth) -> str:
    """The store's disk is full: a sentence, and with more room the job goes on where it was."""
    if os.geteuid() != 0:
        return "not tried: only root may make a small file system"
    disk = folder / "disk"
    disk.mkdir()
    stopped = 0
    with _small_disk(disk, "300k") as grow:
        for size in ("450k", "600k", "800k", "1m", "2m", "4m", "8m", "400m"):
            run = _cli("probe", "small", "--store", str(disk / "store.duckdb"), "--samples", "24", "--seed", "1")
            output, _ = run.communicate(timeout=300)
            _require("Traceback" not in output, f"a traceback on a full disk:\n{output}")
            if run.returncode == 0:
                grow("400m")
                break
            stopped += 1
            _require(run.returncode == 2 and "space" in output.lower(), f"on a full disk: {output}")
            grow(size)
        else:
            raise FaultError("the job was not finished with enough room")
        with closing(open_store(disk / "store.duckdb")) as store:
            compared = truth.compare(store, [_spec(1)])
    _require(stopped > 0, "the disk was never full")
    return f"stopped {stopped} times with a sentence, then finished: {compared:,} scores equal"


# -- damaged stores ----------------------------------------------------------------------------------------------------

_LOOK = """
import sys
from pathlib import Path
from probing.errors import PersonError
from probing.store import open_store
try:
    store = open_store(Path(sys.argv[1]))
    try:
        store.file.verify()
        store.comparisons.table(), store.summaries.metrics(), store.queue.jobs(), store.runs.table()
        print("whole")
    finally:
        store.close()
except PersonError as error:
    print("sentence:", error)
"""


def damaged(folder: Path, rounds: int, truth: Truth) -> str:
    """A store cut short or overwritten at random: it opens or says what is wrong, and a snapshot brings it back."""
    good = folder / "good.duckdb"
    with closing(open_store(good)) as store:
        do_all(store, [_spec(1)], silent)
        snapshot = store.file.snapshot()
    rng = random.Random(1)
    content = good.read_bytes()
    path = folder / "damaged" / "store.duckdb"
    path.parent.mkdir()
    found = {"whole": 0, "sentence": 0}
    for number in range(rounds):
        place = rng.randrange(len(content))
        if number % 2:
            length = rng.randrange(1, 4096)
            path.write_bytes(content[:place] + rng.randbytes(length) + content[place + length :])
        else:
            path.write_bytes(content[:place])
        path.with_name(path.name + ".wal").unlink(missing_ok=True)
        run = subprocess.run(
            [sys.executable, "-c", _LOOK, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        said = run.stdout.split(":")[0].strip()
        _require(run.returncode == 0 and said in found, f"damage at {place}: code {run.returncode}\n{run.stderr}")
        found[said] += 1
    restore(snapshot, path)
    with closing(open_store(path)) as store:
        compared = truth.compare(store, [_spec(1)])
    return (
        f"{rounds} damaged stores: {found['sentence']} refused with a sentence, {found['whole']} unharmed where it "
        f"counts; restored from a snapshot, {compared:,} scores equal"
    )


# -- clocks, races -----------------------------------------------------------------------------------------------------


def clock_set_back(folder: Path, rounds: int, truth: Truth) -> str:
    """A job is begun, and finished by processes whose clock is ten days behind."""
    faketime = shutil.which("faketime")
    if faketime is None:
        return "not tried: the program faketime is not installed"
    path = folder / "store.duckdb"
    with closing(open_store(path)) as store:
        job = store.queue.submit(_spec(1).as_json())
        first = _cli("worker", "--store", str(path))
        while len(_acknowledged(store, [_spec(1)])) < QUESTIONS:
            time.sleep(0.01)
        for process in (*psutil.Process(first.pid).children(), first):
            process.kill()
        first.communicate()
        before = _acknowledged(store, [_spec(1)])
    command = [faketime, "-f", "-10d", sys.executable, "-m", "probing", "probe", "small", "--store", str(path)]
    run = subprocess.run(
        [*command, "--samples", "24", "--seed", "1"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    _require(run.returncode == 0, f"with the clock set back: {run.stderr}")
    with closing(open_store(path)) as store:
        _require(before <= _acknowledged(store, [_spec(1)]), "something was lost")
        row = store.queue.job(job)
        early = row.created - (row.finished or row.created)
        _require(row.status == "done" and early.total_seconds() > 0, "the clock was not set back")
        compared = truth.compare(store, [_spec(1)])
    return f"finished {early.days} days before it began: {compared:,} scores equal"


_RACE = """
import json, sys
from pathlib import Path
from probing.store import open_store
store = open_store(Path(sys.argv[1]))
for k in range(20):
    specs = {"number": int(sys.argv[2]) * 1000 + k}, {"shared": k}
    print(json.dumps([store.queue.submit(spec) for spec in specs]), flush=True)
print("end", flush=True)
sys.stdin.readline()
store.close()
"""


def owners_racing(folder: Path, rounds: int, truth: Truth) -> str:
    """Several processes open a store at once and the first owners are killed: no job is lost, none is there twice."""
    for number in range(rounds):
        path = folder / f"race-{number}.duckdb"
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", _RACE, str(path), str(k)],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for k in range(RACERS)
        ]  # fmt: skip
        owner = path.with_name(path.name + ".owner")
        victims = 0
        while victims < 2:
            try:
                pid = json.loads(owner.read_text())["pid"]
            except (OSError, ValueError):
                time.sleep(0.001)
                continue
            time.sleep(random.Random(number).uniform(0, 0.1))
            if any(racer.pid == pid and racer.poll() is None for racer in racers):
                os.kill(pid, signal.SIGKILL)
                victims += 1
                next(racer for racer in racers if racer.pid == pid).wait()
        acknowledged: set[int] = set()
        for racer in racers:
            alive = racer.returncode is None
            try:
                output, errors = racer.communicate("\n", timeout=60)
            except subprocess.TimeoutExpired as error:
                raise FaultError("a process waited for a store for a minute") from error
            lines = [line for line in output.splitlines() if line.startswith("[") and line.endswith("]")]
            acknowledged |= {job for line in lines for job in json.loads(line)}
            _require(not alive or racer.returncode == 0, f"a racer failed: {errors}")
        with closing(open_store(path)) as store:
            jobs = store.queue.jobs()
        _require(acknowledged <= set(jobs["job_id"]), "an acknowledged job is gone")
        _require(jobs["spec"].is_unique, "a job is there twice")
    return f"{rounds} races of {RACERS} processes, two owners killed in each: no job lost or doubled"


def hanging_worker(folder: Path, rounds: int, truth: Truth) -> str:
    """A worker stops in the middle of a job: it is killed, and the next one finishes the job."""
    server = Server(folder / "store.duckdb", {"PROBING_PATIENCE": "20", "PROBING_START": "nothing"})
    try:
        with closing(open_store(server.store)) as store:
            job = store.queue.submit(_spec(1).as_json())
            deadline = time.monotonic() + 180
            hung: psutil.Process | None = None
            while store.queue.job(job).is_active and time.monotonic() < deadline:
                row = store.queue.job(job)
                if hung is None and row.status == "running" and row.workers and row.stage:
                    hung = psutil.Process(int(row.workers[0].split("-")[0]))
                    hung.suspend()
                time.sleep(0.02)
            _require(hung is not None, "the worker was not caught at work")
            _require(store.queue.job(job).status == "done", "the job was not finished")
            compared = truth.compare(store, [_spec(1)])
    finally:
        server.stop()
    return f"killed after 20 s of silence, the job finished by the next: {compared:,} scores equal"


_OWN = """
import sys
from pathlib import Path
from probing.store import open_store
store = open_store(Path(sys.argv[1]))
for line in sys.stdin:
    print("open", flush=True)
store.close()
"""

_SPAN = 1.0
"""Seconds in which calls are counted at a time."""


@contextmanager
def _process(*command: str) -> Iterator[Callable[[], str]]:
    """A Python process that answers a line with a line, and ends with its input."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        asking, answering = process.stdin, process.stdout

        def ask() -> str:
            print(file=asking, flush=True)
            return answering.readline()

        try:
            yield ask
        finally:
            asking.close()
            process.wait(timeout=60)


def strays(folder: Path, rounds: int, truth: Truth) -> str:
    """Fifty connections at a time that are no callers: calls are as fast as without, and a job is done right."""
    path = folder / "store.duckdb"
    calls = {False: 0, True: 0}
    with _process("-c", _OWN, str(path)) as owner:
        owner()
        with closing(open_store(path)) as store, _process("-m", "benchmarks.strays", str(path)) as come_or_leave:
            job = store.queue.submit({"pair": "none"})

            def count(beside: bool) -> None:
                until = time.monotonic() + _SPAN
                while time.monotonic() < until:
                    store.queue.report(job, "worker", "stage", calls[beside], 10**6)
                    store.queue.job(job)
                    calls[beside] += 2

            for _ in range(rounds):
                count(False)
                come_or_leave()
                count(True)
                come_or_leave()
            store.queue.end(job, "cancelled")
            come_or_leave()
            run = _cli("probe", "small", "--store", str(path), "--samples", "24", "--seed", "1")
            output, _ = run.communicate(timeout=300)
            _require(run.returncode == 0, f"beside strays: {output}")
            visits = int(come_or_leave())
            compared = truth.compare(store, [_spec(1)])
    ratio = calls[True] / calls[False]
    often = f"{ratio:.2f} × as many calls a second ({calls[True] / rounds / _SPAN:.0f}) as without"
    _require(ratio > 0.7, f"beside strays {often}")
    return f"{visits:,} came, fifty at a time; {often}; a job beside them: {compared:,} scores equal"


FAULTS: dict[str, tuple[Callable[[Path, int, Truth], str], int, int]] = {
    "sudden deaths": (deaths, 200, 6),
    "full disk": (full_disk, 1, 1),
    "damaged stores": (damaged, 60, 6),
    "clock set back": (clock_set_back, 1, 1),
    "hanging worker": (hanging_worker, 1, 1),
    "owners racing": (owners_racing, 20, 2),
    "strays": (strays, 60, 10),
}
"""Each fault, and how many rounds of it make a full and a quick run."""


def main(argv: list[str] | None = None) -> int:
    """Make every fault and print what came of it; 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    arguments = parser.parse_args(argv)
    failed = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ["PROBING_PAIRS"] = str(small_registry(folder, QUESTIONS))
        truth = Truth(folder)
        for fault in arguments.only:
            make, full, quick = FAULTS[fault]
            place = folder / make.__name__
            place.mkdir()
            started = time.monotonic()
            try:
                said = make(place, quick if arguments.quick else full, truth)
            except (FaultError, PersonError, RuntimeError) as error:
                failed = True
                said = f"FAILED: {error}"
            print(f"{fault}: {said} ({time.monotonic() - started:.0f} s)", flush=True)
        truth.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
