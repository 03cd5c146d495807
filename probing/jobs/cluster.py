"""A crew on a Ray cluster: actors that hold a loaded model each, and a stage's batches spread over them.

Whoever asks for it (the driver) has the store, and is its only way in: actors are sent a stage and the names of items,
and send finished batches back. An actor that dies, with its machine or alone, costs the batch that it was at; another
does that again, and a new actor takes the dead one's place where there is room for it.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from probing.errors import PersonError
from probing.jobs.bench import Bench
from probing.jobs.crew import Portion, Share
from probing.jobs.loading import Models
from probing.jobs.numerics import numerics_for
from probing.jobs.plan import Numerics, Request
from probing.jobs.progress import Progress, silent
from probing.jobs.stages import Stage
from probing.jobs.supervisor import ROOT
from probing.store.queue import DEATHS
from probing.store.spool import Batch

Laid = TypeVar("Laid")

LOOK = 1.0
"""Seconds between two signs of life while actors are busy."""


class ClusterError(PersonError):
    """A cluster that cannot be used."""


class Actor:
    """A process on some machine of the cluster."""

    def __init__(self, threads: int) -> None:
        self._bench = Bench(Models(threads=threads, elsewhere=True))

    def call(self, name: str, *args: Any) -> Any:
        """What one of the methods below gives, or the error that it ends with."""
        try:
            return getattr(self, name)(*args)
        except Exception as error:
            return error

    def process(self) -> int:
        """Its number."""
        return os.getpid()

    def numerics(self, request: Request) -> Numerics:
        """On what this machine would compute a request."""
        return numerics_for(request)

    def lay_out(self, stage: Stage[Laid]) -> Laid:
        """As `Crew.lay_out`."""
        self._bench.turn_to(stage.key)
        return stage.lay_out(self._bench)

    def rest(self) -> None:
        """As `Crew.rest`."""
        self._bench.turn_to("")

    def do(self, stage: Stage[Any], portion: Portion) -> tuple[list[Batch], dict[str, Any]]:
        """The batches of a portion, and with what they were made."""
        done: list[Batch] = []
        self._bench.turn_to(stage.key)
        stage.do(portion, self._bench, lambda: None, done.append)
        return done, stage.made(self._bench)


def _look_for(address: str) -> None:
    """Raise a ClusterError unless something answers at an address: Ray itself tries for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except (OSError, ValueError) as error:
        raise ClusterError(f"There is no Ray cluster at {address}.", _NAME_IT) from error


_NAME_IT = "Name its head, as 10.0.0.1:6379, or 'local'."


