"""Circuits that are really run."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from probing.errors import TaskError
from probing.faithfulness import run_circuits
from probing.jobs.measuring.bench import Bench, Measuring
from probing.jobs.plan import SIDES
from probing.jobs.tasks.circuit import Curve

AT_ONCE = 16
"""Circuits between two looks at whether the job should go on."""


def prepare(task: Curve, bench: Bench) -> Measuring:
    """The circuits, and what runs them on the samples of the side whose model it is.

    Raises:
        TaskError: the two models' graphs differ, so one's circuit is none of the other's.
    """
    scores = {side: bench.scores(side) for side in SIDES}
    if len({of_side.graph for of_side in scores.values()}) > 1:
        raise TaskError(
            "The two models' graphs differ, so the circuits of one are none of the other's.",
            "Ask for circuits of pairs of one architecture.",
        )
    circuits, samples = task.circuits(scores), bench.samples(task.side)

    def measure(units: Sequence[str], say: Callable[[], None]) -> dict[str, Float[np.ndarray, "unit id"]]:
        attributor, _ = bench.model(task.side)
        rows = np.array([circuits[unit] for unit in units])
        references = bench.references(task.side, samples, say)
        return run_circuits(attributor, samples, rows, references, None, lambda *_: say())

    return Measuring(list(circuits), [sample.id for sample in samples], measure, AT_ONCE)
