"""What every stage has."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from probing.jobs.bench import Bench
from probing.store.spool import Batch

Laid = TypeVar("Laid")
"""What a stage finds out about itself where the models are."""

Say = Callable[[], None]
"""Called now and then by whoever is at work, to say so; what it raises ends the work."""

Emit = Callable[[Batch], None]
"""Takes a finished batch."""


class Stage(ABC, Generic[Laid]):
    """Work that makes one artifact, or several by the same passes, item by item; a frozen dataclass that pickles.

    An item is a question or a unit. What comes of it does not depend on which process does it, nor on what that has
    done before; items that are done together are the same ones whoever does them.
    """

    key: str
    """Of the artifact that it fills."""

    @abstractmethod
    def lay_out(self, bench: Bench) -> Laid:
        """What only the models, or the device that they are on, can tell.

        Raises:
            PersonError: it cannot be done.
        """

    @abstractmethod
    def do(self, items: Sequence[str], bench: Bench, say: Say, emit: Emit) -> None:
        """Do some items, in one batch or, where memory does not hold that, in smaller ones."""

    def made(self, bench: Bench) -> dict[str, Any]:
        """With what the items that were done on this bench were made."""
        return bench.models.provenance()
