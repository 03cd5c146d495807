"""A comparison of seconds: two of the models that ship on few questions, and what tests ask of its store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.serving import small_registry
from probing.cuts import Cut
from probing.jobs.crew import Alone
from probing.jobs.job import Job
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Plan, Spec, evaluation_key
from probing.jobs.tasks import Task
from probing.pairs import load_registry
from probing.rollouts import Criteria, select
from probing.store import Store, open_store

SPEC = Spec("small", "few", (Cut(0.3),), Criteria(n=6))


@contextmanager
def store_of(folder: Path, spec: Spec) -> Iterator[Store]:
    """A store in which a job ran to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBING_PAIRS", str(small_registry(folder)))
        opened = open_store(folder / "store.duckdb")
        do(opened, spec)
        yield opened
        opened.close()


def plan(spec: Spec = SPEC) -> Plan:
    return make_plan(spec, load_registry())


def do(store: Store, spec: Spec) -> list[str]:
    """Do a job; returns the stages that it went through."""
    stages: list[str] = []
    Job(store, Alone(), plan(spec), lambda stage, done, total: stages.append(stage)).do()
    return stages


def key(store: Store, task: Task, spec: Spec = SPEC) -> str:
    """Of a task of the first cut."""
    of, selection = plan(spec), spec.selections()[0]
    answers = [store.rollouts.answers(of.rollout_key(side)) for side in SIDES]
    runs = store.comparisons.runs(of.comparison_key(selection))
    return evaluation_key(task, of.case(select(*answers, selection), runs))


def runs(store: Store) -> dict[str, str]:
    """Of both sides, at the first cut."""
    return store.comparisons.runs(plan().comparison_key(SPEC.selections()[0]))
