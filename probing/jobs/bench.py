"""Where stages are done: the models in a process, and what a stage has found there and needs for its next items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from probing.attribution import Attributor, References, find_references
from probing.fitting import batch_by_batch
from probing.jobs.loading import Models
from probing.jobs.plan import Wanted
from probing.jobs.progress import Progress, silent
from probing.method import Reference
from probing.sequences import Sample

Found = TypeVar("Found")
Item = TypeVar("Item")


@dataclass
class Bench:
    """A process that has models. What is kept is of one stage, and gone with it."""

    models: Models = field(default_factory=Models)
    report: Progress = silent
    """Told that a GPU is waited for."""
    _stage: str = ""
    _kept: dict[Any, Any] = field(default_factory=dict)

    def turn_to(self, stage: str) -> None:
        """What is done from now on is of the stage of this key; what was kept of another is let go."""
        if self._stage != stage:
            self._kept.clear()
            self._stage = stage

    def let_go(self) -> None:
        """Forget all models, and what was kept."""
        self.turn_to("")
        self.models.let_go()

    def kept(self, name: Any, find: Callable[[], Found]) -> Found:
        """What this stage has found under a name; found now if this is the first time."""
        if name not in self._kept:
            self._kept[name] = find()
        return cast(Found, self._kept[name])

    def load(self, wanted: Wanted) -> tuple[Attributor, Any]:
        """A model, ready to be scored, and its tokenizer; only until the next."""
        return self.models.load(wanted, self.report)

    def both(self, base: Wanted, tuned: Wanted) -> tuple[tuple[Attributor, Any], tuple[Attributor, Any]]:
        """Two models and their tokenizers in memory at once, until the stage is done."""
        first = self.load(base)
        return first, self.kept("second", lambda: self.models.second(tuned, self.report))

    def references(
        self, wanted: Wanted, kind: Reference, samples: Sequence[Sample], say: Callable[[], None],
        batch_size: int | None = None,
    ) -> References:  # fmt: skip
        """What stands in for what is removed on some samples; found once for a stage."""

        def find() -> References:
            attributor, _ = self.load(wanted)
            return find_references(attributor, kind, samples, batch_size, lambda done: say())

        return self.kept("references", find)

    def in_batches(self, items: Sequence[Item], do: Callable[[list[Item]], None]) -> None:
        """Do some items together, or in halves where memory does not hold so many; no later batch of the stage is
        larger than what it held."""
        most = min(len(items), self.limit or len(items))
        largest = batch_by_batch([list(items[i : i + most]) for i in range(0, len(items), most)], do)
        if largest < most:
            self._kept["limit"] = largest

    @property
    def limit(self) -> int | None:
        """The size to which the stage's batches were cut, where memory ran out."""
        return self._kept.get("limit")
