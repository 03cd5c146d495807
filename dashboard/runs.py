"""The queue as a person sees it: what to ask for, how far each job is, its log, and what it made."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import cohorts, data, roles, tables
from dashboard.forecasting import forecaster
from dashboard.service import is_hosted, public
from dashboard.view import (
    COHORT_NAMES,
    GRANULARITY_NAMES,
    LOSS_NAMES,
    PATH_NAMES,
    REFERENCE_NAMES,
    TEXT_NAMES,
    address,
    current,
    current_choice,
    method_of,
)
from dashboard.words import as_text
from probing.cuts import Cut, listed
from probing.errors import PersonError
from probing.jobs.plan import Spec, is_outdated, spec_of
from probing.jobs.shipped import SAMPLES, is_of
from probing.jobs.supervisor import log_path
from probing.jobs.tasks import BOTH, Check, Curve, OneEdge, Task, Transplant
from probing.method import Method
from probing.pairs import load_registry
from probing.rollouts import ALPHAS, Criteria
from probing.store import default_path
from probing.store.records import ACTIVE, ComparisonRow, JobRow
from probing.transplant.units import DIRECTIONS

ICONS = {
    "queued": ":material/hourglass_empty:",
    "running": ":material/progress_activity:",
    "done": ":material/check_circle:",
    "failed": ":material/error:",
    "cancelled": ":material/cancel:",
}

KIND_NAMES = {
    Check.kind: "audit", Curve.kind: "circuits run", OneEdge.kind: "one edge removed", Transplant.kind: "transplants",
}  # fmt: skip
"""What kinds of task are called in a list of jobs."""

LOG_READ = 256 * 1024
"""Bytes of the log's end that are looked through."""

LOG_LINES = 200
"""Lines of a job that are shown, its last."""


def form() -> Spec:
    """The controls of a new job; its pair, questions and cohort are those of the sidebar."""
    forecaster().warm_up()
    choice = current_choice()
    questions = load_registry().question_set(choice.question_set).title
    st.markdown(
        f"**{as_text(choice.pair.title)}** ({as_text(choice.pair.arrow)}) on **{as_text(questions)}**, questions "
        f"{COHORT_NAMES[choice.cohort]}, as chosen in the sidebar"
    )
    alphas = st.segmented_control(
        "Cuts α",
        [cut.as_json() for cut in sorted({*ALPHAS, choice.at})],
        selection_mode="multi",
        default=[cut.as_json() for cut in sorted({*ALPHAS, choice.at})],
        format_func=lambda cut: str(Cut.from_json(cut)),
        key="run_alphas",
    )
    left, right = st.columns(2)
    count = left.number_input("Questions drawn", 1, 10_000, Criteria().n, key="run_samples")
    dtype = right.selectbox(
        "Numbers",
        ("auto", "float32", "bfloat16"),
        key="run_dtype",
        help="auto: float32; on a GPU models answer in their own dtype, and are scored in it if float32 is too large.",
    )
    cuts = tuple(sorted(map(Cut.from_json, alphas))) or ALPHAS
    selection = Criteria(n=int(count), cohort=choice.cohort)  # type: ignore[arg-type]
    with st.expander("Method", icon=":material/function:"):
        method = _method()
    if method.words:
        st.caption(f"Not as in the paper: {', '.join(method.words)}.")
    with st.expander("Evidence", icon=":material/fact_check:"):
        also = tuple(_evidence(method))
    return Spec(choice.pair.name, choice.question_set, cuts, selection, dtype=dtype, method=method, also=also)


