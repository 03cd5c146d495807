"""Waiting for another process."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until a condition holds; how fast that is, is no claim of the tests that wait."""
    looked = time.monotonic()
    deadline = looked + seconds
    while not condition():
        now = time.monotonic()
        assert now < deadline, "waited too long"
        time.sleep(min(0.5, max(0.05, 4 * (now - looked))))  # whoever looks takes little from what is waited for
        looked = time.monotonic()
