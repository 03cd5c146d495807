"""The app as `make app` starts it, on a port and a store of its own: for benchmarks, tests and photographs."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from probing.jobs.plan import shipped
from probing.jobs.worker import follow
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


def compute_shipped(path: Path, first_only: bool = False) -> None:
    """Compute every shipped comparison, or only the first, into a store."""
    store = open_store(path)
    specs = shipped(load_registry())
    for spec in specs[:1] if first_only else specs:
        job = follow(store, store.submit(spec.as_json()), lambda stage, done, total: None)
        if job["status"] != "done":
            raise RuntimeError(job["message"])
    store.close()


class Server:
    """A running server; `stop` ends it as Ctrl-C would."""

    def __init__(self, store: Path, environment: dict[str, str] | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.store = store
        self.url = f"http://localhost:{self.port}"
        self.log = store.with_name("server.log")
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port)]
        settings = os.environ | {"PROBING_STORE": str(store)} | (environment or {})
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

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=30)
