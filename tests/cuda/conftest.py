"""What was measured, kept for a report."""

import json
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

Note = Callable[..., None]

_NOTED: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--out", type=Path, default=None, help="write what tests/cuda measured to this file, as JSON")


@pytest.fixture
def note() -> Note:
    """Keep a number for the report: the table that it belongs to, what it is of, and what the test allows."""

    def keep(table: str, of: str, **values: Any) -> None:
        _NOTED.append({"table": table, "of": of} | values)

    return keep


@pytest.fixture(scope="session", autouse=True)
def _written(request: pytest.FixtureRequest) -> Iterator[None]:
    started = time.monotonic()
    yield
    if (out := request.config.getoption("--out", None)) is not None:
        from tests.cuda.here import DEVICE, IS_GPU

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if IS_GPU else []
        made = {
            "device": ", ".join(names) or str(DEVICE),
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers")},
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "seconds": round(time.monotonic() - started),
            "failed": request.session.testsfailed,
            "measured": _NOTED,
        }
        out.write_text(json.dumps(made, indent=2))
