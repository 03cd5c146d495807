import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from filelock import FileLock

from benchmarks.serving import Server, compute_shipped
from dashboard import service
from probing.store import open_store


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every shipped comparison and timeline, computed for real, once for all test workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "computed" / "store.duckdb"
    with FileLock(folder / "computed.lock"):
        if not path.exists():
            started = time.monotonic()
            compute_shipped(path.with_name("part.duckdb"))
            assert time.monotonic() - started < 600, "every shipped pair within ten minutes"
            path.with_name("part.duckdb").rename(path)
    return path


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
    specs = [json.loads(text) for text in opened.queue.jobs()["spec"]]
    opened.close()
    return specs


def _use(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PROBING_STORE", str(path))
    service.store.cache_clear()
    st.cache_resource.clear()
    yield path
    service.store().close()
    service.store.cache_clear()


@pytest.fixture
def full(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process uses a copy of the computed store."""
    yield from _use(Path(shutil.copy(computed, tmp_path / "store.duckdb")), monkeypatch)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process uses a store that is new."""
    yield from _use(tmp_path / "store.duckdb", monkeypatch)
