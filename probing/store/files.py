"""Files for this user only, whatever the umask: stores hold questions, answers and the addresses of who asked."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from probing.errors import StoreError


def private(path: Path, mode: str) -> IO[bytes]:
    """Open a file, which is made for this user only if it is not there; `mode` is "ab" or "wb"."""
    return cast(IO[bytes], open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600)))


def is_private(status: os.stat_result) -> bool:
    """Whether what has this status is this user's own, and for nobody else."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


@contextmanager
def private_part(target: Path) -> Iterator[Path]:
    """A path at which others may make a file or a database; it then takes the place of `target`, for this user only.

    It lies in a folder that nobody else can enter, because DuckDB has no say in the mode of what it makes. The folder
    is gone in the end, and what was made in it too if that failed.

    Raises:
        OSError: there is no such folder, or no room.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        part = Path(folder) / target.name
        yield part
        part.chmod(0o600)
        part.replace(target)


def try_lock(path: Path) -> IO[bytes] | None:
    """Lock a file, which is made if need be, until the returned handle is closed; None if another holds it.

    Raises:
        StoreError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = private(path, "ab")
    except OSError as error:
        raise StoreError(
            f"Cannot write in {path.parent}: {error.strerror}.", "Name another place with --store or PROBING_STORE."
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle
