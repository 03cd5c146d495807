"""What a job may be asked for beside scores: a *task* is a value, of a kind that is registered here.

`task` says what every kind has: words, what goes into the key of its evaluation, what it costs, and what is printed of
its results. These modules load no model, so that whoever only asks for tasks or shows results need not; `measuring`
has what does them. A kind is added by a class here and a function there, each named in its registry.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from probing.errors import TaskError
from probing.jobs.tasks.ablation import Check
from probing.jobs.tasks.circuit import Curve
from probing.jobs.tasks.edge import OneEdge
from probing.jobs.tasks.task import BOTH, Case, Cost, Side, Task
from probing.jobs.tasks.transplant import Transplant

KINDS: dict[str, type[Task]] = {task.kind: task for task in (Check, Curve, OneEdge, Transplant)}
"""Every kind of task, by its name."""


def from_json(row: Mapping[str, Any]) -> Task:
    """The task that `Task.as_json` gave.

    Raises:
        TaskError: there is no such kind, or it cannot be done as asked.
    """
    return _kind(row["kind"])(**{name: value for name, value in row.items() if name != "kind"})


def parse(text: str) -> tuple[Task, ...]:
    """The tasks that a person asks for: `KIND`, or `KIND:NAME=VALUE,NAME=VALUE`.

    Of a kind that is of one side of a comparison, both sides' unless `side` is named.

    Raises:
        TaskError: there is no such kind, it has no such setting, or it cannot be done as asked.
    """
    name, _, rest = text.partition(":")
    kind = _kind(name)
    settings: dict[str, Any] = {field.name: field.default for field in fields(kind)}
    given: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        setting, _, value = part.partition("=")
        if setting not in settings:
            raise TaskError(f"'{name}' has no setting '{setting}'.", f"It has: {', '.join(settings)}.")
        try:
            given[setting] = type(settings[setting])(value)
        except ValueError:
            raise TaskError(f"'{value}' is no number for the setting '{setting}' of '{name}'.") from None
    sides = BOTH if "side" in settings and "side" not in given else ()
    return tuple(kind(**given, **{"side": side}) for side in sides) or (kind(**given),)


def _kind(name: str) -> type[Task]:
    if name not in KINDS:
        raise TaskError(f"There is no task '{name}'.", f"There are: {', '.join(KINDS)}.")
    return KINDS[name]


__all__ = ["KINDS", "Case", "Check", "Cost", "Curve", "OneEdge", "Side", "Task", "Transplant", "from_json", "parse"]
