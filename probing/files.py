"""Files that are complete or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probing.errors import PersonError


def check_place(path: Path, error: type[PersonError]) -> None:
    """Raise an error of a type unless a file may come to stand at a path: said before what goes into it is made."""
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "is in a folder that is not there"
        raise error(f"{path} {what}.", "Choose another place with --out.")


@contextmanager
def whole(path: Path, error: type[PersonError], remedy: str = "Choose another place with --out.") -> Iterator[Path]:
    """A path beside `path` at which to write; what was written then takes its place, unless that failed.

    Raises:
        PersonError: of the type given, where the place cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as cause:
        raise error(f"Cannot write {path}: {cause.strerror}.", remedy) from cause
    finally:
        part.unlink(missing_ok=True)
