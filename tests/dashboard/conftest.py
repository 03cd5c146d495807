import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from probing.jobs.plan import shipped
from probing.jobs.worker import follow
from probing.pairs import load_registry
from probing.store import open_store
from tests.conftest import ROOT

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


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every shipped comparison, computed for real."""
    path = tmp_path_factory.mktemp("computed") / "store.duckdb"
    store = open_store(path)
    for spec in shipped(load_registry()):
        job = follow(store, store.submit(spec.as_json()), lambda stage, done, total: None)
        assert job["status"] == "done", job["message"]
    store.close()
    return path


class Server:
    """The app as `make app` starts it, on a port of its own."""

    def __init__(self, store: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.store = store
        self.url = f"http://localhost:{self.port}"
        self.log = store.with_name("server.log")
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(self.port)]
        environment = os.environ | {"PROBING_STORE": str(store)}
        self.started = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        while not self.healthy():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < self.started + 60
            time.sleep(0.1)

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def stop(self) -> None:
        """End it as Ctrl-C would."""
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture
def server(computed: Path, tmp_path: Path) -> Iterator[Server]:
    """A freshly started server on a copy of the computed store."""
    running = Server(Path(shutil.copy(computed, tmp_path / "store.duckdb")))
    yield running
    running.stop()


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """A freshly started server without a store."""
    running = Server(tmp_path / "store.duckdb")
    yield running
    running.stop()


def specs_of(store: Path) -> list[dict]:
    """The specs of all jobs that a store ever had."""
    opened = open_store(store)
    specs = [json.loads(text) for text in opened.jobs()["spec"]]
    opened.close()
    return specs
