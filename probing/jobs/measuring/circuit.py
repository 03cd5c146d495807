"""Circuits that are really run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from probing.errors import TaskError
from probing.faithfulness import run_circuits
from probing.jobs.bench import Bench
from probing.jobs.measuring.stage import Ground, OnSamples, Units, Values
from probing.jobs.plan import SIDES
from probing.jobs.stages import Say
from probing.jobs.tasks.circuit import Curve

AT_ONCE = 16
"""Circuits between two looks at whether the job should go on."""


@dataclass(frozen=True)
class Running(OnSamples):
    """What is left of a model when only a circuit is."""

    circuits: Mapping[str, Bool[np.ndarray, " edge"]]
    """Which edges each keeps, by its name."""

    def lay_out(self, bench: Bench) -> Units:
        """The circuits."""
        return self.units(self.circuits, AT_ONCE)

    def measure(self, units: Sequence[str], bench: Bench, say: Say) -> Values:
        """Run some circuits."""
        attributor, references = self.ready(bench, say)
        rows = np.array([self.circuits[unit] for unit in units])
        return run_circuits(attributor, self.samples, rows, references, None, lambda *_: say())


def prepare(task: Curve, ground: Ground) -> Running:
    """The circuits, on the samples of the side whose model runs them.

    Raises:
        TaskError: the two models' graphs differ, so one's circuit is none of the other's.
    """
    scores = {side: ground.scores(side) for side in SIDES}
    if len({of_side.graph for of_side in scores.values()}) > 1:
        raise TaskError(
            "The two models' graphs differ, so the circuits of one are none of the other's.",
            "Ask for circuits of pairs of one architecture.",
        )
    method = ground.plan.spec.method
    return Running(ground.key, ground.wanted(task.side), ground.samples(task.side), method, task.circuits(scores))
