"""How the program logs: a line of text for each event, or with `PROBING_LOG=json` a line of JSON."""

import logging
import os
import sys

from pythonjsonlogger.json import JsonFormatter

from probing.errors import PersonError


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
