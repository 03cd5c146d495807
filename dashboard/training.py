"""A training over its steps: that of a view's pair and one beside it, an edge through both, and the step that plays."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from dashboard import data, everywhere
from dashboard.view import View, alike, same, trained
from dashboard.view import beside as like
from dashboard.view import seeds as seeds_of
from probing.figures import timeline
from probing.pairs import load_registry

PACE = 1.2
"""Seconds for which a step is shown while the training plays."""

_SHOWN = ("strength", "effect")
"""What of an edge is drawn: what really happens without it, nobody found out for every step."""


# -- one training, and another beside it -------------------------------------------------------------------------------


def of(view: View) -> View:
    """The view of the same tokens in which most steps of its pair's training were compared."""
    return replace(view, row=trained(same(view)))


def beside(view: View) -> View | None:
    """The control for a second training on the same axes; the view of its pair, or None if there is none."""
    pairs = load_registry().pairs
    names = dict.fromkeys(row.pair for row in alike(view) if row.pair in pairs and row.pair != view.pair.name)
    views = (found for name in names if (found := like(view, pairs[name], view.at)) is not None)
    others = {other.pair.title: other for other in map(of, views) if len(data.steps(other.key)) > 1}
    if not others:
        return None
    title = st.pills(
        "Beside it", list(others), key="training", bind="query-params",
        help="Another pair's training on the same axes. Each has questions of its own, and a step of one is not a step "
        "of the other.",
    )  # fmt: skip
    return others.get(title or "")


def metrics(views: Sequence[View]) -> dict[str, pd.DataFrame]:
    """Accuracy and metrics at every step of some trainings, by their titles."""
    return {view.pair.title: _metrics(view) for view in views}


def _metrics(view: View) -> pd.DataFrame:
    steps = data.steps(view.key)
    return timeline.series(steps, {side: data.compared(view.key, side) for side in steps["side"]})


def together(trainings: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The same as one table, to take away."""
    return pd.concat([table.assign(training=title) for title, table in trainings.items()], ignore_index=True)


# -- one edge ----------------------------------------------------------------------------------------------------------


def edge(views: Sequence[View], name: str) -> dict[str, pd.DataFrame]:
    """An edge's strength and effect at every step of some trainings, with intervals over questions, by their titles."""
    return {view.pair.title: _edge(view, name) for view in views}


def _edge(view: View, name: str) -> pd.DataFrame:
    steps, runs = data.steps(view.key), data.runs_of(view.key)
    found = _in_runs(view, [runs[side] for side in steps["side"]], name)
    by_step = steps.assign(run=steps["side"].map(runs)).merge(found, on="run")
    columns = {q: ["step", q, f"{q}_low", f"{q}_high"] for q in _SHOWN}
    long = (
        by_step[of].set_axis(["step", "value", "low", "high"], axis=1).assign(metric=q) for q, of in columns.items()
    )
    return pd.concat(long, ignore_index=True)


def levels(view: View, name: str) -> dict[str, tuple[float, float]]:
    """An edge's strength and effect in a view's base and tuned model."""
    both = _in_runs(view, view.keys, name).set_index("run").loc[[*view.keys]]
    return {quantity: (both[quantity].iloc[0], both[quantity].iloc[1]) for quantity in _SHOWN}


def seed_bands(view: View, name: str) -> dict[str, tuple[float, float]]:
    """Between what of an edge's strength and effect the base and models from other seeds lie."""
    runs = [view.keys[0], *(run for seed in seeds_of(view) for run in (seed.row.base_run, seed.row.tuned_run) if run)]
    bands = everywhere.band(view, _in_runs(view, runs, name))
    return {quantity: bands[quantity] for quantity in _SHOWN if quantity in bands}


def _in_runs(view: View, runs: Sequence[str], name: str) -> pd.DataFrame:
    return data.everywhere(tuple(dict.fromkeys(runs)), name, view.method.loss)


# -- the step that is shown --------------------------------------------------------------------------------------------


def is_playing() -> bool:
    """Whether the training plays, so that the step has to be looked at again after `PACE`."""
    return "playing" in st.session_state


def step(steps: Sequence[int]) -> int:
    """The control of the step that is shown, and the button that plays the training from it to its end."""
    shown = _played(steps)
    button, slide = st.columns([1, 5], vertical_alignment="bottom")
    with button:
        label, icon = ("Play", ":material/play_arrow:") if shown is None else ("Stop", ":material/stop:")
        if st.button(label, icon=icon, key="play", width="stretch"):
            _turn(steps)
            st.rerun()
    with slide:
        if shown is None:
            return st.select_slider("Training step", steps, max(steps), key="step", bind="query-params")
        # Another slider, which is not in the URL: the browser's history has where it stopped, not each step.
        st.session_state["played_step"] = shown
        return st.select_slider("Training step", steps, key="played_step", disabled=True)


def _turn(steps: Sequence[int]) -> None:
    """Play from the step that is shown, from the first if that is the last; or stop at the one that is shown."""
    if is_playing():
        _stop(steps)
        return
    shown = st.session_state.get("step", steps[-1])
    st.session_state["playing"] = (0 if shown == steps[-1] else steps.index(shown)), _soon()


def _played(steps: Sequence[int]) -> int | None:
    """The step that is due while the training plays; None if it does not."""
    if not is_playing():
        return None
    place, due = st.session_state["playing"]
    if time.monotonic() >= due:
        place = min(place + 1, len(steps) - 1)
        st.session_state["playing"] = place, _soon()
    if place == len(steps) - 1:
        _stop(steps)
        st.rerun()  # all of the page, which then no longer comes back for the next step
    return steps[place]


def _stop(steps: Sequence[int]) -> None:
    """Stay where it has been played to."""
    place, _ = st.session_state.pop("playing")
    st.session_state["step"] = steps[min(place, len(steps) - 1)]


def _soon() -> float:
    """When the next step is due: whatever redraws the page before does not hurry the training."""
    return time.monotonic() + PACE / 2
