import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
import streamlit as st
from playwright.sync_api import Browser, sync_playwright
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1.element_tree import Markdown

import tests.computed
from benchmarks.serving import CHROME, CHROME_FLAGS, Server
from dashboard import glossary, service
from probing.store import open_store

os.environ["PROBING_START"] = "comparisons"


@pytest.fixture(scope="session", autouse=True)
def one_scan_for_components() -> Iterator[None]:
    """Streamlit reads the metadata of every installed package when an app begins; here begin hundreds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(scope="session")
def computed(shared_folder: Path) -> Path:
    """A store with every shipped comparison and timeline, and the evidence of some pairs."""
    return tests.computed.computed(shared_folder)


class _Chromium:
    """A browser from the first test that asks for it to the next that does not: Playwright keeps a loop of events
    going, beside which other tests could have none."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._browser: Browser | None = None

    def running(self) -> Browser:
        if self._browser is None:
            playwright = self._open.enter_context(sync_playwright())
            self._browser = playwright.chromium.launch(executable_path=CHROME, args=CHROME_FLAGS)
            self._open.callback(self._browser.close)
        return self._browser

    def close(self) -> None:
        self._browser = None
        self._open.close()


_chromium = _Chromium()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None]:
    yield
    if "browser" not in getattr(nextitem, "fixturenames", ()):
        _chromium.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser whose pages are closed after each test, and whose visitors stay known for those that follow."""
    running = _chromium.running()
    yield running
    for context in running.contexts:
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
