"""Filling a rollout with one side's answers, batch by batch, whether they are generated or were made elsewhere."""

import time
from collections.abc import Callable, Sequence

from probing.jobs.crew import Team
from probing.jobs.plan import Plan
from probing.jobs.stages import Stage


def fill(team: Team, plan: Plan, side: str, find: Callable[[], tuple[Stage[int], Sequence[str]]]) -> None:
    """Take one side's answers into the store, unless they are all there. Only then is `find` called: it gives the stage
    that makes them, laid out as how many it makes at once, and the questions in the order of their set."""
    key, store = plan.rollout_key(side), team.store
    if store.rollouts.finished(key):
        return
    started = time.monotonic()
    stage, ids = find()
    at_once = store.rollouts.start(
        key, plan.name_of(side), plan.checkpoints[side].identity, plan.question_set.name, plan.rollout_settings(side),
        len(ids), team.crew.lay_out(stage, team.report),
    )  # fmt: skip
    portions = [tuple(ids[i : i + at_once]) for i in range(0, len(ids), at_once)]
    made = team.spread(stage, f"{plan.name_of(side)} answers", portions, lambda: store.rollouts.answered(key))
    store.rollouts.finish(key, made, time.monotonic() - started)
