"""Who does the stages of a job, and how workers that have the same store share them.

Every worker of a job walks through the same stages in the same order. Of each it takes what nobody has done and nobody
is at, a batch at a time (`probing.store.leases`), and goes on to the next when all is there. So a worker may come at
any time, and one that dies leaves to the others what it was at.
"""

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from probing.jobs.bench import Bench
from probing.jobs.numerics import devices, numerics_for
from probing.jobs.plan import Numerics, Request, Wanted
from probing.jobs.progress import Progress, now_and_then
from probing.jobs.stages import Emit, Say, Stage
from probing.store import Store
from probing.store.spool import Batch

Laid = TypeVar("Laid")

Portion = tuple[str, ...]
"""Items that are done together."""

PAUSE = 0.1
"""Seconds between two looks at whether others are done."""


@dataclass(frozen=True)
class Share:
    """One worker's part of a stage."""

    take: Callable[[int], list[Portion]]
    """The next portions that are lent to this worker, at most so many; none where nothing is left or others have it."""
    keep: Emit
    done: Callable[[Portion], None]
    """Gives a portion back whose batches are kept."""
    say: Say


class Crew(Protocol):
    """Whoever does stages: this process, or others."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices on which it can work."""

    def numerics(self, request: Request) -> Numerics:
        """On what, and in which dtypes, it would compute a request."""

    def lay_out(self, stage: Stage[Laid], report: Progress) -> Laid:
        """What only the models can tell of a stage."""

    def work(self, stage: Stage[Any], share: Share) -> None:
        """Do what can be taken, until nothing can."""

    def made(self, stage: Stage[Any], whole: bool) -> dict[str, Any]:
        """With what the items of a stage were made; empty if others made them. If the stage was `whole` when this crew
        came to it, whoever made it is gone, and this one stands for them as far as it can."""

    def rest(self) -> None:
        """The job is over: nothing of its stages is needed any more, and models perhaps for the next."""


@dataclass
class Alone:
    """This process."""

    bench: Bench = field(default_factory=Bench)
    _worked_on: str = ""

    @property
    def devices(self) -> tuple[str, ...]:
        """Those of this machine."""
        return devices()

    def numerics(self, request: Request) -> Numerics:
        """As this machine has it."""
        return numerics_for(request)

    def lay_out(self, stage: Stage[Laid], report: Progress) -> Laid:
        """With the models that are here."""
        self.bench.report = report
        self.bench.turn_to(stage.key)
        return stage.lay_out(self.bench)

    def work(self, stage: Stage[Any], share: Share) -> None:
        """One portion after the other. Whoever waits for a GPU has none: others would wait for it."""
        self.bench.turn_to(stage.key)
        wanted = getattr(stage, "wanted", None)
        if isinstance(wanted, Wanted) and wanted.numerics.device == "cuda":
            self.bench.load(wanted)
        while portions := share.take(1):
            for portion in portions:
                share.say()
                stage.do(portion, self.bench, now_and_then(share.say), share.keep)
                self._worked_on = stage.key
                share.done(portion)

    def made(self, stage: Stage[Any], whole: bool) -> dict[str, Any]:
        """With the model that was loaded last."""
        return stage.made(self.bench) if whole or self._worked_on == stage.key else {}

    def rest(self) -> None:
        """Models stay."""
        self.bench.turn_to("")
        self._worked_on = ""


def new_name() -> str:
    """A name for a worker of this process."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Team:
    """One worker's hold on a store that it may share with others."""

    store: Store
    crew: Crew
    report: Progress
    name: str = field(default_factory=new_name)

    def spread(
        self,
        stage: Stage[Any],
        words: str,
        portions: Sequence[Portion],
        there: Callable[[], set[str]],
        total: int | None = None,
    ) -> dict[str, Any]:
        """See that all portions of a stage are done, by this worker or by others; returns with what those of this one
        were made. `there` gives the items that are in the store, of `total` if these portions are not all."""
        total, of = total or sum(map(len, portions)), {f"{stage.key} {portion[0]}": portion for portion in portions}
        known: set[str] = set()
        held: set[str] = set()
        """The names of what this worker has and is not done with."""

        def look() -> list[str]:
            """The names of what is missing."""
            known.update(there())
            return [name for name, portion in of.items() if not known.issuperset(portion)]

        def say() -> None:
            self.report(words, min(total, len(known)), total)

        def take(most: int) -> list[Portion]:
            lent = self.store.leases.take(self.name, [name for name in look() if name not in held], most)
            left = set(look()) if lent else set()
            mine = [name for name in lent if name in left]
            late = [name for name in lent if name not in left]  # done by another, between the look and the lease
            if late:
                self.store.leases.give_back(self.name, late)
            held.update(mine)
            return [of[name] for name in mine] or (take(most) if late else [])

        def keep(batch: Batch) -> None:
            self.store.spool.put(batch)
            self.store.batches.ingest()

        def done(portion: Portion) -> None:
            name = f"{stage.key} {portion[0]}"
            held.discard(name)
            self.store.leases.give_back(self.name, [name])

        waiting, missing = now_and_then(say), look()
        whole = not missing
        while missing:
            self.crew.work(stage, Share(take, keep, done, say))
            if missing := look():
                waiting()
                time.sleep(PAUSE)
        return self.crew.made(stage, whole)

    def once(self, name: str, words: str, is_there: Callable[[], bool], do: Callable[[], None]) -> None:
        """See that something is done that cannot be divided, by this worker or by another."""
        waiting = now_and_then(partial(self.report, words, 0, 1))
        while not is_there():
            if self.store.leases.take(self.name, [name]):
                if not is_there():
                    self.report(words, 0, 1)
                    do()
                self.store.leases.give_back(self.name, [name])
            else:
                waiting()
                time.sleep(PAUSE)