@dataclass
class Cluster:
    """Actors of one Ray cluster.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached or has no room.
    """

    address: str
    """Of the cluster's head, or `local` for one that is made on this machine and ends with this process."""
    size: int | None = None
    """How many actors; by default one for each GPU, or for each core where there is none."""
    _idle: list[Any] = field(default_factory=list)
    _coming: dict[Any, Any] = field(default_factory=dict)
    """Actors that have not said yet that they are there, by what they will say it with."""
    _made: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By stage."""

    def __post_init__(self) -> None:
        """Reach the cluster, and start the actors."""
        try:
            import ray
        except ImportError as error:
            raise ClusterError("Ray is not installed.", "Run 'pip install -r requirements-ray.txt'.") from error
        self._ray = ray
        _look_for(self.address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody else is told of it
        local: dict[str, Any] = {}
        if self.address == "local":
            local = {"num_cpus": max(self.size or 1, os.cpu_count() or 1), "include_dashboard": False}
        path = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        try:
            quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
            ray.init(self.address, runtime_env={"env_vars": path}, **quiet, **local)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ClusterError(
                f"There is no Ray cluster at {self.address}: {str(error).strip().splitlines()[0][:200]}.",
                _NAME_IT,
            ) from error
        there = ray.cluster_resources()
        self._gpus = bool(there.get("GPU"))
        self._stillborn = 0
        self._actors = self.size or int(there.get("GPU") or there.get("CPU") or 1)
        for _ in range(self._actors):
            self._hire()

    @property
    def devices(self) -> tuple[str, ...]:
        """With GPUs if it has any."""
        return ("cpu", "cuda") if self._gpus else ("cpu",)

    def numerics(self, request: Request) -> Numerics:
        """As an actor's machine has it."""
        return self._ask("numerics", request, report=silent)

    def lay_out(self, stage: Stage[Laid], report: Progress) -> Laid:
        """With an actor's models."""
        return self._ask("lay_out", stage, report=report)

    def work(self, stage: Stage[Any], share: Share) -> None:
        """As many portions at a time as there are actors."""
        shared = self._ray.put(stage)
        busy: dict[Any, tuple[Any, Portion]] = {}
        died: dict[Portion, int] = {}
        again: list[Portion] = []
        try:
            while True:
                self._welcome()
                while self._idle and (portions := [again.pop()] if again else share.take(len(self._idle))):
                    for portion in portions:
                        actor = self._idle.pop()
                        busy[actor.call.remote("do", shared, portion)] = actor, portion
                if not busy and not again:
                    return
                share.say()
                ready, _ = self._ray.wait([*busy, *self._coming], num_returns=1, timeout=LOOK)
                for answer in [one for one in ready if one in busy]:
                    actor, portion = busy.pop(answer)
                    try:
                        found = self._ray.get(answer)
                    except self._ray.exceptions.RayError as error:  # the process, or its machine, is gone
                        self._replace(actor)
                        died[portion] = died.get(portion, 0) + 1
                        if died[portion] >= DEATHS:
                            words = f"Actors died {DEATHS} times at the same batch ({portion[0]})."
                            raise ClusterError(words, "See Ray's logs, then try again.") from error
                        again.append(portion)
                        continue
                    self._idle.append(actor)
                    if isinstance(found, Exception):
                        raise found
                    batches, self._made[stage.key] = found
                    for batch in batches:
                        share.keep(batch)
                    share.done(portion)
        finally:
            for answer, (actor, _) in busy.items():  # of a job that was stopped
                self._coming[answer] = actor

    def made(self, stage: Stage[Any], whole: bool) -> dict[str, Any]:
        """With what an actor made its last portion."""
        made = self._made.get(stage.key)
        return made | {"actors": f"{self._actors} by Ray {self._ray.__version__}"} if made else {}

    def rest(self) -> None:
        """Actors keep their models."""
        self._made.clear()
        for actor in self._idle:
            actor.call.remote("rest")

    def processes(self) -> list[int]:
        """The numbers of the actors' processes that are idle; of those on this machine one may look at them."""
        self._welcome(until_one=True)
        return [self._ray.get(actor.process.remote()) for actor in self._idle]

    def close(self) -> None:
        """Let the cluster go."""
        self._ray.shutdown()

    def _ask(self, name: str, value: Any, report: Progress) -> Any:
        """What an actor answers; another is asked where one dies."""
        for _ in range(DEATHS):
            self._welcome(until_one=True, say=partial(report, "waiting for an actor", 0, 1))
            actor = self._idle.pop()
            answer = actor.call.remote(name, value)
            try:
                while not self._ray.wait([answer], timeout=LOOK)[0]:
                    report("loading on an actor", 0, 1)
            except BaseException:
                self._coming[answer] = actor
                raise
            try:
                found = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                self._replace(actor)
                continue
            self._idle.append(actor)
            if isinstance(found, Exception):
                raise found
            return found
        raise ClusterError(f"Actors died {DEATHS} times before any work was done.", "See Ray's logs, then try again.")

    def _hire(self) -> None:
        """Start an actor."""
        how = {"num_gpus": 1} if self._gpus else {"num_cpus": 1}
        actor = self._ray.remote(Actor).options(**how).remote(1 if not self._gpus else None)
        self._coming[actor.process.remote()] = actor

    def _replace(self, actor: Any) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(actor)
        self._hire()

    def _welcome(self, until_one: bool = False, say: Callable[[], None] = lambda: None) -> None:
        """Take in the actors that have come; wait until there is one, if that is asked for."""
        while self._coming:
            waits = until_one and not self._idle
            ready, _ = self._ray.wait([*self._coming], num_returns=1, timeout=LOOK if waits else 0)
            if not ready and not waits:
                return
            for answer in ready:
                actor = self._coming.pop(answer)
                try:
                    self._ray.get(answer)
                except self._ray.exceptions.RayError as error:
                    self._stillborn += 1
                    if self._stillborn >= DEATHS * self._actors:
                        raise ClusterError("No actor comes to life.", "See Ray's logs.") from error
                    self._replace(actor)
                else:
                    self._stillborn = 0
                    self._idle.append(actor)
            if waits:
                say()
