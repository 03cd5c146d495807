"""How each kind of task is done: a function that finds its units, and what measures some of them.

`bench` has what such a function is given and gives. No model is loaded before units are measured that are not there,
unless only the models say which units there are.
"""

from collections.abc import Callable
from typing import Any

from probing.jobs.measuring import ablation, circuit, transplant
from probing.jobs.measuring.bench import Bench, Measuring
from probing.jobs.tasks import Check, Curve, OneEdge, Task, Transplant

_PREPARE: dict[type[Task], Callable[[Any, Bench], Measuring]] = {
    Check: ablation.prepare,
    OneEdge: ablation.prepare_one,
    Curve: circuit.prepare,
    Transplant: transplant.prepare,
}
"""By kind of task."""


def prepare(task: Task, bench: Bench) -> Measuring:
    """Lay out a task's units.

    Raises:
        PersonError: it cannot be done on these models or questions.
    """
    return _PREPARE[type(task)](task, bench)


__all__ = ["Bench", "Measuring", "prepare"]
