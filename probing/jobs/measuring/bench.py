"""What a task is given, and what it gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from probing.attribution import Attributor, References, find_references
from probing.checkpoints import Checkpoint
from probing.graph import Granularity
from probing.jobs.loading import Models
from probing.jobs.plan import SIDES, Numerics, Plan
from probing.jobs.progress import Progress
from probing.jobs.texts import texts
from probing.rollouts import Answer, Selected
from probing.scores import Scores
from probing.sequences import Sample
from probing.store import Store
from probing.store.records import Measurements


@dataclass(frozen=True)
class Measuring:
    """A task laid out."""

    units: Sequence[str]
    """All of them, in order."""
    ids: Sequence[str]
    """The questions that values are over."""
    measure: Callable[[Sequence[str], Callable[[], None]], dict[str, Float[np.ndarray, "unit id"]]]
    """The measures of some units; meanwhile it calls what it is given, to say it is alive. What a unit measures may
    depend on units before it (`Bench.there`), and not on which are measured with it: a job that is resumed asks for
    those that are missing."""
    at_once: int
    """Units that are measured between two looks at whether the job should go on."""
    noted: Mapping[str, Any] = field(default_factory=dict)
    """What else was found, which goes beside the results."""


@dataclass(frozen=True)
class Bench:
    """The pair of a task, and the comparison if it is of one. A second model that it has had is gone with it."""

    key: str
    """Of the evaluation that is made."""
    store: Store
    plan: Plan
    selected: Selected | None
    runs: Mapping[str, str]
    """The run of each side; none where the task is of the pair as a whole."""
    _models: Models
    _report: Progress
    _second: dict[str, tuple[Attributor, Any]] = field(default_factory=dict)
    """By dtype; one at most."""
    _references: dict[str, References] = field(default_factory=dict)
    """By side."""

    def scores(self, side: str) -> Scores:
        """The scores of a side's run."""
        return self.store.runs.scores(self.runs[side])

    def answers(self, side: str) -> list[Answer]:
        """All answers of a side, in the order of the question set."""
        return self.store.rollouts.answers(self.plan.rollout_key(side))

    def samples(self, side: str) -> list[Sample]:
        """What a side's model is scored on at the comparison's cut, in the order of the question set."""
        if self.selected is None:
            raise ValueError("a task of the pair as a whole has no cut")
        ((_, chosen),) = texts(self.plan, side, self.answers(self.plan.author(side)), [self.selected])
        return chosen

    def there(self) -> Measurements:
        """What has been measured so far, in this job or in one that was stopped; of the batches before the present."""
        return self.store.evaluations.values(self.key)

    def model(self, side: str, dtype: str | None = None) -> tuple[Attributor, Any]:
        """A side's model and its tokenizer, in the dtype of scores unless another is given; only until the next."""
        return self._models.load(*self._wanted(side, dtype), self._report)

    def references(self, side: str, samples: Sequence[Sample], say: Callable[[], None]) -> References:
        """What stands in on a side's samples, by the method of its scores; found once, by the first who asks."""
        if side not in self._references:
            kind, (attributor, _) = self.plan.spec.method.reference, self.model(side)
            self._references[side] = find_references(attributor, kind, samples, progress=lambda done: say())
        return self._references[side]

    def both(self, dtype: str | None = None) -> dict[str, tuple[Attributor, Any]]:
        """Both sides' models and tokenizers in memory at once, until the task is done."""
        base, tuned = SIDES
        first, wanted = self.model(base, dtype), self._wanted(tuned, dtype)
        if wanted[2] not in self._second:
            self._second.clear()
            self._second[wanted[2]] = self._models.second(*wanted, self._report)
        return {base: first, tuned: self._second[wanted[2]]}

    def _wanted(self, side: str, dtype: str | None) -> tuple[Checkpoint, Numerics, str, Granularity]:
        plan = self.plan
        return plan.checkpoints[side], plan.numerics, dtype or plan.numerics.scores, plan.spec.method.granularity
