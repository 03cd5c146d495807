"""How whoever does a job says how far it is."""

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and how much there is."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def now_and_then(do: Callable[[], None], pause: float = 2.0) -> Callable[[], None]:
    """`do`, but not when called within `pause` seconds of the last time."""
    last = time.monotonic()

    def perhaps() -> None:
        nonlocal last
        if time.monotonic() > last + pause:
            do()
            last = time.monotonic()

    return perhaps
