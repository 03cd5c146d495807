"""Commands on the queue: what is to be computed, how far it is, and who computes it."""

import argparse
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from probing.cli.shared import method_of, opened, progress_bar
from probing.cuts import Cut, listed
from probing.errors import PersonError, StoreError
from probing.pairs import Registry, load_registry
from probing.rollouts import ALPHAS, Criteria
from probing.store import Store

if TYPE_CHECKING:
    from probing.jobs.crew import Crew
    from probing.jobs.plan import Plan, Spec


def probe(arguments: argparse.Namespace) -> None:
    """Do all that a pair's comparison needs, or watch the worker that is doing it."""
    from probing.jobs.plan import Spec

    registry = load_registry()
    pair = registry.pair(arguments.pair)
    spec = Spec(
        pair.name,
        arguments.questions or pair.questions[0],
        tuple(arguments.cuts or ALPHAS),
        Criteria(
            beta=arguments.beta,
            gamma=arguments.gamma,
            delta=arguments.delta,
            n=arguments.samples,
            seed=arguments.seed,
            mean_length=arguments.mean_length,
            cohort=arguments.cohort,
        ),
        arguments.device,
        arguments.dtype,
        pickled=arguments.pickled,
        served=(arguments.served_base, arguments.served_tuned),
        method=method_of(arguments),
        also=tuple(task for tasks in arguments.also for task in tasks),
    )
    if arguments.dry_run:
        _print_forecast(spec, registry, arguments)
    else:
        _probe(spec, registry, arguments)


def transplant(arguments: argparse.Namespace) -> None:
    """Put each part of one model of a pair into the other, and see what it gains or loses."""
    from probing.jobs.plan import Spec
    from probing.jobs.tasks import Transplant
    from probing.method import Method
    from probing.transplant.units import DIRECTIONS, WHATS

    registry = load_registry()
    pair = registry.pair(arguments.pair)
    asked = [
        Transplant(what, direction, arguments.samples or 0)
        for what in ([arguments.what] if arguments.what else WHATS)
        for direction in (DIRECTIONS if arguments.direction == "both" else [arguments.direction])
    ]
    spec = Spec(
        pair.name,
        arguments.questions or pair.questions[0],
        (),
        device=arguments.device,
        dtype=arguments.dtype,
        pickled=arguments.pickled,
        method=Method(arguments.granularity),
        also=tuple(asked),
    )
    if arguments.dry_run:
        _print_forecast(spec, registry, arguments)
        return
    with closing(opened(arguments)) as store:
        if (plan := _done(spec, registry, store, arguments.detach)) is not None:
            _print_transplants(store, plan, arguments.json)


def _print_transplants(store: Store, plan: "Plan", as_json: bool) -> None:
    from probing.jobs.plan import evaluation_key
    from probing.jobs.tasks import Transplant
    from probing.jobs.tasks.transplant import rows
    from probing.report import evaluations

    keys = [evaluation_key(task, plan.case()) for task in plan.spec.also]
    found = [row for row in evaluations(store, plan.pair.name, plan.question_set.name) if row.evaluation_key in keys]
    if as_json:
        print(json.dumps([unit for row in found for unit in rows(store, row)], indent=2))
    else:
        print(*Transplant.lines(store, found), sep="\n")


def _done(
    spec: "Spec", registry: Registry, store: Store, detach: bool, ray: str | None = None, actors: int | None = None
) -> "Plan | None":
    """Do a job, or queue it where a worker is to do it; returns its plan when it is done."""
    from probing.jobs.numerics import make_plan
    from probing.jobs.plan import SIDES
    from probing.jobs.worker import do_all
    from probing.sameness import weights_note

    plan = make_plan(spec, registry)
    if note := weights_note(*(plan.checkpoints[side] for side in SIDES)):
        print(note, file=sys.stderr)
    if detach:
        job = store.queue.submit(spec.as_json())
        print(f"job {job}; the dashboard's worker does it, or 'python -m probing worker'")
        return None
    with progress_bar() as progress, _crew(ray, actors) as crew:
        do_all(store, [spec], progress, crew)
    return plan


@contextmanager
def _crew(ray: str | None, actors: int | None) -> Iterator["Crew | None"]:
    """Actors of the Ray cluster at an address, if there is one."""
    if ray is None:
        yield None
        return
    from probing.jobs.cluster import Cluster

    with closing(Cluster(ray, actors)) as cluster:
        yield cluster


def _probe(spec: "Spec", registry: Registry, arguments: argparse.Namespace) -> None:
    from probing.jobs.imports import import_rollouts

    if arguments.ray and arguments.detach:
        raise PersonError("A job that is left to a worker is not done by Ray.", "Leave out --detach or --ray.")

    with closing(opened(arguments)) as store:
        if arguments.rollouts:
            with progress_bar() as progress:
                spec = import_rollouts(store, spec, registry, arguments.rollouts, arguments.ungraded, progress)
        if (plan := _done(spec, registry, store, arguments.detach, arguments.ray, arguments.actors)) is not None:
            _print_comparisons(store, plan)


