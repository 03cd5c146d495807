"""The app as `make app` starts it, on a port and a store of its own: for benchmarks, tests and photographs."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from probing.jobs.progress import silent
from probing.jobs.shipped import shipped
from probing.jobs.worker import do_all
from probing.pairs import load_registry
from probing.store import open_store

ROOT = Path(__file__).resolve().parents[1]

CHROME = next((p for n in ("chromium", "google-chrome", "chrome") if (p := shutil.which(n))), None)

CHROME_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pace() -> float:
    """Seconds in which one core adds up ten million numbers in Python: by it, runs on other machines can be held
    against each other, and runs on one that is shared with others."""
    started = time.perf_counter()
    total = 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - started


def compute_shipped(path: Path, first_only: bool = False) -> None:
    """Compute every shipped comparison, or only the first, into a store."""
    store = open_store(path)
    specs = shipped(load_registry(), evidence=())
    do_all(store, specs[:1] if first_only else specs, silent)
    store.close()


def small_registry(folder: Path, questions: int = 48) -> Path:
    """A registry with one pair, two of the models that ship, and few questions: a comparison of seconds."""
    data = ROOT / "data"
    lines = (data / "questions" / "addition.jsonl").read_text().splitlines(keepends=True)[:questions]
    (folder / "few.jsonl").write_text("".join(lines))
    (folder / "pairs.toml").write_text(
        f'[questions.few]\ntitle = "Few"\nfile = "few.jsonl"\ngrading = "last-number"\n'
        f'[pairs.small]\ntitle = "Small"\nalgorithm = "GRPO"\nkind = "online RL"\nquestions = ["few"]\n'
        f'base = "{data / "zoo" / "base"}"\ntuned = "{data / "zoo" / "grpo"}"\n'
    )
    return folder / "pairs.toml"


class Server:
    """A running server; `stop` ends it as Ctrl-C would. `before` is the beginning of its command line."""

    def __init__(self, store: Path, environment: dict[str, str] | None = None, before: Sequence[str] = ()) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.store = store
        self.url = f"http://localhost:{self.port}"
        self.log = store.with_name("server.log")
        command = [*before, sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port)]
        settings = os.environ | {"PROBING_STORE": str(store), "MALLOC_ARENA_MAX": "1", "PROBING_START": "comparisons"}
        settings |= environment or {}
        self.started = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=output, stderr=output)
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > self.started + 60:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.1)

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def peak(self) -> int:
        """The largest number of bytes that the server has held (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=30)