def _method() -> Method:
    """The controls of how edges are scored; the first of each is the paper's."""
    left, right = st.columns(2)

    def choose(where: Any, label: str, names: Mapping[Any, str], key: str, why: str) -> Any:
        return where.selectbox(label, list(names), format_func=names.__getitem__, key=key, help=why)

    return Method(
        choose(left, "What reads in an attention block", GRANULARITY_NAMES, "run_granularity",
            "The paper's edges end at q, k and v. With the block as one, an edge's score is the sum of the three. "
            "With each head apart, every head writes and reads on its own; there are many more edges."),
        choose(right, "Estimate", PATH_NAMES, "run_path",
            "The paper follows the loss's tangent. Taking the reader's norm as it is costs little and comes closest to "
            "what removing an edge really does. Integrated gradients average the tangent over five points. To remove "
            "each edge really is no estimate, and takes about half as many passes as there are edges."),
        choose(left, "In the place of what is removed", REFERENCE_NAMES, "run_reference",
            "The paper removes a writer's output. Its mean over all questions, or what it is on another question of as "
            "many tokens, takes away only what it says about this one."),
        choose(right, "Loss", LOSS_NAMES, "run_loss",
            "The likelihood's slope vanishes as a model grows sure; the margin between the chosen token and the "
            "runner-up does not. Log-odds take that sureness out exactly."),
        choose(left, "Scored text", TEXT_NAMES, "run_text",
            "The paper scores each model on its own answers. One text for both leaves only the models to differ."),
    )  # fmt: skip


def _evidence(method: Method) -> Iterator[Task]:
    """The controls of what is measured beside scores, all off at first."""
    exact = method.path == "exact"
    audit = st.toggle(
        "Audit: edges really removed", key="run_audit", disabled=exact,
        help="Of both models, the edges with the strongest scores and random others are removed one at a time, so that "
        "scores can be held against what really happens. Where every edge is removed anyway there is nothing to audit.",
    )  # fmt: skip
    if audit and not exact:
        left, middle, right = st.columns(3)
        strongest = left.number_input("Strongest", 0, 10_000, 50, key="run_strongest")
        others = middle.number_input("Random", 0, 10_000, 100, key="run_others")
        asked = right.number_input(
            "Questions, 0 for all", 0, 10_000, 0, key="run_audited", help="How many of those that are scored."
        )
        if strongest or others:
            yield from (Check(side, int(strongest), int(others), questions=int(asked)) for side in BOTH)
    if st.toggle(
        "Circuits: run without all else", key="run_circuits",
        help="Circuits of several sizes, of both models' scores and random ones, are run in each model with everything "
        "outside them replaced: how much of it they keep.",
    ):  # fmt: skip
        yield from (Curve(side) for side in BOTH)
    if st.toggle(
        "Transplants: parts exchanged", key="run_transplants",
        help="Each part of one model is put into the other, alone and one after the other. It is of the pair as a "
        "whole, whatever cohort and cuts are chosen, and has both models in memory at once.",
    ):  # fmt: skip
        asked = st.number_input("Questions of transplants, 0 for all", 0, 10_000, SAMPLES, key="run_exchanged")
        yield from (Transplant("weights", way, int(asked)) for way in DIRECTIONS)
        if st.toggle("What parts write on the same text too", key="run_activations"):
            yield from (Transplant("activations", way, int(asked)) for way in DIRECTIONS)


def renewal() -> None:
    """Offer to compute the chosen comparison again, where an earlier version of the program made it."""
    view = current()
    if view.state != "ready" or not is_outdated(view.comparison):
        return
    st.info(
        f"An earlier version of this program computed **{as_text(view.pair.title)}**, questions "
        f"{COHORT_NAMES[view.cohort]}, {view.at.words}. What is still right of it is used again.",
        icon=":material/history:",
    )
    if st.button("Compute it again", icon=":material/replay:"):
        queue(spec_of(view.comparison))
        st.rerun()


def queue(spec: Spec) -> None:
    """Queue a job, or say which one does the same already."""
    before = set(data.jobs()["job_id"])
    try:
        job = roles.submit(spec)
    except PersonError as error:
        st.error(as_text(public(str(error))), icon=":material/lock:")
        return
    st.toast(f"Job {job} is queued." if job not in before else f"Job {job} does just that already.")


def show_forecast(spec: Spec, **settings: str) -> None:
    """What a job would take, where some `settings` of the environment stand in place of this process's own."""
    with st.spinner("Measuring this machine …"):
        try:
            told = forecaster().ask(spec, **settings)
        except PersonError as error:
            st.error(as_text(public(str(error))))
            return
    st.code(public(told), language=None, wrap_lines=True)


