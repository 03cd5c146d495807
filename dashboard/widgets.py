"""Pieces that several pages use: the state of a view, the queue, metric cards, figures."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard import cohorts, data, exports, roles, seeds
from dashboard.drawing import drawn
from dashboard.pattern import Told, badge
from dashboard.service import public
from dashboard.view import COHORT_NAMES, PAPER, View, current, current_choice, job_for, rules, unknown
from dashboard.words import as_text, coverage_note, interval, relative_interval
from probing.figures.theme import CHART, number
from probing.jobs.plan import Spec, is_outdated, spec_of
from probing.metrics import COMPLEXITY, METRICS, Comparison, Definition
from probing.published import Published
from probing.rollouts import ALPHAS, Criteria
from probing.store.records import ACTIVE, JobRow

PAPERS = Definition(histogram_max="observed")
"""The definition that the paper's published values fit."""

FEW = 10
"""Fewer questions than these and a page says that its intervals are rough."""


# -- the state of a view -----------------------------------------------------------------------------------------------


def ready_view() -> View:
    """The view of the shared selection; where it is not ready, says what is the matter and ends the page."""
    if message := unknown():
        st.warning(message, icon=":material/link_off:")
    view = current()
    if view.state != "ready":
        st.title(as_text(view.pair.arrow))
        say_why(view)
        st.stop()
    return view


def say_why(view: View) -> None:
    """What is the matter with a view that is not ready, and what can be done about it."""
    if view.state == "computing":
        _wait(view)
    elif view.state == "impossible":
        st.info(as_text(view.comparison.failure or ""), icon=":material/filter_alt_off:")
    elif view.state == "failed":
        said = as_text(public(view.job.message)) if view.job is not None else ""
        st.error(f"This comparison could not be computed. {said}", icon=":material/error:")
        _offer(_missing(view), "Try again")
    elif nothing := cohorts.why_empty(view.pair.name, view.question_set, view.cohort):
        st.info(f"{nothing} Choose another cohort.", icon=":material/filter_alt_off:")
    else:
        st.info(
            f"This comparison has not been computed yet. {as_text(view.pair.about)}", icon=":material/hourglass_empty:"
        )
        _offer(_missing(view), "Compute it")
        if not view.pair.is_local:
            st.caption("It needs weights that do not ship with this program. This says which, and what it would take:")
            st.code(f"python -m probing probe {view.pair.name} --dry-run", language=None)


def _missing(view: View) -> Spec:
    cuts = ALPHAS if view.at in ALPHAS else (view.at,)
    return Spec(view.pair.name, view.question_set, cuts, Criteria(cohort=view.cohort))  # type: ignore[arg-type]


def _offer(spec: Spec, label: str, urgent: bool = False) -> None:
    if roles.person() is None:
        st.caption(f":material/lock: {roles.why_not()}")
    elif st.button(label, type="secondary" if urgent else "primary", icon=":material/play_arrow:"):
        roles.submit(spec, urgent)
        st.rerun()


@st.fragment(run_every=1.0)
def _wait(view: View) -> None:
    """Progress of the job that a page waits for; shows the page when it is done."""
    now = current()
    if now.state != "computing":
        st.rerun()
    st.info(
        f"Being computed: **{as_text(view.pair.arrow)}**, questions {COHORT_NAMES[view.cohort]}, {view.at.words}. "
        "This page opens by itself when it is done.",
        icon=":material/progress_activity:",
    )
    if now.job is not None:
        _show_progress(now.job)


def _show_progress(job: JobRow) -> None:
    if job.status == "running" and job.total:
        st.progress(job.done / job.total, f"{as_text(job.stage)}: {job.done} of {job.total}")
    else:
        ahead = sum(other.is_active and other.turn() < job.turn() for other in data.job_rows())
        st.progress(0.0, f"In the queue, {ahead} ahead" if ahead else "Starting")


def offer_more(view: View, label: str, why: str | None = None, **wanted: Any) -> None:
    """Offer to compute something more of a comparison, or the same in another way (`Spec`'s `timeline`, `question`,
    `also` or `method`), or show how far that is. Without a reason `why` it is not there, it is something small, for
    which a person waits: it is done first."""
    spec = spec_of(view.comparison, **wanted)
    same = {"pair": spec.pair, "questions": spec.questions, "method": spec.method, **wanted}
    _offer_or_wait(spec, lambda: job_for(same, view.cohort, view.at), label, why)


def offer_job(spec: Spec, label: str, why: str) -> None:
    """Offer a job, or show how far it is."""

    def newest() -> JobRow | None:
        return next((job for job in data.job_rows() if Spec.from_json(job.spec) == spec), None)

    _offer_or_wait(spec, newest, label, why)


def _offer_or_wait(spec: Spec, asked: Callable[[], JobRow | None], label: str, why: str | None) -> None:
    urgent = why is None

    @st.fragment(run_every=0.3 if urgent else 1.0)
    def wait() -> None:
        job = asked()
        if job is None or not job.is_active:
            st.rerun()
        else:
            _show_progress(job)

    job = asked()
    if job is not None and job.is_active:
        wait()
        return
    if job is not None and job.status == "failed":
        st.error(f"It could not be computed. {as_text(public(job.message))}", icon=":material/error:")
    if why is not None:
        st.info(why, icon=":material/hourglass_empty:")
    _offer(spec, label, urgent)