def _print_comparisons(store: Store, plan: "Plan") -> None:
    from probing.metrics import INTENSITY, LOSS
    from probing.report import evaluated
    from probing.store.records import ComparisonRow, same_tokens

    table, kept = store.comparisons.table().set_index("comparison_key"), store.summaries.metrics()
    summaries = kept[kept["side"] == "tuned"].set_index(["comparison_key", "metric"])
    keys = [plan.comparison_key(selection) for selection in plan.spec.selections()]
    for key, selection in zip(keys, plan.spec.selections(), strict=True):
        row = table.loc[key]
        if isinstance(row["failure"], str):
            print(f"{selection.at.short}: {row['failure']}")
            continue
        intensity, loss = (summaries.loc[(key, metric.key)] for metric in (INTENSITY, LOSS))
        print(
            f"{selection.at.short}: intensity {intensity['base']:.3g} -> {intensity['tuned']:.3g} "
            f"(difference {intensity['difference']:+.3g}, 95 % interval {intensity['ci_low']:+.3g} to "
            f"{intensity['ci_high']:+.3g}), loss {loss['base']:.3g} -> {loss['tuned']:.3g}"
        )
        if isinstance(row["warning"], str):
            print(f"       {row['warning']}")
    if plan.spec.also:
        rows = [ComparisonRow.of({**table.loc[key], "comparison_key": key}) for key in keys]
        print("", *evaluated(store, plan.pair.name, plan.question_set.name, same_tokens(rows)), sep="\n")


def forecast(arguments: argparse.Namespace) -> None:
    """Say what a job would take, given as the store keeps it: every setting of it counts. Without one, answer for the
    dashboard what it asks line by line."""
    if arguments.spec is None:
        _answer_forecasts()
        return
    from probing.jobs.plan import Spec

    try:
        spec = Spec.from_json(json.loads(arguments.spec))
    except (ValueError, KeyError, TypeError) as error:
        raise PersonError("That is not the spec of a job.", "See 'python -m probing jobs --json' for some.") from error
    _print_forecast(spec, load_registry(), arguments)


_IDLE = 600.0
"""Seconds without a question after which nobody is expected to ask for another forecast."""


def _answer_forecasts() -> None:
    """Answer each line of the input, a spec, its store's path and settings, with a line; end with it, or when idle.

    Models' configs are read as they are needed; what takes long is loaded before the first question comes.
    """
    from probing.jobs.forecast import forecast as lay_out  # noqa: F401 - loads what takes long
    from probing.jobs.plan import Spec

    while select.select([sys.stdin], [], [], _IDLE)[0] and (line := sys.stdin.readline()):
        asked, own = json.loads(line), dict(os.environ)
        os.environ.update(asked["settings"])
        try:
            lines = _forecast(Spec.from_json(asked["spec"]), load_registry(), Path(asked["store"]))
            told = {"forecast": "\n".join(lines)}
        except PersonError as error:
            told = {"error": error.what, "remedy": error.remedy}
        for name in asked["settings"]:
            del os.environ[name]
        os.environ.update(own)
        print(json.dumps(told), flush=True)


def _print_forecast(spec: "Spec", registry: Registry, arguments: argparse.Namespace) -> None:
    from probing.store import default_path

    for line in _forecast(spec, registry, arguments.store or default_path()):
        print(line)


def _forecast(spec: "Spec", registry: Registry, path: Path) -> list[str]:
    """What a job would take with what a store has, which is not made where there is none."""
    from probing.jobs.forecast import forecast as lay_out
    from probing.store import open_store

    with closing(open_store(path)) if path.exists() else nullcontext() as store:
        return list(lay_out(spec, registry, store).lines())


def prepare(arguments: argparse.Namespace) -> None:
    """Compute every pair whose models are here, as the dashboard does when it starts."""
    from probing.jobs.shipped import shipped
    from probing.jobs.worker import do_all

    with closing(opened(arguments)) as store, progress_bar() as progress:
        do_all(store, shipped(load_registry()), progress)


def jobs(arguments: argparse.Namespace) -> None:
    """List the jobs of a store, the newest first."""
    with closing(opened(arguments)) as store:
        table = store.queue.jobs()
    if arguments.json:
        print(table.to_json(orient="records", date_format="iso", indent=2))
        return
    for row in table.itertuples():
        spec = json.loads(row.spec)
        cuts = listed([Cut.from_json(cut) for cut in spec.get("alphas", ())])
        far = f"{row.stage} {row.done}/{row.total}" if row.status == "running" else row.message
        also = "".join(f" + {kind}" for kind in dict.fromkeys(task["kind"] for task in spec.get("also", ())))
        print(f"{row.job_id:>5}  {row.status:10} {spec.get('pair', ''):12} {spec.get('questions', ''):14} "
              f"{cuts}{also}  {far}".rstrip())  # fmt: skip


def cancel(arguments: argparse.Namespace) -> None:
    """Cancel a job; what it has finished is kept."""
    with closing(opened(arguments)) as store:
        job = store.queue.job(arguments.job)
        if not job.is_active:
            raise StoreError(f"Job {arguments.job} is {job.status} already.")
        store.queue.end(arguments.job, "cancelled", "Cancelled.")
    print(f"job {arguments.job} cancelled; what it has finished is kept")


def worker(arguments: argparse.Namespace) -> None:
    """Work on the queue of a store until stopped, in a process that is watched and started again when it dies."""
    with closing(opened(arguments)) as store:
        if arguments.parent is not None:
            from probing.jobs.worker import serve

            serve(store, arguments.parent)
        else:
            from probing.jobs.supervisor import Supervisor

            supervisor = Supervisor(store, log_to_file=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: supervisor.stop())
            supervisor.watch()
