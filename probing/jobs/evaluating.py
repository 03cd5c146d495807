"""Doing a task, units at a time: what is there is not measured again, and what is finished is kept."""

import time
from functools import partial

from probing.fitting import batch_by_batch
from probing.jobs.loading import Models
from probing.jobs.measuring import Bench, prepare
from probing.jobs.plan import Plan, evaluation_key, evaluation_settings
from probing.jobs.progress import Progress, now_and_then
from probing.jobs.tasks import Task
from probing.rollouts import Selected
from probing.store import Store
from probing.store.records import Subject
from probing.store.spool import MeasurementBatch


def evaluate(store: Store, models: Models, plan: Plan, task: Task, selected: Selected | None, report: Progress) -> None:
    """Bring the results of a task into the store: of the pair as a whole, or of what a cut selected."""
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
    stage = f"{whose} {task.kind}" + (f", {selected.selection.at.short}" if selected is not None else "")
    work = prepare(task, Bench(key, store, plan, selected, runs, models, report))
    store.evaluations.start(key, task.kind, subject, evaluation_settings(task, case), work.units, work.ids)
    measured = store.evaluations.measured(key)
    done, total = 0, len(work.units)

    def do(batch: list[str]) -> None:
        nonlocal done
        say = partial(report, stage, done, total)
        say()
        missing = tuple(unit for unit in batch if unit not in measured)
        if missing:
            values = work.measure(missing, now_and_then(say))
            if any(found.shape != (len(missing), len(work.ids)) for found in values.values()):
                raise ValueError(f"what {task.kind} measured is not of its units and questions")
            store.spool.put(MeasurementBatch(key, missing, values))
            store.batches.ingest()
        done += len(batch)

    batch_by_batch([list(work.units[i : i + work.at_once]) for i in range(0, total, work.at_once)], do)
    store.evaluations.finish(key, models.provenance() | {**work.noted}, time.monotonic() - started)
