"""Files that are complete or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probing.errors import PersonError


@contextmanager
def whole(path: Path, error: type[PersonError]) -> Iterator[Path]:
    """A path beside `path` at which to write; what was written then takes its place, unless that failed.

    Raises:
        PersonError: of the type given, where the place cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as cause:
        raise error(f"Cannot write {path}: {cause.strerror}.", "Choose another place with --out.") from cause
    finally:
        part.unlink(missing_ok=True)
