"""An hour of mixed use of one server: do memory, file descriptors and threads stay flat?

    python -m benchmarks.soak               # an hour; exits 1 if something grows or fails
    python -m benchmarks.soak --quick       # a minute, no limits but that nothing fails

Viewers look around as in benchmarks/load.py, while jobs are queued, done, cancelled and looked at from the command
line, runs are exported and snapshots are taken. What is measured is the server's process; workers come and go. The
store grows by what the jobs leave in it, so the memory that its database holds is told apart.
"""

import argparse
import asyncio
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil

from benchmarks import serving
from benchmarks.load import Seen, visit
from benchmarks.pages import percentile
from probing.cuts import Cut
from probing.jobs.plan import Spec
from probing.rollouts import Criteria
from probing.store import open_store

VIEWERS = 8
THINK = 6.0
WARM = 600.0
"""Seconds after which everything should be flat."""


def _command(store: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "probing", *arguments, "--store", str(store)]
    run = subprocess.run(command, cwd=serving.ROOT, capture_output=True, text=True, timeout=300)
    if run.returncode:
        raise RuntimeError(f"{arguments}: {run.stderr[-500:]}")
    return run.stdout


def _errand(store: Path, number: int, folder: Path) -> None:
    """One of the things that people do beside looking."""
    kind = number % 5
    if kind == 0:
        with closing(open_store(store)) as opened:
            opened.queue.submit(Spec("grpo", "addition", (Cut(0.3),), Criteria(n=20, seed=number)).as_json())
    elif kind == 1:
        _command(store, "jobs")
    elif kind == 2:
        with closing(open_store(store)) as opened:
            job = opened.queue.submit(Spec("ppo", "addition", (Cut(0.1),), Criteria(n=20, seed=number)).as_json())
            opened.queue.end(job, "cancelled", "Cancelled.")
    elif kind == 3:
        with closing(open_store(store)) as opened:
            run = opened.runs.table()["run_key"].iloc[0]
        _command(store, "export", run, "--out", str(folder / "run.parquet"))
    else:
        made = folder / "snapshot.duckdb"
        made.unlink(missing_ok=True)
        _command(store, "snapshot", "--out", str(made))


def _held(store: Path) -> int:
    with closing(open_store(store)) as opened:
        return opened.file.memory()


async def mixed_use(server: serving.Server, seconds: float, pause: float, folder: Path) -> tuple[Seen, list[tuple]]:
    """Viewers and errands, and every second: time, resident bytes, descriptors, threads, and bytes of the database."""
    seen, held = Seen(), 0
    samples: list[tuple] = []
    process = psutil.Process(server.process.pid)
    started = time.monotonic()
    until = started + seconds

    async def errands() -> None:
        for number in itertools.count():
            await asyncio.sleep(pause)
            if time.monotonic() > until:
                return
            try:
                await asyncio.to_thread(_errand, server.store, number, folder)
            except Exception as error:
                seen.errors.append(f"{type(error).__name__}: {error}")

    async def watch() -> None:
        nonlocal held
        while time.monotonic() < until:
            now = time.monotonic() - started
            if len(samples) % 20 == 0:
                held = await asyncio.to_thread(_held, server.store)
            samples.append((now, process.memory_info().rss, process.num_fds(), process.num_threads(), held))
            seen.memory.append(samples[-1][:2])
            if len(samples) % 60 == 0:
                print(f"{now:5.0f} s   {len(seen.all_seconds)} actions   {len(seen.errors)} errors   "
                      f"{samples[-1][1] / 2**20:.0f} MB, of these the database's {held / 2**20:.0f}   "
                      f"{samples[-1][2]} descriptors   {samples[-1][3]} threads",
                      flush=True)  # fmt: skip
            await asyncio.sleep(1)

    await asyncio.gather(watch(), errands(), *(visit(server.url, k, until, THINK, seen) for k in range(VIEWERS)))
    return seen, samples


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if something failed or grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--store", type=Path, help="begin with what this store has, instead of computing it first")
    arguments = parser.parse_args(argv)
    seconds = 60.0 if arguments.quick else 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "store.duckdb"
        if arguments.store is not None:
            shutil.copy(arguments.store, store)
        else:
            serving.compute_shipped(store, arguments.quick)
        server = serving.Server(store)
        seen, samples = asyncio.run(mixed_use(server, seconds, 4.0 if arguments.quick else 12.0, folder))
        server.stop()
        with closing(open_store(store)) as opened:
            opened.file.verify()
            done = opened.queue.jobs()["status"].value_counts().to_dict()
        if seen.errors:
            print(server.log.read_text()[-4000:])
    every = seen.all_seconds
    print(f"\n{VIEWERS} viewers and errands for {seconds / 60:g} minutes: {len(every)} actions, jobs {done}")
    print(f"  actions: median {statistics.median(every):.2f} s, 95 % {percentile(every, 0.95):.2f} s")
    for error in sorted(set(seen.errors))[:10]:
        print(f"  {seen.errors.count(error)} times: {error}")
    settled = min(WARM, seconds / 3)
    early, late = ([s for s in samples if low <= s[0] < high]
                   for low, high in ((settled, settled + seconds / 10), (0.9 * seconds, seconds)))  # fmt: skip

    def medians(column: int) -> tuple[float, float]:
        return statistics.median(s[column] for s in early), statistics.median(s[column] for s in late)

    limits = {"resident memory": (1, 0.05), "file descriptors": (2, 0.05), "threads": (3, 0.05)}
    failed = bool(seen.errors)
    for what, (column, limit) in limits.items():
        before, after = medians(column)
        growth = after / before - 1
        grew = growth > limit and not arguments.quick
        failed |= grew
        shown = (f"{v / 2**20:.0f} MB" if column == 1 else f"{v:.0f}" for v in (before, after))
        print(f"  {what}: {' -> '.join(shown)}, {growth:+.1%} (limit +{limit:.0%}){'  ABOVE' if grew else ''}")
    print("  of the memory, the database's: " + " -> ".join(f"{v / 2**20:.0f} MB" for v in medians(4)))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
