"""Pieces that several pages use: the state of a view, the queue, metric cards, figures."""

from typing import Any

import plotly.graph_objects as go
import streamlit as st

from dashboard import data
from dashboard.selection import COHORT_NAMES, View, current
from dashboard.service import store
from dashboard.theme import CHART, number
from dashboard.words import TERMS, VERDICTS, interval, relative_interval
from probing.jobs.plan import Spec
from probing.metrics import PATTERN, Comparison, verdict
from probing.rollouts import ALPHAS, Selection
from probing.store.database import ACTIVE


def ready_view() -> View:
    """The view of the shared selection; where it is not ready, says what is the matter and ends the page."""
    view = current()
    if view.state != "ready":
        _say_why(view)
        st.stop()
    return view


def _say_why(view: View) -> None:
    st.title(view.pair.arrow)
    if view.state == "computing":
        _wait(view)
    elif view.state == "impossible":
        st.info(view.row["failure"], icon=":material/filter_alt_off:")
    elif view.state == "failed":
        st.error(f"This comparison could not be computed. {view.job['message']}", icon=":material/error:")
        _offer_to_compute(view, "Try again")
    else:
        st.info("This comparison has not been computed yet.", icon=":material/hourglass_empty:")
        _offer_to_compute(view, "Compute it")


def _offer_to_compute(view: View, label: str) -> None:
    if st.button(label, type="primary", icon=":material/play_arrow:"):
        spec = Spec(view.pair.name, view.question_set, ALPHAS, Selection(cohort=view.cohort))  # type: ignore[arg-type]
        store().submit(spec.as_json())
        data.jobs.clear()
        st.rerun()


@st.fragment(run_every=1.0)
def _wait(view: View) -> None:
    """Progress of the job that a page waits for; shows the page when it is done."""
    now = current()
    if now.state != "computing":
        st.rerun()
    st.info(
        f"Being computed: **{view.pair.arrow}**, questions {COHORT_NAMES[view.cohort]}, α = {view.alpha:g}. "
        "This page opens by itself when it is done.",
        icon=":material/progress_activity:",
    )
    job = now.job
    if job["status"] == "running" and job["total"]:
        st.progress(job["done"] / job["total"], f"{job['stage']}: {job['done']} of {job['total']}")
    else:
        ahead = int((data.jobs()["status"].isin(ACTIVE) & (data.jobs()["job_id"] < job["job_id"])).sum())
        st.progress(0.0, f"In the queue, {ahead} ahead" if ahead else "Starting")


def queue_status() -> None:
    """What the worker is doing, in the sidebar; polls only while there is something to see."""
    active = data.jobs()["status"].isin(ACTIVE).any()
    st.fragment(_queue, run_every=1.0 if active else None)()


def _queue() -> None:
    jobs = data.jobs()
    waiting = jobs[jobs["status"].isin(ACTIVE)]
    if waiting.empty:
        if st.session_state.pop("queue_was_busy", False):
            data.comparisons.clear()
            st.rerun()
        return
    st.session_state["queue_was_busy"] = True
    running = waiting[waiting["status"] == "running"]
    st.caption(f"Computing; {len(waiting)} job{'s' if len(waiting) != 1 else ''} to go")
    if len(running):
        job = running.iloc[0]
        st.progress(job["done"] / max(1, job["total"]), job["stage"] or "starting")


def metric_card(metric: str, compared: Comparison) -> None:
    """A metric as base -> tuned, with its difference, interval, and verdict where the paper has a pattern."""
    term = TERMS[metric]
    with st.container(border=True, height="stretch"):
        st.metric(
            f"{term.name}{f' ({term.unit})' if term.unit else ''}",
            f"{number(compared.base)} → {number(compared.tuned)}",
            help=term.meaning,
        )
        st.markdown(f"**{relative_interval(compared)}**")
        st.caption(f"difference {number(compared.difference, signed=True)}, 95 % interval {interval(compared)}")
        if metric in PATTERN:
            words, colour, icon = VERDICTS[verdict(metric, compared)]
            st.badge(words, color=colour, icon=icon)  # type: ignore[arg-type]


def chart(figure: go.Figure, key: str, alt: str, **options: Any) -> Any:
    """A figure with the house's settings and a description for people who cannot see it."""
    return st.plotly_chart(figure, key=f"chart-{key}", config=CHART, alt=alt, **options)


def subtitle(view: View) -> None:
    """What a page is about: the pair's nature, the questions, the cut."""
    counts = view.counts
    parts = [
        f"{view.pair.algorithm}, {view.pair.kind}",
        f"{counts['selected']} questions ({COHORT_NAMES[view.cohort]})",
        f"first {view.row['cut']:.0f} answer tokens (α = {view.alpha:g})",
    ]
    st.caption(" · ".join(parts))
    if view.row.get("warning"):
        st.warning(view.row["warning"], icon=":material/group_remove:")