def may_be_asked(spec: Spec) -> bool:
    """Whether there is something to compute; says why where there is not, and leads to what has been computed."""
    if nothing := cohorts.why_empty(spec.pair, spec.questions, spec.selection.cohort):
        st.info(f"{nothing} Choose another cohort.", icon=":material/filter_alt_off:")
        return False
    made = [row for row in _made_by(spec) if _is_asked(spec, row)]
    lacking = {*spec.cuts} - {row.at for row in made}
    if not made:
        return True
    done = not lacking and _is_measured(spec, made)
    links = (f"[{row.at.words}]({address('compare', replace(current(), at=row.at, row=row))})" for row in made)
    said = "**Already computed**; open it" if done else "Already computed"
    st.markdown(f":material/check_circle: {said}: {' · '.join(links)}")
    return not done


def _is_asked(spec: Spec, row: ComparisonRow) -> bool:
    """Whether a comparison is by the very rules that a job asks for, and this version of the program's."""
    made = row.settings
    selection = replace(spec.selection, at=row.at)
    same = Criteria.from_json(made["selection"]) == selection and made.get("answers") != "imported"
    return same and spec.dtype in ("auto", made.get("scored", {}).get("dtype")) and not is_outdated(row)


def _is_measured(spec: Spec, made: list[ComparisonRow]) -> bool:
    """Whether all that a job would measure beside scores is there, of the pair or of each comparison."""
    rows = [row for row in data.evaluation_rows() if (row.pair, row.question_set) == (spec.pair, spec.questions)]
    finished = [row for row in rows if row.finished is not None]
    subjects = [{row.comparison_key} for row in made]
    return all(any(is_of(row, task, of) for row in finished) for task in spec.also for of in subjects)


def active_jobs() -> None:
    """The jobs that wait or run; polls while there are any."""
    busy = data.jobs()["status"].isin(ACTIVE).any()
    st.fragment(_active, run_every=1.0 if busy else None)()


def _active() -> None:
    active = [job for job in reversed(data.job_rows()) if job.is_active]
    if not active:
        if st.session_state.pop("runs_were_busy", False):
            st.rerun()
        st.caption("Nothing is queued.")
        return
    st.session_state["runs_were_busy"] = True
    for job in active:
        with st.container(border=True, key=f"job-{job.job_id}"):
            title, button = st.columns([5, 1], vertical_alignment="center")
            title.markdown(f"{ICONS[job.status]} **Job {job.job_id}** {as_text(describe(job))}")
            if roles.may_cancel(job) and button.button("Cancel", key=f"cancel-{job.job_id}"):
                roles.cancel(int(job.job_id))
                st.rerun(scope="fragment")
            if job.status == "running" and job.total:
                st.progress(job.done / job.total, as_text(progress(job, datetime.now(UTC).replace(tzinfo=None))))


def describe(job: JobRow) -> str:
    """What a job is to make."""
    spec = job.spec
    pair = load_registry().pairs.get(spec["pair"])
    parts = [pair.title if pair else spec["pair"], spec["questions"]]
    if cuts := Spec.from_json(spec).cuts:
        parts += [COHORT_NAMES.get(spec["selection"]["cohort"], spec["selection"]["cohort"])]
        parts += [listed(cuts), f"{spec['selection']['n']} questions"]
    parts += Spec.from_json(spec).method.words
    if spec.get("timeline"):
        parts.append("every checkpoint")
    if spec.get("question"):
        parts.append(f"token by token: {spec['question']}")
    parts += dict.fromkeys(KIND_NAMES.get(task["kind"], task["kind"]) for task in spec.get("also", ()))
    return " · ".join(parts)


def progress(job: JobRow, now: datetime) -> str:
    """How far the present stage of a job is, how fast it goes, and how long it will take."""
    far = f"{job.stage}: {job.done} of {job.total}"
    began = job.stage_started
    if began is None or not job.done:
        return far
    seconds = (now - began).total_seconds()
    if seconds < 1:
        return far
    rate = job.done / seconds
    left = (job.total - job.done) / rate
    speed = f"{rate:.1f} a second" if rate >= 1 else f"{60 * rate:.1f} a minute"
    time = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
    return f"{far}, {speed}, about {time} left in this stage"


