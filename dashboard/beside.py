"""Up to four comparisons side by side, of other pairs or of other cuts of one: which ones, and their circuits on one
scale."""

from collections.abc import Iterator
from functools import partial
from html import escape

import streamlit as st

from dashboard import data
from dashboard.edge_filter import EdgeFilter
from dashboard.view import COHORT_NAMES, View, alike, beside, known_cuts, titles
from dashboard.widgets import chart
from dashboard.words import as_text, listed
from probing.cuts import Cut
from probing.figures import wiring
from probing.pairs import Pair, load_registry

MOST = 3
"""Comparisons beside the one in view."""


def chosen(view: View) -> list[View]:
    """The control of what stands beside a view, and what it says; which pairs cannot be shown is said below it."""
    pairs = load_registry().pairs
    cuts = {cut.short: cut for cut in known_cuts()}
    control, quick = st.columns([3, 2], vertical_alignment="bottom")
    names = control.multiselect(
        "Beside",
        [*pairs, *cuts],
        format_func=lambda name: pairs[name].title if name in pairs else name,
        max_selections=MOST,
        key="beside",
        bind="query-params",
        persist_state="session",
        placeholder="Other pairs or cuts, up to three",
        help="Pairs at the cut in view, and cuts of the pair in view, to stand beside it on one scale.",
    )
    usual = list(_usual(view))
    if usual and names != [pair.name for pair in usual]:
        quick.button(
            as_text(listed([pair.title for pair in usual])),
            on_click=lambda: st.session_state.update(beside=[pair.name for pair in usual]),
            icon=":material/splitscreen:",
        )
    found, reasons = [], []
    for name in names:
        pair, at = (pairs[name], view.at) if name in pairs else (view.pair, cuts[name])
        if (pair, at) == (view.pair, view.at):
            continue
        other = beside(view, pair, at)
        if reason := _reason(view, pair, at, other):
            reasons.append(f"{as_text(pair.title if name in pairs else at.words)} {reason}")
        elif other is not None:
            found.append(other)
    if reasons:
        st.caption(f":material/visibility_off: Not shown: {'; '.join(reasons)}.")
    return found


def _reason(view: View, pair: Pair, at: Cut, other: View | None) -> str | None:
    """Why a pair at a cut cannot stand beside a view."""
    if view.question_set not in pair.questions:
        return "has other questions"
    if other is None:
        return f"has not been computed at {at.words}, {COHORT_NAMES[view.cohort]}, by these rules"
    if other.keys == view.keys:
        return "scores the same tokens as the cut in view"
    if other.graph != view.graph:
        return "has another graph, whose edges and numbers cannot be compared with these"
    return None


def _usual(view: View) -> Iterator[Pair]:
    """Pairs that most want to be seen beside a view: of its base, one for each other algorithm, and a control."""
    there = {row.pair for row in alike(view) if row.at == view.at and row.graph == view.graph}
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
    st.subheader("Beside other pairs and cuts")
    views = [view, *chosen(view)]
    if len(views) == 1:
        return
    tables = [data.edge_table(of.key, of.graph) for of in views]
    scale = wiring.Scale.of(*tables)
    columns = st.columns(len(views), gap="small")
    for place, (column, of, title, table) in enumerate(zip(columns, views, titles(views), tables, strict=True)):
        shown = rules.apply(table, "difference")
        with column:
            chart(
                partial(wiring.graph, {"difference": shown}, of.graph, scale, pick, {"difference": escape(title)}),
                f"beside-{place}",
                f"Graph of the edges that changed most in the pair {title}.",
                shown,
            )
    st.caption(
        "The difference of each, by the rules and in the colours of the graphs above, on one scale: the widest "
        "line is the largest change of all."
    )
