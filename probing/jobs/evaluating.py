"""Doing a task, units at a time: what is there is not measured again, and what is finished is kept."""

import time
from typing import Any

from probing.jobs.crew import Team
from probing.jobs.measuring import Ground, prepare
from probing.jobs.plan import Plan, evaluation_key, evaluation_settings
from probing.jobs.tasks import Task
from probing.rollouts import Selected
from probing.store.records import Subject


def evaluate(team: Team, plan: Plan, task: Task, selected: Selected | None) -> None:
    """Bring the results of a task into the store: of the pair as a whole, or of what a cut selected."""
    store = team.store
    comparison = plan.comparison_key(selected.selection) if selected is not None else None
    runs = store.comparisons.runs(comparison) if comparison is not None else {}
    case = plan.case(selected, runs)
    key = evaluation_key(task, case)
    subject = Subject(plan.pair.name, plan.question_set.name, comparison, task.of_side)
    if store.evaluations.finished(key):
        store.evaluations.link(key, subject)
        return
    started = time.monotonic()
    whose = plan.name_of(task.of_side) if task.of_side else plan.pair.name
    words = f"{whose} {task.kind}" + (f", {selected.selection.at.short}" if selected is not None else "")
    stage = prepare(task, Ground(key, store, plan, selected, runs))
    laid = team.crew.lay_out(stage, team.report)
    units = [unit for phase in laid.phases for unit in phase]
    store.evaluations.start(key, task.kind, subject, evaluation_settings(task, case), units, laid.ids)
    made: dict[str, Any] = {}
    for phase in laid.phases:
        portions = [phase[i : i + laid.at_once] for i in range(0, len(phase), laid.at_once)]
        now = stage.after(store.evaluations.values(key))
        made |= team.spread(now, words, portions, lambda: store.evaluations.measured(key), len(units))
    store.evaluations.finish(key, made | {**laid.noted}, time.monotonic() - started)
