"""Waiting for another process."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until a condition holds; how fast that is, is no claim of the tests that wait."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
