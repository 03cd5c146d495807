"""Circuits: the strongest edges of base, tuned and their difference, as graphs and as matrices."""

import streamlit as st

from dashboard import data, inspector
from dashboard.figures import circuit, matrix
from dashboard.widgets import chart, ready_view, subtitle
from probing.residual_graph import graph_of

view = ready_view()
table = data.edge_table(*view.keys)
layers = int(table["layer"].max()) + 1

st.title(f"Circuits: {view.pair.arrow}")
subtitle(view)

most = min(500, len(table))
n = st.slider(
    "Edges shown in each panel",
    10,
    most,
    min(60, most),
    key="edges",
    bind="query-params",
    help="The strongest by mean |score|; in the difference, those that changed most.",
)

graphs, panel = st.columns([3.2, 1], gap="medium")
with graphs:
    event = chart(
        circuit.three_panels(table, layers, n),
        "graph",
        "Graphs of the base, the tuned model and their difference; layers from bottom to top, attention on the left.",
        on_select="rerun",
        selection_mode="points",
    )
    inspector.remember(event)
    st.caption(
        "Click a node, or the middle of an edge. Width: mean |score|, on one scale for base and tuned. "
        "Dotted: removing the edge would lower the loss. Difference: orange is stronger after tuning, blue weaker."
    )
with panel:
    inspector.show(table)
    inspector.downloads(table, circuit.shown_edges(table, n), f"{view.pair.name}-{view.alpha:g}")

st.subheader("Every edge")
st.caption(
    "Rows write into the residual stream, columns read from it; blank cells have no edge. Colour grows with the square "
    "root of the strength, so that weak edges show."
)
chart(
    matrix.three_panels(table, graph_of(layers)),
    "matrix",
    "Heatmaps of every edge's strength, writers by readers, for base, tuned and their difference.",
)
