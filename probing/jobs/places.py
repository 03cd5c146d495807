"""How many workers a store has at a time on this machine, and the right to be one of them."""

import os
from pathlib import Path
from typing import IO

from probing.errors import PersonError
from probing.store import Store
from probing.store.files import try_lock

_GPUS = Path("/proc/driver/nvidia/gpus")


def places() -> int:
    """`PROBING_WORKERS`, or one for each GPU, and one where there is none.

    Raises:
        PersonError: `PROBING_WORKERS` is not a number above 0.
    """
    text = os.environ.get("PROBING_WORKERS", "auto")
    if text == "auto":
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
        return max(1, found if seen is None else min(found, len([one for one in seen.split(",") if one.strip()])))
    if not text.isdecimal() or int(text) < 1:
        raise PersonError(f"PROBING_WORKERS is '{text}'.", "It is a number of workers, or auto.")
    return int(text)


def place_of(store: Store) -> IO[bytes] | None:
    """The right to be one of a store's workers, until closed; None while others have all places."""
    for number in range(places()):
        path = store.path.with_name(f"{store.path.name}.worker{number or ''}")
        if (lock := try_lock(path)) is not None:
            return lock
    return None
