"""What every kind of task has."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from probing.errors import TaskError
from probing.graph import ResidualGraph
from probing.store import Store
from probing.store.records import EvaluationRow

Side = Literal["base", "tuned"]
BOTH: tuple[Side, ...] = ("base", "tuned")


@dataclass(frozen=True)
class Case:
    """What a task is done on, as keys have it. Of a pair as a whole, `runs` and `samples` are empty."""

    answers: Mapping[str, Mapping[str, Any]]
    """All that decides the answers of each side: its model and questions, the template, the decoding."""
    method: Mapping[str, Any]
    """How edges are scored."""
    scored: Mapping[str, str]
    """The device, dtype and attention of whatever does not answer."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """The key of each side's scores at a cut."""
    samples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """All that decides those scores: the model, whose answers to which questions, the cut, the method."""


@dataclass(frozen=True)
class Cost:
    """What a task takes, at most."""

    passes: float = 0
    """Forward passes of one sample."""
    answers: float = 0
    """Answers that are generated."""


@dataclass(frozen=True)
class Task(ABC):
    """One evaluation of each of a job's comparisons, or of its pair.

    A kind is a frozen dataclass whose fields have defaults and are what a person may set: texts and numbers.
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    """Raised when the code that measures changes its results."""
    of_pair: ClassVar[bool] = False
    """Whether it is of the pair as a whole, with all questions, not of the questions and cut of each comparison."""
    together: ClassVar[bool] = False
    """Whether both models are in memory at once."""

    @property
    def of_side(self) -> str | None:
        """The side that it is of, if it is of one."""
        return getattr(self, "side", None)

    def as_json(self) -> dict[str, Any]:
        """What the store keeps of it."""
        return {"kind": self.kind} | {field.name: getattr(self, field.name) for field in fields(self)}

    def refuse_unless(self, fine: bool, needed: str) -> None:
        """Raise a TaskError with what is needed unless all is fine."""
        if not fine:
            raise TaskError(f"'{self.kind}' cannot be done as asked.", f"Needed: {needed}.")

    @property
    @abstractmethod
    def words(self) -> str:
        """What is done, for a person."""

    @abstractmethod
    def settings(self, case: Case) -> dict[str, Any]:
        """All that decides its results; with the kind and version, its key is made of it.

        Not what else would make the same artifact: a model that is the base of two pairs is evaluated once.
        """

    @abstractmethod
    def cost(self, graph: ResidualGraph, questions: int) -> Cost:
        """What it takes with so many questions and a graph of at most that size."""

    @staticmethod
    @abstractmethod
    def lines(store: Store, evaluations: Sequence[EvaluationRow]) -> Iterator[str]:
        """What some finished evaluations of this kind found, all of one pair, in Markdown."""
