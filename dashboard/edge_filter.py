"""Which edges a circuit shows: how many, of which kind, and the controls that say so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from probing.edge_tables import CHANGES, changes, covering, strongest
from probing.figures.panels import EFFECTS, PANELS
from probing.graph import ResidualGraph

MOST = 500
"""Edges that a panel shows at most; a browser gets slow beyond."""

_LEAST = 10
"""The fewest that can be asked for."""

SIGNS = {"any": 0, "helps": 1, "hurts": -1}
"""Helps: removing the edge would raise the loss."""


@dataclass(frozen=True)
class EdgeFilter:
    """Rules by which edges are shown. Empty `kinds` or `changed` mean all."""

    count: int | None = 60
    """The strongest so many; None to cover `share` instead."""
    share: float = 0.8
    """Of the total |value| that the shown edges cover."""
    kinds: Sequence[str] = ()
    layers: tuple[int, int] | None = None
    """Layers whose readers are shown, the ends included; None for all, and the head."""
    sign: str = "any"
    changed: Sequence[str] = ()
    sure: bool = False
    """Whether the edge must have changed: its q over all edges is at most 0.05."""
    only: frozenset[str] | None = None
    """Nothing but these."""

    @property
    def active(self) -> int:
        """How many rules leave edges out, besides the number shown."""
        return sum(map(bool, (self.kinds, self.layers, self.sign != "any", self.changed, self.sure, self.only)))

    def allowed(self, table: pd.DataFrame, panel: str) -> pd.Series:
        """Whether the rules allow each edge of a table in a panel, whatever its strength."""
        keep = pd.Series(True, index=table.index)
        if self.kinds:
            keep &= table["kind"].isin(self.kinds)
        if self.layers:
            keep &= table["layer"].between(*self.layers)
        if self.sign != "any":
            keep &= SIGNS[self.sign] * table[EFFECTS[panel]] > 0
        if self.changed:
            keep &= changes(table, self.rank(table))[list(self.changed)].any(axis=1)
        if self.sure:
            keep &= table["changed"]
        if self.only is not None:
            keep &= table["edge"].isin(self.only)
        return keep

    def rank(self, table: pd.DataFrame) -> int:
        """The rank up to which an edge belongs to a model's circuit, for `gained` and `lost`."""
        if self.count is not None:
            return self.count
        return min(MOST, max(covering(table, PANELS[side], self.share) for side in ("base", "tuned")))

    def apply(self, table: pd.DataFrame, panel: str) -> pd.DataFrame:
        """The edges that a panel shows, the strongest first."""
        column = PANELS[panel]
        values = table.loc[self.allowed(table, panel), [column]]  # not all columns, of what may be many edges
        count = self.count if self.count is not None else covering(values, column, self.share)
        return table.loc[strongest(values, column, min(count, MOST)).index]


def together(table: pd.DataFrame, panels: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The edges that any of the panels shows, in canonical order."""
    return table.loc[sorted(set().union(*(shown.index for shown in panels.values())))]


def controls(table: pd.DataFrame, graph: ResidualGraph, only: frozenset[str] | None, of_signs: str = "") -> EdgeFilter:
    """The controls, in a row; each is bound to the URL. `of_signs` is what has to be known of the sign of an effect."""
    how, amount, rules = st.columns([1.1, 2.4, 0.8], vertical_alignment="bottom")
    with how:
        by = st.segmented_control(
            "Show",
            ["strongest", "share"],
            default="strongest",
            required=True,
            key="by",
            bind="query-params",
            help="So many of the strongest edges, or as many as hold a share of the total |score|.",
        )
    count, share = None, 0.8
    with amount:
        if by == "share":
            percent = st.slider(
                "Share of the total |score|, %", 10, 99, 80, key="share", bind="query-params",
                help=f"Each panel shows as many edges as it takes, at most {MOST}.",
            )  # fmt: skip
            share = percent / 100
        else:
            count = most = min(MOST, len(table))
            if most > _LEAST:
                count = st.slider(
                    "Edges in each panel", _LEAST, most, min(60, most), key="edges", bind="query-params",
                    help="The strongest by mean |score|; in the difference, those that changed most.",
                )  # fmt: skip
    with rules:
        menu = st.popover("Filter", icon=":material/filter_alt:", width="stretch", key="filters")
    with menu:
        kinds = st.pills(
            "Reader", graph.kinds, selection_mode="multi", key=_kinds_key(graph), bind="query-params",
            help="Edges into query, key or value projections, MLPs, or the head. None chosen: all.",
        )  # fmt: skip
        everywhere = (0, graph.layers - 1)
        span = everywhere
        if graph.layers > 1:
            span = st.slider(
                "Layers of the reader", *everywhere, everywhere, key=_layers_key(graph), bind="query-params"
            )
        sign = st.segmented_control(
            "Effect", list(SIGNS), default="any", required=True, key="sign", bind="query-params",
            help="Helps: removing the edge would raise the loss. In the difference, of the tuned model." + of_signs,
        )  # fmt: skip
        changed = st.pills(
            "Change", CHANGES, selection_mode="multi", key="changed", bind="query-params",
            help="Gained, lost: entered or left the strongest. Strengthened, weakened: q at most 0.05 over all edges. "
            "Flipped: from helping to hurting or back, with such a q of its own.",
        )  # fmt: skip
        sure = st.toggle(
            "Only edges that changed", key="sure", bind="query-params",
            help="A strength changed if q is at most 0.05: tested by sign flips over the questions, over all edges.",
        )  # fmt: skip
        chosen = EdgeFilter(
            count, share, tuple(kinds or ()), None if span == everywhere else span, sign or "any", tuple(changed or ()),
            sure, only,
        )  # fmt: skip
        st.button("Reset", on_click=_reset, args=(graph,), icon=":material/filter_alt_off:", disabled=not chosen.active)
    return chosen


def _layers_key(graph: ResidualGraph) -> str:
    """Pairs of other shapes have other layers to choose from, so each shape has its own choice."""
    return f"layers-of-{graph.layers}"


def _kinds_key(graph: ResidualGraph) -> str:
    """So have graphs with other kinds of reader."""
    return "kinds" if graph.granularity == "projections" else f"kinds-of-{graph.granularity}"


def _reset(graph: ResidualGraph) -> None:
    everywhere = {_kinds_key(graph): [], _layers_key(graph): (0, graph.layers - 1)}
    st.session_state.update(everywhere | {"changed": [], "sure": False, "sign": "any"})
