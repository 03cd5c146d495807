import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

import tests.computed
from benchmarks.serving import Server
from dashboard import service
from probing.store import open_store

os.environ["PROBING_START"] = "comparisons"


@pytest.fixture(scope="session")
def computed(shared_folder: Path) -> Path:
    """A store with every shipped comparison and timeline, and the evidence of some pairs."""
    return tests.computed.computed(shared_folder)


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