def finished_jobs() -> JobRow | None:
    """The jobs that have ended, the newest first; returns the one that is picked."""
    ended = [job for job in data.job_rows() if not job.is_active]
    if not ended:
        return None
    by_id = {str(job.job_id): job for job in ended}
    table = pd.DataFrame(
        {
            "Job": [job.job_id for job in ended],
            "State": [job.status for job in ended],
            "What": [describe(job) for job in ended],
            "Seconds": [_seconds(job) for job in ended],
            "Finished (UTC)": [job.finished for job in ended],
            "Message": [public(job.message) for job in ended],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        height=min(320, 35 * (len(table) + 1) + 2),
        column_config={"Seconds": st.column_config.NumberColumn(format="%.0f")},
    )
    chosen = st.selectbox("Look at job", list(by_id), key="job", bind="query-params")
    return by_id.get(chosen or "")


def _seconds(job: JobRow) -> float | None:
    if job.started is None or job.finished is None:
        return None
    return (job.finished - job.started).total_seconds()


def details(job: JobRow) -> None:
    """One ended job: what became of it, its log, and with what its runs were made."""
    st.markdown(f"{ICONS[job.status]} **Job {job.job_id}**, {job.status}: {as_text(describe(job))}")
    if job.message:
        st.info(as_text(public(job.message)), icon=":material/info:")
    spec = Spec.from_json(job.spec)
    if job.status != "done" and roles.person() is not None and st.button("Try again", icon=":material/replay:"):
        queue(spec)
        st.rerun()
    lines = [] if is_hosted() else list(log_of(default_path(), int(job.job_id)))
    with st.expander(f"Log ({len(lines)} line{'s' if len(lines) != 1 else ''})" if lines else "Log"):
        if lines:
            st.code("\n".join(lines[-LOG_LINES:]), language=None)
        else:
            st.caption("It was done from a terminal, its log is gone, or this is a hosted server.")
    made = _made_by(spec)
    if spec.also:
        _show_measured(spec, {row.comparison_key for row in made})
    for row in made:
        with st.expander(f"Provenance, {row.at.words}"):
            tables.provenance(data.provenance(row.base_run or "", row.tuned_run or ""))


def _show_measured(spec: Spec, comparisons: set[str]) -> None:
    """What there is of what a job was to measure beside scores."""
    rows = [
        {
            "Measured": task.words + "".join(f", {cut.short}" for cut in row.cuts),
            "Units": f"{row.measured} of {row.units}",
            "Questions": row.questions,
            "Seconds": row.seconds,
            "Finished (UTC)": row.finished,
        }
        for task in spec.also
        for row in data.evaluation_rows()
        if (row.pair, row.question_set) == (spec.pair, spec.questions) and is_of(row, task, comparisons)
    ]
    if rows:
        seconds = {"Seconds": st.column_config.NumberColumn(format="%.1f")}
        st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=seconds)
    else:
        st.caption("Nothing of what it was to measure beside scores is there.")


def _made_by(spec: Spec) -> list[ComparisonRow]:
    """The finished comparisons that a job asked for."""
    asked = spec.pair, spec.questions, spec.selection.cohort, spec.method
    newest: dict[Cut, ComparisonRow] = {}
    for row in data.comparison_rows():
        of = row.pair, row.question_set, row.cohort, method_of(row).present
        if row.ready and of == asked and row.at in spec.cuts:
            newest.setdefault(row.at, row)
    return sorted(newest.values(), key=lambda row: row.at)


def log_of(path: Path, job: int) -> Iterator[str]:
    """The lines of the worker's log, which lies beside the store, that belong to a job."""
    log = log_path(path)
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_READ))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return
    inside = False
    for line in text.splitlines():
        if found := re.search(r"\bjob (\d+): ", line):
            inside = int(found[1]) == job
        if inside:
            yield line
