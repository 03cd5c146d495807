"""Circuits that are really run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from probing.errors import TaskError
from probing.faithfulness import run_circuits
from probing.jobs.bench import Bench
from probing.jobs.measuring.stage import Ground, Measuring, Units, Values
from probing.jobs.plan import SIDES, Wanted
from probing.jobs.stages import Say
from probing.jobs.tasks.circuit import Curve
from probing.method import Reference
from probing.sequences import Sample

AT_ONCE = 16
"""Circuits between two looks at whether the job should go on."""


@dataclass(frozen=True)
class Running(Measuring):
    """What is left of a model when only a circuit is."""

    key: str
    wanted: Wanted
    samples: tuple[Sample, ...]
    reference: Reference
    circuits: Mapping[str, Bool[np.ndarray, " edge"]]
    """Which edges each keeps, by its name."""

    def lay_out(self, bench: Bench) -> Units:
        """The circuits."""
        return Units((tuple(self.circuits),), tuple(sample.id for sample in self.samples), AT_ONCE)

    def measure(self, units: Sequence[str], bench: Bench, say: Say) -> Values:
        """Run some circuits."""
        attributor, _ = bench.load(self.wanted)
        references = bench.references(self.wanted, self.reference, self.samples, say)
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
    reference = ground.plan.spec.method.reference
    return Running(ground.key, ground.wanted(task.side), ground.samples(task.side), reference, task.circuits(scores))
