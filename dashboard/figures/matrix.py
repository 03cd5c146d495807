"""Writers x readers heatmaps: every edge of the graph."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.edge_filter import PANELS
from dashboard.figures.circuit import Pick, height_of
from dashboard.theme import BASE, DIVERGING, PICKED, TUNED, scale_to, style
from probing.residual_graph import ResidualGraph

_CLICKABLE = 1000
"""Cells of a panel up to which each can be clicked; of a larger graph, those that the graph view shows."""


def _matrix(graph: ResidualGraph, values: pd.Series) -> np.ndarray:
    matrix = graph.to_matrix(values.to_numpy(dtype=float))
    matrix[~graph.mask] = np.nan
    return matrix


def _heatmap(graph: ResidualGraph, table: pd.DataFrame, panel: str) -> go.Heatmap:
    top = float(table[["base_strength", "tuned_strength"]].to_numpy().max()) ** 0.5
    largest = float(table["difference"].abs().max()) ** 0.5
    scale, low, high = {
        "base": (scale_to(BASE), 0.0, top),
        "tuned": (scale_to(TUNED), 0.0, top),
        "difference": (DIVERGING, -largest, largest),
    }[panel]
    values = _matrix(graph, table[PANELS[panel]])
    return go.Heatmap(
        z=np.sign(values) * np.sqrt(np.abs(values)),
        customdata=values,
        x=graph.readers,
        y=graph.writers,
        name=panel,
        colorscale=scale,
        zmin=low,
        zmax=high,
        showscale=False,
        hovertemplate="%{y} → %{x}<br>%{customdata:.3g}<extra></extra>",
        hoverongaps=False,
    )


def _cells(edges: pd.DataFrame, **marker: object) -> go.Scatter:
    """Marks on the cells of some edges."""
    return go.Scatter(
        x=edges["reader"],
        y=edges["writer"],
        mode="markers",
        marker={"symbol": "square", "size": 9, **marker},
        customdata=edges[["edge"]].to_numpy(),
        hoverinfo="skip",
        showlegend=False,
    )


def panels(
    table: pd.DataFrame, graph: ResidualGraph, shown: pd.DataFrame, names: Sequence[str], pick: Pick
) -> go.Figure:
    """Strength in the base and in the tuned model on one scale, and their difference around zero.

    Colours follow the square root, because strengths span orders of magnitude.
    """
    figure = make_subplots(
        1,
        len(names),
        subplot_titles=[name.capitalize() for name in names],
        horizontal_spacing=0.05,
        shared_yaxes=True,
    )
    clickable = table if len(table) <= _CLICKABLE else shown
    mine = table[table["edge"] == pick.name] if pick.name else table[:0]
    if pick.name and mine.empty:
        mine = table[(table["writer"] == pick.name) | (table["node"] == pick.name)]
    for column, panel in enumerate(names, start=1):
        figure.add_trace(_heatmap(graph, table, panel), row=1, col=column)
        figure.add_trace(_cells(clickable, color="rgba(0,0,0,0)"), row=1, col=column)
        if len(mine):
            ring = {"color": "rgba(0,0,0,0)", "line": {"color": PICKED, "width": 2}}
            figure.add_trace(_cells(mine, **ring), row=1, col=column)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=-90)
    height = min(height_of(graph.layers), max(380, 18 * len(graph.writers) + 140))
    return style(figure, height, clickmode="event+select", dragmode="pan", hovermode="closest")
