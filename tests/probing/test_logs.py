"""A log of JSON has nothing but objects, whoever speaks, and however."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FAULTS = {
    "print('said\\nof old', file=sys.stderr)": "of old",
    "sys.stderr.write('beg'); sys.stderr.write('un\\n')": "begun",
    "warnings.warn('mind the gap')": "UserWarning: mind the gap",
    "own.error('its own handler')": "its own handler",
    "silent.error('the last resort')": "the last resort",
    "logging.getLogger('late').warning('so it goes')": "so it goes",
    "threading.Thread(target=lambda: 1 / 0).start()": "ZeroDivisionError",
    "asyncio.run(forgotten())": "ZeroDivisionError",
    "logging.getLogger().warning('%d', 'x')": "Logging error",
    "logging.getLogger().error('odd \\u2028 \\ud800 \\n lines')": "odd",
    "traceback.print_stack()": "in <module>",
    "1 / 0": "ZeroDivisionError",
    "sys.exit('the end')": "the end",
}

PROGRAM = """
import asyncio, gc, logging, sys, threading, traceback, warnings
own = logging.getLogger("own")
own.addHandler(logging.StreamHandler())
silent = logging.getLogger("silent")
silent.propagate = False
silent.setLevel(logging.INFO)
from probing import logs
logs.set_up(verbose=True)
silent.info("not heard")

async def forgotten():
    async def fault():
        1 / 0
    task = asyncio.create_task(fault())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()

"""


def _run(code: str) -> str:
    command = [sys.executable, "-c", PROGRAM + code]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"PROBING_LOG": "json"}, capture_output=True, text=True)
    assert run.stdout == ""
    return run.stderr


@pytest.mark.parametrize("code", FAULTS)
def test_whoever_speaks_says_it_in_an_object(code: str) -> None:
    events = [json.loads(line) for line in _run(code).splitlines()]
    assert {"time", "level", "logger", "process", "message"} <= set.intersection(*(set(event) for event in events))
    about = [event for event in events if FAULTS[code] in event["message"] + event.get("exc_info", "")]
    assert about
    assert len(about) == 1 or "Logging error" in FAULTS[code], "in one, with its traceback"
    assert not [event for event in events if "not heard" in event["message"]]


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    code = "import os; os.close(2); print('x', file=sys.stderr); logging.getLogger().error('y'); sys.exit(3)"
    command = [sys.executable, "-c", PROGRAM + code]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"PROBING_LOG": "json"}, stderr=subprocess.PIPE)
    assert run.returncode == 3
