import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from playwright.sync_api import Browser, sync_playwright
from streamlit.testing.v1.element_tree import Markdown

import tests.computed
from benchmarks.serving import CHROME, CHROME_FLAGS, Server
from dashboard import glossary, service
from probing.store import open_store

os.environ["PROBING_START"] = "comparisons"


@pytest.fixture(scope="session")
def computed(shared_folder: Path) -> Path:
    """A store with every shipped comparison and timeline, and the evidence of some pairs."""
    return tests.computed.computed(shared_folder)


@pytest.fixture(scope="module")
def _chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROME, args=CHROME_FLAGS)
        yield running
        running.close()


@pytest.fixture
def browser(_chromium: Browser) -> Iterator[Browser]:
    """A browser whose pages are closed after each test, and whose visitors stay known for a file's tests."""
    yield _chromium
    for context in _chromium.contexts:
        for page in context.pages:
            page.close()


@pytest.fixture(scope="session")
def shared(computed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave its store as it is."""
    running = Server(Path(shutil.copy(computed, tmp_path_factory.mktemp("shared") / "store.duckdb")))
    yield running
    running.stop()


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


@pytest.fixture(autouse=True)
def words_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test reads of a page is its text; the sentences behind its words are in `proto.body`."""
    monkeypatch.setattr(Markdown, "value", property(lambda element: glossary.plain(element.proto.body)))
