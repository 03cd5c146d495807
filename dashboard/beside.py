"""Up to four pairs side by side: which ones, and their circuits on one scale."""

from collections.abc import Iterator
from functools import partial
from html import escape

import streamlit as st

from dashboard import data
from dashboard.edge_filter import EdgeFilter
from dashboard.figures import wiring
from dashboard.view import COHORT_NAMES, View, alike, beside
from dashboard.widgets import chart
from dashboard.words import as_text, listed
from probing.pairs import Pair, load_registry

MOST = 3
"""Pairs beside the one in view."""


def chosen(view: View) -> list[View]:
    """The control of what stands beside a view, and what it says; which pairs cannot be shown is said below it."""
    pairs = load_registry().pairs
    control, quick = st.columns([3, 2], vertical_alignment="bottom")
    names = control.multiselect(
        "Beside",
        list(pairs),
        format_func=lambda name: pairs[name].title,
        max_selections=MOST,
        key="beside",
        bind="query-params",
        persist_state="session",
        placeholder="Other pairs, up to three",
        help="Pairs to stand beside the one in view, on one scale.",
    )
    usual = list(_usual(view))
    if usual and names != [pair.name for pair in usual]:
        quick.button(
            as_text(listed([pair.title for pair in usual])),
            on_click=lambda: st.session_state.update(beside=[pair.name for pair in usual]),
            icon=":material/splitscreen:",
        )
    found, reasons = [], []
    for pair in (pairs[name] for name in names if name != view.pair.name):
        other = beside(view, pair)
        if reason := _reason(view, pair, other):
            reasons.append(f"{as_text(pair.title)} {reason}")
        elif other is not None:
            found.append(other)
    if reasons:
        st.caption(f":material/visibility_off: Not shown: {'; '.join(reasons)}.")
    return found


def _reason(view: View, pair: Pair, other: View | None) -> str | None:
    """Why a pair cannot stand beside a view."""
    if view.question_set not in pair.questions:
        return "has other questions"
    if other is None:
        return f"has not been computed at α = {view.alpha:g}, {COHORT_NAMES[view.cohort]}, by these rules"
    if other.graph != view.graph:
        return "has another graph, whose edges and numbers cannot be compared with these"
    return None


def _usual(view: View) -> Iterator[Pair]:
    """Pairs that most want to be seen beside a view: of its base, one for each other algorithm, and a control."""
    there = {row.pair for row in alike(view) if row.alpha == view.alpha and row.graph == view.graph}
    pairs = [pair for pair in load_registry().pairs.values() if pair.name in there and pair.base == view.pair.base]
    tuned: dict[str, Pair] = {}
    for pair in pairs:
        if not pair.control and (view.pair.control or pair.algorithm != view.pair.algorithm):
            tuned.setdefault(pair.algorithm, pair)
    controls = sorted((pair for pair in pairs if pair.control), key=lambda pair: pair.control != "training")
    yield from list(tuned.values())[: MOST if view.pair.control else MOST - 1]
    yield from [] if view.pair.control else controls[:1]


def circuits(view: View, rules: EdgeFilter, pick: wiring.Pick) -> None:
    """The edges that changed most in each of some pairs, as graphs on one scale."""
    st.subheader("Beside other pairs")
    views = [view, *chosen(view)]
    if len(views) == 1:
        return
    tables = [data.edge_table(of.key, of.graph) for of in views]
    scale = wiring.Scale.of(*tables)
    for column, of, table in zip(st.columns(len(views), gap="small"), views, tables, strict=True):
        shown = rules.apply(table, "difference")
        with column:
            chart(
                partial(
                    wiring.graph, {"difference": shown}, of.graph, scale, pick, {"difference": escape(of.pair.title)}
                ),
                f"beside-{of.pair.name}",
                f"Graph of the edges that changed most in the pair {of.pair.title}.",
                shown,
            )
    st.caption(
        "The difference of each pair, by the rules and in the colours of the graphs above, on one scale: the widest "
        "line is the largest change of all."
    )
