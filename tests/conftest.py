import os
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)

settings.register_profile("however slow the machine", deadline=None)
settings.load_profile("however slow the machine")


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The small models that ship."""
    return ROOT / "data" / "zoo"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for temporary files that all test workers share."""
    return _shared(tmp_path_factory)


def _shared(factory: pytest.TempPathFactory) -> Path:
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker starts with a share of the tests that need no store of results, which is made meanwhile, goes on with
    one of those that do, and ends with those in a browser, which is started once then."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    some = [[item for item in items if _turn(item) == turn] for turn in range(3)]
    items[:] = [
        item
        for worker in range(workers)
        for part in some
        for item in part[len(part) * worker // workers : len(part) * (worker + 1) // workers]
    ]


def _turn(item: pytest.Item) -> int:
    return 2 if "browser" in getattr(item, "fixturenames", ()) else int(_needs_store(item))


def _needs_store(item: pytest.Item) -> bool:
    return "computed" in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to make the store that tests share, if any needs it."""
    chosen = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0" and not session.config.option.collectonly
    if chosen and any(map(_needs_store, session.items)):
        from tests.computed import begin

        begin(_shared(session.config._tmp_path_factory))  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """However many the test before gave a larger model: sums are rounded in the order in which threads share them."""
    torch.set_num_threads(1)
