"""What the stages have that measure, and what they are prepared with."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from probing.attribution import Attributor, References
from probing.jobs.bench import Bench
from probing.jobs.plan import Plan, Wanted
from probing.jobs.stages import Emit, Say, Stage
from probing.jobs.texts import texts
from probing.method import Method
from probing.rollouts import Answer, Selected
from probing.scores import Scores
from probing.sequences import Sample
from probing.store import Store
from probing.store.records import Measurements
from probing.store.spool import MeasurementBatch

Values = dict[str, Float[np.ndarray, "unit id"]]
"""By measure."""


@dataclass(frozen=True)
class Units:
    """What is measured."""

    phases: tuple[tuple[str, ...], ...]
    """All units, in order. What one measures may depend on phases before its own (`Measuring.after`), and not on which
    are measured with it."""
    ids: tuple[str, ...]
    """The questions that values are over."""
    at_once: int
    """Units of a batch."""
    noted: Mapping[str, Any] = field(default_factory=dict)
    """What else was found, which goes beside the results."""


class Measuring(Stage[Units]):
    """The measures of units over questions; its items are units."""

    @abstractmethod
    def measure(self, units: Sequence[str], bench: Bench, say: Say) -> Values:
        """The measures of some units."""

    def after(self, found: Measurements) -> Self:
        """The stage, given what earlier phases have found."""
        return self

    def do(self, items: Sequence[str], bench: Bench, say: Say, emit: Emit) -> None:
        """Measure some units."""
        values = self.measure(items, bench, say)
        if any(found.ndim != 2 or len(found) != len(items) for found in values.values()):
            raise ValueError("what was measured is not of its units")
        emit(MeasurementBatch(self.key, tuple(items), values))


@dataclass(frozen=True)
class OnSamples(Measuring):
    """What is measured of one model on samples, by the loss and reference of a method."""

    key: str
    wanted: Wanted
    samples: tuple[Sample, ...]
    method: Method

    def units(self, names: Iterable[str], at_once: int) -> Units:
        """Units of one phase, over the samples."""
        return Units((tuple(names),), tuple(sample.id for sample in self.samples), at_once)

    def ready(self, bench: Bench, say: Say) -> tuple[Attributor, References]:
        """The model, and what stands in for what is removed from it."""
        references = bench.references(self.wanted, self.method.reference, self.samples, say)
        return bench.load(self.wanted)[0], references


@dataclass(frozen=True)
class Ground:
    """What a task is prepared with: a pair as the store has it, and the comparison if it is of one."""

    key: str
    """Of the evaluation that is made."""
    store: Store
    plan: Plan
    selected: Selected | None
    runs: Mapping[str, str]
    """The run of each side; none where the task is of the pair as a whole."""

    def scores(self, side: str) -> Scores:
        """The scores of a side's run."""
        return self.store.runs.scores(self.runs[side])

    def answers(self, side: str) -> list[Answer]:
        """All answers of a side, in the order of the question set."""
        return self.store.rollouts.answers(self.plan.rollout_key(side))

    def samples(self, side: str) -> tuple[Sample, ...]:
        """What a side's model is scored on at the comparison's cut, in the order of the question set."""
        if self.selected is None:
            raise ValueError("a task of the pair as a whole has no cut")
        ((_, chosen),) = texts(self.plan, side, self.answers(self.plan.author(side)), [self.selected])
        return tuple(chosen)

    def wanted(self, side: str) -> Wanted:
        """A side's model, as it is scored."""
        return self.plan.wanted(side)
