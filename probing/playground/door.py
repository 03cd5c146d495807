"""The way to the process that has the models, for whoever serves many people and has none itself.

The process is started when it is first needed, again when it has died, and ended when nobody has asked for a while. It
does one experiment at a time; others wait their turn, in the order in which they came, and not very many: who comes
after those is told so at once. Nobody has more than one experiment under way, or very many in a minute.
"""

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probing.jobs.supervisor import ROOT, opened_log
from probing.pairs import load_registry
from probing.playground.experiment import Experiment, Outcome, PlaygroundError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What is given to everybody."""

    waiting: int = 32
    """Experiments that may wait for their turn."""
    a_minute: int = 240
    """Experiments that one person may ask for in a minute. A lesson's search for a problem has taken up to 51."""
    start: float = 120.0
    """Seconds that the process may take to start."""
    answer: float = 60.0
    """Seconds that an experiment with small models may take, loading them included."""
    answer_of_large: float = 600.0
    """The same with others."""
    idle: float = 1800.0
    """Seconds without an experiment after which the process is ended."""


class Door:
    """Asks experiments of a process that it keeps; any thread may."""

    def __init__(self, allow_large: bool, log: Path | None = None, limits: Limits = Limits()) -> None:
        self._command = [sys.executable, "-m", "probing", "playground", *(["--allow-large"] if allow_large else [])]
        self._log, self._limits = log, limits
        self._turns = _Turns(limits.waiting)
        self._visits = _Visits(limits.a_minute)
        self._process: _Process | None = None
        self._last = time.monotonic()
        self._closed = threading.Event()

    @property
    def is_warm(self) -> bool:
        """Whether a process is there that has answered before."""
        process = self._process
        return process is not None and process.is_alive and process.is_ready

    def ask(self, experiment: Experiment, who: str) -> Outcome:
        """What comes of an experiment, after those who came before have had theirs.

        `who` asks is a text that tells people apart.

        Raises:
            PairError: there is no such pair.
            PlaygroundError: it is no experiment for these models, too many wait, this person asks too often, or the
                process does not answer.
        """
        small = load_registry().pair(experiment.pair).is_small
        with self._visits.by(who), self._turns.mine():
            if self._closed.is_set():
                raise PlaygroundError("The playground is closed.", "The server is stopping.")
            try:
                process = self._running()
                seconds = self._limits.answer if small else self._limits.answer_of_large
                return _outcome(process.ask(experiment.as_json(), seconds))
            except _Lost as error:
                log.warning("the playground's process: %s", error)
                self._end()
                raise PlaygroundError(
                    f"The playground's process {error}, so there is no answer.", "Ask again: it is started anew."
                ) from error
            finally:
                self._last = time.monotonic()

    def close(self) -> None:
        """End the process; nobody is answered any more."""
        self._closed.set()
        if (process := self._process) is not None:
            process.kill()
        with self._turns.mine(however_many=True):
            self._end()

    def _running(self) -> "_Process":
        """The process, started if need be."""
        if self._process is None or not self._process.is_alive:
            self._end()
            self._process = _Process(self._command, self._log)
            self._process.get_ready(self._limits.start)
            threading.Thread(target=self._end_when_idle, name="playground", daemon=True).start()
        return self._process

    def _end_when_idle(self) -> None:
        """End the process that runs when nobody has asked for a while."""
        mine = self._process
        while not self._closed.wait(max(0.05, self._last + self._limits.idle - time.monotonic())):
            if self._process is not mine:
                return
            if time.monotonic() >= self._last + self._limits.idle:
                with self._turns.mine(however_many=True):
                    if self._process is mine and time.monotonic() >= self._last + self._limits.idle:
                        self._end()
                        return

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


def _outcome(reply: Any) -> Outcome:
    try:
        if "error" in reply:
            raise PlaygroundError(*map(str, reply["error"]))
        return Outcome.from_json(reply["outcome"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _Lost("said something that is no answer") from error


class _Lost(Exception):  # noqa: N818 - what became of the process, as a part of a sentence
    """The process is not to be used any more."""


class _Process:
    """A process that answers each line with a line."""

    def __init__(self, command: list[str], log: Path | None) -> None:
        self.is_ready = False
        with opened_log(log) as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
            )
        self._read = b""

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def get_ready(self, seconds: float) -> None:
        """Wait until it says that it is."""
        self._line(seconds)
        self.is_ready = True

    def ask(self, question: Any, seconds: float) -> Any:
        """Its answer, which it has so many seconds for."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise _Lost("has ended") from error
        return self._line(seconds)

    def _line(self, seconds: float) -> Any:
        assert self._process.stdout is not None
        until, out = time.monotonic() + seconds, self._process.stdout.fileno()
        while b"\n" not in self._read:
            ready, _, _ = select.select([out], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise _Lost(f"has said nothing for {seconds:g} s")
            part = os.read(out, 1 << 16)
            if not part:
                raise _Lost("has ended")
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError as error:
            raise _Lost("said something that is no answer") from error

    def kill(self) -> None:
        """Have it ended, whatever it does; who waits for its answer learns so."""
        self._process.kill()

    def end(self) -> None:
        """End it, and let go of what leads to it."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                assert pipe is not None
                pipe.close()
            except OSError:
                pass  # what was still to be written has nobody to read it


class _Turns:
    """Lets one thread in at a time, in the order in which they came, and not more than so many wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._change = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def mine(self, however_many: bool = False) -> Iterator[None]:
        """Inside, nobody else is.

        Raises:
            PlaygroundError: too many wait.
        """
        me = object()
        with self._change:
            if len(self._waiting) > self._most and not however_many:
                raise PlaygroundError(
                    f"The playground is busy: {self._most} questions are before yours.", "Try again in a few seconds."
                )
            self._waiting.append(me)
            self._change.wait_for(lambda: self._waiting[0] is me)
        try:
            yield
        finally:
            with self._change:
                self._waiting.popleft()
                self._change.notify_all()


class _Visits:
    """Who has asked what, and when."""

    def __init__(self, a_minute: int) -> None:
        self._a_minute = a_minute
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._lately: OrderedDict[str, deque[float]] = OrderedDict()

    @contextmanager
    def by(self, who: str) -> Iterator[None]:
        """Inside, this person is answered.

        Raises:
            PlaygroundError: another question of theirs is under way, or there were too many in the last minute.
        """
        with self._lock:
            now = time.monotonic()
            if who in self._under_way:
                raise PlaygroundError("Your question before this one is still being answered.", "Wait for its answer.")
            times = self._lately.setdefault(who, deque())
            while times and times[0] < now - 60:
                times.popleft()
            if len(times) >= self._a_minute:
                raise PlaygroundError(
                    f"You have asked {self._a_minute} questions within a minute, which is the most.",
                    f"Go on in {60 - (now - times[0]):.0f} seconds.",
                )
            times.append(now)
            self._lately.move_to_end(who)
            while next(iter(self._lately.values()))[-1] < now - 60:
                self._lately.popitem(last=False)
            self._under_way.add(who)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.discard(who)
