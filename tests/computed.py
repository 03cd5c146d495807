"""The store that tests of pages share: computed for real, once for all test workers, while they do other tests.

`python -m tests.computed FOLDER` makes it; whoever needs it before it is there waits for it.
"""

import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from filelock import FileLock

from benchmarks.serving import ROOT
from probing.jobs.plan import Spec
from probing.jobs.progress import silent
from probing.jobs.shipped import shipped
from probing.jobs.worker import do_all
from probing.pairs import load_registry
from probing.store import open_store

EVIDENCE = ("grpo", "seed")
"""The pairs of which there is also what speaks for or against their numbers."""

TRANSPLANTED = 8
"""Questions of the transplants, of which tests read no more than that they are there."""


def computed(folder: Path) -> Path:
    """The store in a folder: every shipped comparison and timeline, and the evidence of some pairs that tests read."""
    path = folder / "computed" / "store.duckdb"
    with FileLock(folder / "computed.lock"):
        if not path.exists():
            part = path.with_name("part.duckdb")
            store = open_store(part)
            with patch("probing.jobs.shipped.SAMPLES", TRANSPLANTED):
                specs = shipped(load_registry(), EVIDENCE)
            do_all(store, filter(_is_read, specs), silent)
            store.close()
            part.rename(path)
    return path


def _is_read(spec: Spec) -> bool:
    """Circuits are run, parts exchanged, and edges really removed, of one pair."""
    return not (spec.also or spec.method.path == "exact") or spec.pair == EVIDENCE[0]


def begin(folder: Path) -> None:
    """Have it made by a process of its own, unless it is being made."""
    subprocess.Popen([sys.executable, "-m", "tests.computed", str(folder)], cwd=ROOT, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    computed(Path(sys.argv[1]))
