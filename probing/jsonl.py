"""JSON lines as people hand them over: whatever is wrong with a file is said in a sentence that names the line."""

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from probing.errors import PersonError

LARGEST = 2**30
"""Bytes of a file that is read as a whole, and of what it unpacks to."""


def check_size(path: Path, error: type[PersonError], size: int | None = None) -> None:
    """Raise `error` if a file, or the `size` to which it would unpack, is larger than `LARGEST`."""
    size = path.stat().st_size if size is None else size
    if size > LARGEST:
        raise error(f"{path} holds {size / 2**30:.1f} GiB, and at most {LARGEST / 2**30:g} are read.", "Split it.")


def read_rows(path: Path, error: type[PersonError]) -> Iterator[tuple[str, Any]]:
    """The rows of a file, each with the words that name its line; blank lines and marks of byte order are passed over.

    Whole numbers are read as such; others, and those too long for Python to convert, stay the text that they are.

    Raises:
        PersonError: of type `error`; the file is missing, too large or not text, or a line is not JSON.
    """
    try:
        check_size(path, error)
        lines = path.read_text(encoding="utf-8").split("\n")  # a string may hold other line separators
    except OSError as cause:
        raise error(f"Cannot read {path}: {cause.strerror}.", "Check the path.") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not a text file.", "It should be JSON lines in UTF-8.") from cause
    for number, line in enumerate(lines, start=1):
        content = line.lstrip("\ufeff")  # where files were joined, each has its own
        if content.strip():
            where = f"Line {number} of {path}"
            try:
                row = json.loads(content, parse_int=_whole, parse_float=str)
            except (ValueError, RecursionError) as cause:
                raise error(f"{where} is not JSON.", "Was the file cut short?") from cause
            yield where, row


def _whole(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def as_text(value: Any, column: str, where: str, error: type[PersonError]) -> str:
    """A value that is a text or a number, as text.

    Raises:
        PersonError: of type `error`; it is something else, which is named with its line and column.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            kind = "half a character (a lone surrogate)"
        else:
            return value
    elif isinstance(value, bool):
        kind = "a truth value"
    elif isinstance(value, int | float | Decimal):
        if math.isfinite(value):
            return str(value)
        kind = str(value).replace("nan", "NaN")
    elif isinstance(value, dict):
        kind = f"a structure ({', '.join(map(str, value))})"
    else:
        kind = {"list": "a list", "bytes": "bytes"}.get(type(value).__name__, f"a {type(value).__name__}")
    raise error(f"{where} has {kind} in its column {column}.", "It should be text or a number.")
