"""How the program logs: a line of text for each event, or with `PROBING_LOG=json` a line of JSON.

With JSON every line of stderr is an object, also what libraries log in their own ways, what is warned of, and what is
printed there.
"""

import io
import logging
import os
import sys
import threading
from typing import TextIO, cast

from pythonjsonlogger.json import JsonFormatter

from probing.errors import PersonError

log = logging.getLogger(__name__)


def set_up(verbose: bool) -> None:
    """Log to stderr; warnings only, unless `verbose`.

    Raises:
        PersonError: `PROBING_LOG` is neither `text` nor `json`.
    """
    kind = os.environ.get("PROBING_LOG", "text")
    if kind not in ("text", "json"):
        raise PersonError(f"PROBING_LOG is '{kind}'.", "It can be text or json.")
    handler = logging.StreamHandler(sys.stderr)
    if kind == "json":
        names = {"asctime": "time", "levelname": "level", "name": "logger"}
        fields = "{asctime}{levelname}{name}{process}{message}"
        handler.setFormatter(JsonFormatter(fields, style="{", rename_fields=names))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    if kind == "json":
        _take_over(handler.stream)


def _take_over(stream: TextIO) -> None:
    """Have all that others say of this process said as events of ours, which alone go to the stream."""
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if not logger.handlers and not logger.propagate:  # only what the last resort would print of it
            logger.setLevel(max(logger.level, logging.WARNING))
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)
    sys.excepthook = lambda *error: log.critical("ended by an exception", exc_info=error)
    threading.excepthook = lambda fault: log.error(
        "a thread ended by an exception",
        exc_info=fault.exc_value and (fault.exc_type, fault.exc_value, fault.exc_traceback),
    )
    sys.stderr = cast(TextIO, _Printed(stream))


class _Printed(io.TextIOBase):
    """Stands for stderr: what is printed becomes events, one for each call that ends a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = threading.local()

    def write(self, text: str) -> int:
        """Log what ends a line; keep the rest, of each thread by itself."""
        if getattr(self._begun, "logging", False):  # the log itself complains, as when the stream is closed
            return len(text)
        lines, _, rest = f"{getattr(self._begun, 'line', '')}{text}".rpartition("\n")
        self._begun.line = rest
        if lines.strip():
            self._begun.logging = True
            try:
                log.warning("%s", lines.strip("\n"))
            finally:
                self._begun.logging = False
        return len(text)

    def fileno(self) -> int:
        """That of the stream."""
        return self._stream.fileno()

    def flush(self) -> None:
        """Pass on what has been logged."""
        self._stream.flush()
