"""Estimates beside what really happens without an edge: what is known, and a button that finds out the rest."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import data
from dashboard.view import LOSS_NAMES, View, really
from dashboard.widgets import offer_more
from dashboard.words import check_badge, share_of_zero, with_intervals
from probing import evidence
from probing.figures.cells import cells as cells_of
from probing.figures.checks import CHECKS, CHECKS_MEANING
from probing.figures.theme import between, number
from probing.figures.wiring import contradicted
from probing.graph import Edge, ResidualGraph
from probing.jobs.tasks import BOTH, OneEdge
from probing.jobs.tasks.edge import SCORE, Parts
from probing.method import Loss, told_together
from probing.store.records import Measurements


def edges(view: View) -> pd.DataFrame:
    """Every edge of a view's comparison, and in `base_verdict` and `tuned_verdict` what is said of its estimates; where
    it has none, as each edge was really removed, these are missing."""
    table = data.edge_table(view.key, view.graph)
    if view.method.path == "exact":
        return table
    found = {f"{side}_verdict": data.checked(view.keys, side, view.method.loss)["verdict"].array for side in BOTH}
    return table.assign(**found)


@dataclass(frozen=True)
class Values:
    """What a circuit is drawn of."""

    table: pd.DataFrame
    """An edge table, with `edges`' verdicts where it is of estimates."""
    what: str
    """What a strength is."""
    comparison: str | None = None
    """That has them; None if only some edges are known."""
    of_signs: str = ""
    """What has to be known where signs are shown."""

    def cells(self, graph: ResidualGraph, unfolded: frozenset[str]) -> pd.DataFrame:
        """The cells of the matrix of every edge."""
        if self.comparison is None:
            return cells_of(self.table, graph, unfolded)
        return data.cells(self.comparison, graph, unfolded)


def _estimated(view: View) -> Values:
    return Values(edges(view), "mean |score|", view.key, share_of_zero(view.method))


_ESTIMATES, _REAL = "estimates", "really removed"
_OF_EFFECTS = "mean |change of the loss without the edge|"


def values(view: View) -> Values:
    """A view's estimates, or what really happens, as a switch in the URL says; with a sentence where some is not
    known."""
    if view.method.path == "exact":
        return Values(edges(view), _OF_EFFECTS, view.key)
    chosen = st.segmented_control(
        "Values", [_ESTIMATES, _REAL], default=_ESTIMATES, required=True, key="values", bind="query-params",
        label_visibility="collapsed", help="What scores say, or what the loss does when each edge is removed, alone.",
    )  # fmt: skip
    if chosen != _REAL:
        return _estimated(view)
    if (exact := really(view)) is not None:
        return Values(data.edge_table(exact.comparison_key, view.graph), _OF_EFFECTS, exact.comparison_key)
    known = data.effect_table(view.keys, view.method.loss, view.graph)
    if known.empty:
        st.info("No edge has been removed from both models here. Pick one and check it.", icon=":material/search:")
        return _estimated(view)
    st.caption(
        f"Of {len(known)} of the {view.graph.size} edges it is known in both models what really happens without them. "
        "The others are left out."
    )
    return Values(known, _OF_EFFECTS)


def legend(shown: pd.DataFrame) -> None:
    """How many of the edges that are shown are what, in each model."""
    if "base_verdict" not in shown:
        return
    said = []
    for side in BOTH:
        counts = shown[f"{side}_verdict"].value_counts()
        badges = " ".join(check_badge(found, counts[found]) for found in CHECKS if found in counts)
        said.append(f"{side} {badges}")
    crosses = " A cross marks what reality speaks against." if contradicted(shown, "difference").any() else ""
    st.markdown(f"Estimates held against reality: {', '.join(said)}.{crosses}", help=CHECKS_MEANING)


def show(view: View, edge: str) -> None:
    """An edge's estimates beside what really happens without it, and its heads; what is not known can be asked for."""
    loss, *others = told_together(view.method.loss)
    found = _of_sides(view, edge, loss)
    rows = {f"really, {LOSS_NAMES[loss]}": with_intervals(found, "real")}
    if view.method.path != "exact":
        rows = {
            "estimate": with_intervals(found, "effect"),
            **rows,
            " ": [check_badge(said) for said in found["verdict"]],
        }
    rows |= {f"really, {LOSS_NAMES[other]}": with_intervals(_of_sides(view, edge, other), "real") for other in others}
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    st.caption("What the loss gains without this edge, in nats per token", help=CHECKS_MEANING)
    with st.container(key="small-table"):
        st.markdown("\n".join(["| | base | tuned |", "|---|---|---|", *lines]))
    if not found["questions"].all():
        offer_more(view, "Check this edge", also=_tasks(edge, "whole"))
    if view.graph.granularity != "heads" and _is_of_heads(edge):
        _heads(view, edge)


def _of_sides(view: View, edge: str, loss: Loss) -> pd.DataFrame:
    """What is known of an edge in base and tuned."""
    return data.everywhere(view.keys, edge, loss).set_index("run").loc[[*view.keys]]


def _tasks(edge: str, parts: Parts) -> tuple[OneEdge, ...]:
    return tuple(OneEdge(side, edge, parts) for side in BOTH)


def _is_of_heads(edge: str) -> bool:
    """Whether heads write what an edge carries, or read it."""
    ends = Edge.of(edge)
    return ends.writer.attention or ends.reader.attention


def _heads(view: View, edge: str) -> None:
    """The edges between heads that an edge is made of."""
    found = [data.heads_of_edge(run, edge) for run in view.keys]
    known = [measured for measured in found if measured is not None]
    if len(known) < len(BOTH):
        offer_more(view, "Check its heads", also=_tasks(edge, "heads"))
        return
    with st.expander("Its heads", icon=":material/account_tree:"):
        for tab, measured in zip(st.tabs(list(BOTH)), known, strict=True):
            tab.dataframe(heads_table(measured, view.method.loss), hide_index=True)


def heads_table(measured: Measurements, loss: Loss) -> pd.DataFrame:
    """Each edge between heads, the one that matters most first."""
    held = evidence.judged(measured.values[SCORE].T, measured.values[loss].T, data.RESAMPLED)
    held = held.assign(edge=measured.units).sort_values("effect", key=np.abs, ascending=False)
    return pd.DataFrame(
        {
            "Edge": held["edge"],
            "Estimate": [number(value, signed=True) for value in held["estimate"]],
            "Really": [number(value, signed=True) for value in held["effect"]],
            "95 % interval": list(map(between, held["low"], held["high"])),
            "Verdict": held["verdict"],
        }
    )
