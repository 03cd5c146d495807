"""The process that has the models: a line of JSON in, an experiment, and a line of JSON out, its outcome.

What else would be printed goes to stderr, as logs do. It ends when its stdin does: whoever started it is gone.
"""

import gc
import json
import logging
import os
import sys
from typing import Any

from probing.errors import PersonError
from probing.playground.engine import Engine
from probing.playground.experiment import Experiment

log = logging.getLogger(__name__)


def serve(allow_large: bool) -> None:
    """Answer until stdin ends."""
    engine = Engine(allow_large)
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        gc.freeze()  # what is imported stays: to look through it for garbage takes as long as an answer, now and then
        _say(out, {"ready": True})
        for line in sys.stdin:
            _say(out, _reply(engine, line))


def _say(out: Any, reply: dict[str, Any]) -> None:
    out.write(json.dumps(reply) + "\n")
    out.flush()


def _reply(engine: Engine, line: str) -> dict[str, Any]:
    try:
        return {"outcome": engine.do(Experiment.from_json(json.loads(line))).as_json()}
    except PersonError as error:
        return {"error": [error.what, error.remedy]}
    except Exception as error:
        log.exception("an experiment")
        return {"error": [f"A fault in the program: {type(error).__name__}.", "See the log."]}