def clicked(points: list[dict[str, Any]]) -> str | None:
    """What a figure says of the first of the points that were clicked; None if it says nothing of it."""
    custom = points[0].get("customdata") if points else None
    said = custom["0"] if isinstance(custom, dict) else custom[0] if isinstance(custom, list) else custom
    return str(said) if said else None


def remember(key: str, chart: str) -> None:
    """Choose in a control what was clicked in a chart; called before the page is drawn again."""
    if (said := clicked(st.session_state[chart]["selection"]["points"])) is not None:
        st.session_state[key] = said


def queue_status() -> None:
    """What the worker is doing, in the sidebar; polls only while there is something to see."""
    active = data.jobs()["status"].isin(ACTIVE).any()
    st.fragment(_queue, run_every=1.0 if active else None)()


def _queue() -> None:
    jobs = data.jobs()
    waiting = jobs[jobs["status"].isin(ACTIVE)]
    if waiting.empty:
        if st.session_state.pop("queue_was_busy", False):
            st.rerun()
        return
    st.session_state["queue_was_busy"] = True
    running = waiting[waiting["status"] == "running"]
    st.caption(f"Computing; {len(waiting)} job{'s' if len(waiting) != 1 else ''} to go")
    if len(running):
        job = running.iloc[0]
        st.progress(job["done"] / max(1, job["total"]), as_text(job["stage"] or "starting"))


# -- what pages show ---------------------------------------------------------------------------------------------------


def first_tokens(view: View) -> str:
    """How much of each answer is scored."""
    tokens = "first answer token" if view.cut == 1 else f"first {view.cut} answer tokens"
    return tokens if view.at.unit == "tokens" else f"{tokens} ({view.at.words})"


def subtitle(view: View) -> None:
    """What a page is about: the pair's nature, the questions, the cut, and rules that are not the paper's."""
    counts = view.counts
    parts = [
        as_text(f"{view.pair.algorithm}, {view.pair.kind}"),
        f"{counts['selected']} questions ({COHORT_NAMES[view.cohort]})",
        first_tokens(view),
    ]
    own = rules(view.comparison)
    st.caption(" · ".join(parts if own == PAPER else [*parts, as_text(own)]))
    if is_outdated(view.comparison):
        st.caption(
            ":material/history: Computed by an earlier version of this program, which answered, scored or summarised "
            "in another way. On the page Runs it can be computed again."
        )
    if counts["selected"] < FEW:
        st.warning(
            f"Only {counts['selected']} questions: intervals are rough, and nothing here is sure. "
            "Choose another cohort, or a larger question set.",
            icon=":material/group_remove:",
        )
    if view.comparison.warning:
        st.caption(f":material/info: {as_text(view.comparison.warning)}")


def metric_card(told: Told, metric: str, questions: int, note: str | None = None, of: Comparison | None = None) -> None:
    """A metric as base -> tuned, with its difference, interval, what seeds do, and where the paper has a pattern, how
    it moved.

    Below stands a caution where intervals over so many `questions` are known to be too narrow, and a `note`. `of` is
    the metric counted otherwise than a comparison usually is, to which no seed band belongs.
    """
    known, compared = METRICS[metric], of or told.compared[metric]
    st.metric(known.title, _arrow(compared.base, compared.tuned), help=known.meaning)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{relative_interval(compared)}**", width="content")
        if known.direction:
            words, colour, icon = badge(replace(told, compared={**told.compared, metric: compared}), metric)
            st.badge(words, color=colour, icon=icon)  # type: ignore[arg-type]
    st.caption(f"difference {number(compared.difference, signed=True)}, 95 % interval {interval(compared)}")
    band = told.bands.get(metric) if of is None else None
    if band and (said := seeds.beside(band, compared)):
        st.caption(f":material/casino: {said}", help=seeds.about(band))
    if caution := coverage_note(metric, questions):
        st.caption(f":material/warning: {caution}")
    if note:
        st.caption(note)


def beside_published(view: View, metric: str, paper: Published) -> str | None:
    """What the paper reports of a metric, and ours as it counts where that is in another way; None if it does not."""
    if metric not in paper.metrics:
        return None
    said = f":material/menu_book: published: {_arrow(*paper.metrics[metric])}"
    if metric != COMPLEXITY.key:
        return said
    ours = data.compared_under(*view.keys, PAPERS, (metric,))[metric]
    return f"{said}, in bins that end at the largest |score|; in such bins ours: {_arrow(ours.base, ours.tuned)}"


def _arrow(base: float, tuned: float) -> str:
    return f"{number(base)} → {number(tuned)}"


def chart(
    draw: "partial[go.Figure]",
    key: str,
    alt: str,
    numbers: pd.DataFrame | Callable[[], pd.DataFrame] | None = None,
    export: bool = True,
    **options: Any,
) -> Any:
    """A figure with the house's settings, a description for people who cannot see it, and a menu to take it away.

    `draw` is the call that draws it, which is made only if nobody has made it before. `numbers` is what lies behind
    it; by default what its traces draw.
    """
    figure = drawn(draw, st.context.theme.type == "dark")
    camera = {"toImageButtonOptions": {"format": "svg", "filename": exports.file_name(current_choice(), key)}}
    event = st.plotly_chart(figure, key=f"chart-{key}", config=CHART | camera, alt=alt, **options)
    if export:
        exports.offer(key, (lambda: exports.numbers_of(figure)) if numbers is None else numbers, figure, alt)
    return event
