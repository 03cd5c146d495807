"""How each kind of task is done: a function that makes a stage of it, whose items are units.

`stage` has what such a function is given and gives. No model is loaded before units are measured that are not there,
unless only the models say which units there are.
"""

from collections.abc import Callable
from typing import Any

from probing.jobs.measuring import ablation, circuit, transplant
from probing.jobs.measuring.stage import Ground, Measuring, Units, Values
from probing.jobs.tasks import Check, Curve, OneEdge, Task, Transplant

_PREPARE: dict[type[Task], Callable[[Any, Ground], Measuring]] = {
    Check: ablation.prepare,
    OneEdge: ablation.prepare_one,
    Curve: circuit.prepare,
    Transplant: transplant.prepare,
}
"""By kind of task."""


def prepare(task: Task, ground: Ground) -> Measuring:
    """Make a stage of a task.

    Raises:
        PersonError: it cannot be done on these models or questions.
    """
    return _PREPARE[type(task)](task, ground)


__all__ = ["Ground", "Measuring", "Units", "Values", "prepare"]
