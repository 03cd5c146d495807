"""What a graph of heads takes: `python -m benchmarks.capacity [--json] [--quick]`.

The graph is that of 32 layers of 32 heads in 8 groups, 805 681 edges; its scores on a hundred questions are invented,
for base and tuned. Said are the bytes of the store's file after each run and after their summary, and the largest
resident size of a process of its own for each step: taking scores in, comparing both runs and keeping the summary (some
minutes), reading that, reading a run, and writing each kind of export. `--quick` uses 4 layers of 4 heads in 2 groups.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np

from benchmarks.synthetic import OF_HEADS
from probing.cli import main as cli
from probing.graph import Heads, ResidualGraph, graph_of
from probing.store import open_store
from probing.store.spool import ScoreBatch
from probing.summary import summarise

QUESTIONS = 100
BATCH = 10
SIDES = ("base", "tuned")


def _graph(quick: bool) -> ResidualGraph:
    return graph_of(4, granularity="heads", heads=(Heads(4, 2),) * 4) if quick else OF_HEADS.graph


def _fill(path: Path, graph: ResidualGraph, side: str) -> None:
    """Take in one run, batch by batch, as a worker leaves it."""
    rng = np.random.default_rng(SIDES.index(side))
    scale = np.random.default_rng(7).lognormal(-8, 2, graph.size).astype(np.float32)
    with closing(open_store(path)) as store:
        store.comparisons.link("c", {side: side})
        store.runs.start(side, f"invented/{side}", side, graph, QUESTIONS, BATCH, {})
        for start in range(0, QUESTIONS, BATCH):
            ids = tuple(f"q{k:03}" for k in range(start, start + BATCH))
            scores = rng.standard_normal((BATCH, graph.size), np.float32) * scale
            store.spool.put(ScoreBatch(side, ids, rng.random(BATCH, np.float32), scores))
            del scores
            store.batches.ingest()
        store.runs.finish(side, {}, 1.0)


def _read(path: Path) -> None:
    with closing(open_store(path)) as store:
        scores = store.runs.scores("base")
    if scores.edges.shape[0] != QUESTIONS or not scores.edges.all(1).any():
        raise SystemExit("the scores did not come back")


def _summarise(path: Path) -> None:
    """Compare the runs and keep what pages show of that, as a worker does."""
    with closing(open_store(path)) as store:
        base, tuned = (store.runs.scores(side) for side in SIDES)
        store.summaries.save("c", "tuned", summarise(base, tuned))


def _read_summary(path: Path) -> None:
    with closing(open_store(path)) as store:
        if not len(store.summaries.edges("c")):
            raise SystemExit("the summary did not come back")


def _export(kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        out = path.with_name(f"out.{kind}")
        cli(["export", "base", "--format", kind, "--out", str(out), "--store", str(path)])

    return write


STEPS: dict[str, Callable[[Path], None]] = {
    "summarise": _summarise,
    "read summary": _read_summary,
    "read": _read,
    **{f"export {kind}": _export(kind) for kind in ("parquet", "csv", "npz")},
}


def _step(name: str, path: Path, quick: bool) -> dict[str, float]:
    """Seconds and peak MiB of a process of its own that does a step, and the store's bytes thereafter."""
    command = [sys.executable, "-m", "benchmarks.capacity", "--step", name, "--store", str(path)]
    started = time.perf_counter()
    done = subprocess.run([*command, *(["--quick"] if quick else [])], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    with duckdb.connect(str(path)) as connection:
        connection.execute("CHECKPOINT")
    peak = float(done.stdout.splitlines()[-1])
    return {"seconds": seconds, "peak_mib": peak, "store_mb": path.stat().st_size / 1e6}


def _do(name: str, path: Path, quick: bool) -> None:
    kind, _, side = name.partition(" of ")
    if kind == "ingest":
        _fill(path, _graph(quick), side)
    else:
        STEPS[name](path)
    status = Path("/proc/self/status").read_text()
    print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024)


def measure(quick: bool, folder: Path) -> dict[str, dict[str, float]]:
    """What each step takes."""
    path = folder / "store.duckdb"
    names = [*(f"ingest of {side}" for side in SIDES), *STEPS]
    return {name: _step(name, path, quick) for name in names}


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small graph")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        _do(arguments.step, arguments.store, arguments.quick)
        return
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(arguments.quick, Path(folder))
    if arguments.json:
        print(json.dumps({"edges": _graph(arguments.quick).size, "questions": QUESTIONS, "steps": measured}, indent=2))
        return
    print(f"{'':20}{'seconds':>10}{'peak MiB':>10}{'store MB':>10}")
    for name, row in measured.items():
        print(f"{name:20}{row['seconds']:>10.1f}{row['peak_mib']:>10.0f}{row['store_mb']:>10.1f}")


if __name__ == "__main__":
    main()
