"""Circuits: the strongest edges of base, tuned and their difference, as graphs and as matrices."""

from functools import partial

import streamlit as st

from dashboard import beside, checking, data, edge_filter, everywhere, exchange, inspector
from dashboard.panels import TOGETHER, usual
from dashboard.widgets import chart, ready_view, subtitle
from dashboard.words import as_text, folded
from probing.figures import matrix, wiring
from probing.figures.cells import folds
from probing.figures.panels import PANELS

_FOLDED = (
    " They are too many for a cell each: the heads of a block share rows and columns unless it is open above, and "
    "their cells have the sums of the strengths. A click on one picks its strongest edge, which opens both blocks."
)

view = ready_view()
graph = view.graph

st.title(f"Circuits: {as_text(view.pair.arrow)}")
subtitle(view)

values = checking.values(view)
table = values.table
chosen = edge_filter.controls(table, graph, exchange.members(graph), values.of_signs)
graphs, panel = st.columns([2.9, 1], gap="medium")
with panel:
    pick = inspector.picker(graph, data.edge_table(view.key, graph))
    inspector.show(view, table, pick)
with graphs:
    side = st.segmented_control(
        "Panels", [TOGETHER, *PANELS], default=usual(st.context.headers), required=True, key="panels",
        bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
    names = list(PANELS) if side in (None, TOGETHER) else [side]
    panels = {name: chosen.apply(table, name) for name in names}
    shown = edge_filter.together(table, panels)
    with st.container(key="wide" if len(names) > 1 else "narrow"):
        chart(
            partial(wiring.graph, panels, graph, wiring.Scale.of(table, what=values.what), pick),
            "graph",
            "Graph of the residual stream; layers from bottom to top, attention on the left, MLPs on the right.",
            shown,
            on_select=partial(inspector.remember, "chart-graph"),
            selection_mode="points",
        )
    rules = f" under {chosen.active} filters" if chosen.active else ""
    st.caption(
        f"{len(shown)} edges shown{rules}. Click a node, or the middle of an edge. Widths are on one scale for base "
        "and tuned, and on another for the difference. Dotted: removing the edge would lower the loss; in the "
        f"difference, q is above 0.05 over all edges.{values.of_signs}{folded(graph)}"
    )
    checking.legend(shown)
    exchange.downloads(view, table, shown)

everywhere.section(view, pick)

st.subheader("Every edge")
unfolded = pick.unfolded(graph)
st.caption(
    "Rows write into the residual stream, columns read from it; blank cells have no edge. Colour grows with the square "
    "root of the strength, so that weak edges show; base and tuned share a scale, the difference has its own. Click a "
    "cell to pick its edge, here and above." + (_FOLDED if folds(graph) else "")
)
wide = len(names) > 1 or not matrix.is_labelled(graph, unfolded, tuple(PANELS))
with st.container(key="wide-matrix" if wide else "narrow-matrix"):
    chart(
        partial(matrix.panels, values.cells(graph, unfolded), graph, unfolded, names, pick),
        "matrix",
        "Heatmaps of every edge's strength, writers by readers.",
        table,
        on_select=partial(inspector.remember, "chart-matrix"),
        selection_mode="points",
    )

beside.circuits(view, chosen, pick)
