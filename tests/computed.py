"""The store that tests of pages share: computed for real, once for all test workers, while they do other tests.

`python -m tests.computed FOLDER` makes it; whoever needs it before it is there waits for it.
"""

import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from benchmarks.serving import ROOT, compute_shipped

EVIDENCE = ("grpo", "seed")
"""The pairs of which there is also what speaks for or against their numbers."""


def computed(folder: Path) -> Path:
    """The store in a folder: every shipped comparison and timeline, and the evidence of some pairs."""
    path = folder / "computed" / "store.duckdb"
    with FileLock(folder / "computed.lock"):
        if not path.exists():
            compute_shipped(path.with_name("part.duckdb"), evidence=EVIDENCE)
            path.with_name("part.duckdb").rename(path)
    return path


def begin(folder: Path) -> None:
    """Have it made by a process of its own, unless it is being made."""
    subprocess.Popen([sys.executable, "-m", "tests.computed", str(folder)], cwd=ROOT, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    computed(Path(sys.argv[1]))
