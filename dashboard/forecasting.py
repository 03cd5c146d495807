"""What a job would take, said within a second: by a process that stays, as loading the model library takes longest.

Pages never load that library. The process is started when somebody may ask, answers one question after the other, and
ends when nobody has asked for a while, or with the server, whose end closes its input.
"""

import json
import select
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

from probing.errors import PersonError
from probing.jobs.plan import Spec
from probing.pairs import own_path, registry_path
from probing.store import default_path

PATIENCE = 120.0
"""Seconds after which an answer is given up."""


class ForecastError(PersonError):
    """A forecast that could not be made."""


class Forecaster:
    """The process, and whose turn it is to ask it."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def warm_up(self) -> None:
        """Start it if it does not run, without waiting for it."""
        if self._turn.acquire(blocking=False):
            try:
                self._running()
            finally:
                self._turn.release()

    def ask(self, spec: Spec, **settings: str) -> str:
        """What a job would take, in lines, where some `settings` of the environment stand in place of its own.

        Raises:
            ForecastError: it cannot be planned, or there is no answer.
        """
        places = {"PROBING_PAIRS": str(registry_path().absolute()), "PROBING_OWN_PAIRS": str(own_path().absolute())}
        store = str(default_path().absolute())
        asked = json.dumps({"spec": spec.as_json(), "store": store, "settings": places | settings})
        with self._turn:
            told = json.loads(self._answer(asked) or self._answer(asked) or "{}")
        if "forecast" not in told:
            raise ForecastError(told.get("error", "It could not be planned."), told.get("remedy", ""))
        return told["forecast"]

    def _answer(self, asked: str) -> str:
        """What it says; nothing if it has just ended, or says nothing in time and is ended."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(asked, file=process.stdin, flush=True)
        except OSError:
            process.wait()
            return ""
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            process.kill()
            raise ForecastError("That took longer than two minutes, and was given up.")
        return process.stdout.readline()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "probing", "forecast"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parents[1],
                start_new_session=True,  # Ctrl-C is for the server, whose end it notices
            )
        return self._process


@cache
def forecaster() -> Forecaster:
    """That of this server."""
    return Forecaster()
