"""Many viewers at once on a hosted server: how long pages take, whether anything fails, and whether memory stays flat.

    python -m benchmarks.load               # 100 viewers for 10 minutes; exits 1 if a limit is passed
    python -m benchmarks.load --quick       # 10 viewers for half a minute, no limits but that nothing fails

Each viewer is a WebSocket session of its own that arrives (loading the shell as a browser does), switches pages,
changes controls and opens links, reading for a while (`--think` seconds on average) after each. Viewers and server
share this machine's cores. The limits: no error, median 2 s, 95th percentile 5 s, and from the second minute on memory
grows by less than 5 %.
"""

import argparse
import asyncio
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import psutil

from benchmarks import serving
from benchmarks.pages import percentile
from benchmarks.viewer import Viewer, ViewerError, fetch_shell
from probing.jobs.shipped import shipped
from probing.pairs import load_registry
from probing.rollouts import ALPHAS
from probing.store import open_store

SETTLED = 120.0
"""Seconds after which memory should be flat."""


@dataclass
class Seen:
    """What viewers met with."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and the server's resident bytes."""

    @property
    def all_seconds(self) -> list[float]:
        """Of every kind of action."""
        return [s for of_kind in self.seconds.values() for s in of_kind]

    def growth(self, settled: float = SETTLED) -> float:
        """Memory in the last tenth of the time relative to that around the settling time."""
        end = self.memory[-1][0]
        early = [size for t, size in self.memory if settled <= t <= settled + end / 10]
        late = [size for t, size in self.memory if t >= 0.9 * end]
        return statistics.median(late) / statistics.median(early or late) - 1


def links() -> list[tuple[str, str]]:
    """Paths and queries of every page for every pair that is computed on a fresh store, at every cut."""
    registry = load_registry()
    titles = sorted({registry.pairs[spec.pair].title for spec in shipped(registry)})
    pages = ("", "compare", "circuits", "distributions", "intensity", "questions", "timeline", "methods")
    return [
        (page, urlencode({"pair": title, "alpha": str(cut)})) for page in pages for title in titles for cut in ALPHAS
    ]


async def visit(url: str, seed: int, until: float, think: float, seen: Seen) -> None:
    """One viewer, from arrival to the end."""
    rng = random.Random(seed)
    all_links = links()
    viewer: Viewer | None = None

    def note(kind: str, seconds: float | None) -> None:
        if seconds is not None:
            seen.seconds.setdefault(kind, []).append(seconds)

    try:
        while time.monotonic() < until:
            kind = rng.choices(("link", "page", "control"), (1, 3, 6))[0]
            try:
                if viewer is None or kind == "link":
                    if viewer is not None:
                        await viewer.close()
                    viewer = Viewer(url, rng)
                    started = time.monotonic()
                    await asyncio.to_thread(fetch_shell, url)
                    await viewer.connect()
                    await viewer.open(*rng.choice(all_links))
                    note("arrival at a link", time.monotonic() - started)
                elif kind == "page":
                    note("page switch", await viewer.open(rng.choice(sorted(viewer.pages))))
                else:
                    note("control", await viewer.change())
            except (ViewerError, OSError) as error:
                seen.errors.append(f"{type(error).__name__}: {error}")
                viewer = None
            await asyncio.sleep(rng.expovariate(1 / think))
    finally:
        if viewer is not None:
            await viewer.close()


async def crowd(server: serving.Server, viewers: int, seconds: float, think: float, say: Callable[[str], None]) -> Seen:
    """All viewers, arriving over the first tenth of the time."""
    seen = Seen()
    process = psutil.Process(server.process.pid)
    started = time.monotonic()
    until = started + seconds

    async def arrive(seed: int) -> None:
        await asyncio.sleep(seed / viewers * min(30.0, seconds / 10))
        await visit(server.url, seed, until, think, seen)

    async def watch() -> None:
        while time.monotonic() < until:
            seen.memory.append((time.monotonic() - started, process.memory_info().rss))
            if len(seen.memory) % 30 == 0:
                say(
                    f"{seen.memory[-1][0]:5.0f} s   {len(seen.all_seconds)} actions   {len(seen.errors)} errors   "
                    f"{seen.memory[-1][1] / 2**20:.0f} MB"
                )
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *map(arrive, range(viewers)))
    return seen


def report(seen: Seen, seconds: float, busy: float) -> dict[str, tuple[float, float, str]]:
    """Print what was met with; returns each measure with its limit and unit."""
    for kind, values in sorted(seen.seconds.items()):
        print(
            f"  {kind:20} {len(values):6}   median {statistics.median(values):5.2f} s   "
            f"95 % {percentile(values, 0.95):5.2f} s   longest {max(values):5.2f} s"
        )
    every = seen.all_seconds
    print(f"  {len(every) / seconds:.1f} actions a second; the server used {busy:.2f} cores")
    for error in sorted(set(seen.errors))[:10]:
        print(f"  {seen.errors.count(error)} times: {error}")
    return {
        "errors": (len(seen.errors), 0, ""),
        "median": (statistics.median(every), 2.0, " s"),
        "95th percentile": (percentile(every, 0.95), 5.0, " s"),
        "growth of memory": (100 * seen.growth(), 5.0, " %"),
    }


def hosted(folder: Path, store: Path | None, first_only: bool = False) -> serving.Server:
    """A hosted server that reads a snapshot: of `store`, or of results computed now."""
    made = folder / "store.duckdb"
    if store is not None:
        shutil.copy(store, made)
    else:
        serving.compute_shipped(made, first_only)
    opened = open_store(made)
    snapshot = opened.file.snapshot()
    opened.close()
    settings = {"PROBING_MODE": "hosted", "PROBING_ADMIN_TOKEN": "", "PROBING_SNAPSHOT": str(snapshot)}
    return serving.Server(folder / "none.duckdb", settings)


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--think", type=float, default=20, help="seconds of reading after each action, on average")
    parser.add_argument("--store", type=Path, help="show what this store has, instead of computing it first")
    arguments = parser.parse_args(argv)
    viewers, seconds = (10, 30.0) if arguments.quick else (arguments.viewers, 60 * arguments.minutes)
    think = 2.0 if arguments.quick else arguments.think
    with tempfile.TemporaryDirectory() as folder:
        server = hosted(Path(folder), arguments.store, arguments.quick)
        paces = [serving.pace()]
        process = psutil.Process(server.process.pid)
        before = sum(process.cpu_times()[:2])
        seen = asyncio.run(crowd(server, viewers, seconds, think, print))
        busy = (sum(process.cpu_times()[:2]) - before) / seconds
        server.stop()
        paces.append(serving.pace())
        if seen.errors:
            print(server.log.read_text()[-5000:])
    print(f"\n{viewers} viewers for {seconds / 60:g} minutes, reading {think:g} s after each action")
    print("  ten million additions before and after: " + ", ".join(f"{pace:.2f} s" for pace in paces))
    found = report(seen, seconds, busy)
    if arguments.quick:
        found = {"errors": found["errors"]}
    failed = False
    for name, (value, limit, unit) in found.items():
        failed |= value > limit
        print(f"{name:18} {value:6.2f}{unit} (limit {limit:g}{unit}){'' if value <= limit else '  ABOVE'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
