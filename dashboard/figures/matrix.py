"""Writers x readers heatmaps: every edge of the graph."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.figures.wiring import Pick, height_of, hover
from dashboard.panels import PANELS
from dashboard.theme import BASE, DIVERGING, PICKED, TUNED, scale_to, style
from probing.graph import Edge, ResidualGraph, is_edge

_CLICKABLE = 1000
"""Cells of a panel up to which each can be clicked."""

_OF_MANY = 300
"""How many of a larger graph's cells can be clicked, the strongest: marks cost a browser time."""


def _matrix(graph: ResidualGraph, values: pd.Series) -> np.ndarray:
    matrix = graph.to_matrix(values.to_numpy(dtype=float))
    matrix[~graph.mask] = np.nan
    return matrix


def _heatmap(graph: ResidualGraph, table: pd.DataFrame, panel: str, hovers: bool) -> go.Heatmap:
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
        hovertemplate="%{y} → %{x}<br>%{customdata:.3g}<extra></extra>" if hovers else None,
        hoverinfo=None if hovers else "skip",
        hoverongaps=False,
    )


def _cells(edges: pd.DataFrame) -> go.Scatter:
    """Invisible marks on the cells of some edges, to click."""
    return go.Scatter(
        x=edges["reader"],
        y=edges["writer"],
        mode="markers",
        marker={"symbol": "square", "size": 9, "color": "rgba(0,0,0,0)"},
        customdata=edges[["edge"]].to_numpy(),
        hovertext=[hover(row) for row in edges.to_dict("records")],
        hoverinfo="text",
        showlegend=False,
    )


def _outlines(graph: ResidualGraph, name: str) -> list[tuple[float, float, float, float]]:
    """Boxes (x0, x1, y0, y1) around an edge's cell, or around what a node reads and writes."""
    if is_edge(name):
        edge = Edge.of(name)
        x, y = graph.readers.index(edge.reader.name), graph.writers.index(edge.writer.name)
        return [(x - 0.5, x + 0.5, y - 0.5, y + 0.5)]
    boxes = []
    reads = [i for i, reader in enumerate(graph.reader_records) if name in (reader.block, reader.node)]
    if reads:
        boxes.append((reads[0] - 0.5, reads[-1] + 0.5, -0.5, int(graph.writers_before[reads].max()) - 0.5))
    if name in graph.writers:
        y = graph.writers.index(name)
        first = int(graph.first_readers[y])
        boxes.append((first - 0.5, len(graph.readers) - 0.5, y - 0.5, y + 0.5))
    return boxes


def panels(table: pd.DataFrame, graph: ResidualGraph, names: Sequence[str], pick: Pick) -> go.Figure:
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
    clickable = table
    if len(table) > _CLICKABLE:
        strength = table[["base_strength", "tuned_strength"]].max(axis=1)
        clickable = table.loc[strength.nlargest(_OF_MANY).index]
    for column, panel in enumerate(names, start=1):
        figure.add_trace(_heatmap(graph, table, panel, clickable is not table), row=1, col=column)
        figure.add_trace(_cells(clickable), row=1, col=column)
        for x0, x1, y0, y1 in _outlines(graph, pick.name) if pick.name else ():
            line = {"color": PICKED, "width": 2}
            figure.add_shape(type="rect", x0=x0, x1=x1, y0=y0, y1=y1, line=line, row=1, col=column)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=-90)
    height = min(height_of(graph.layers), max(380, 18 * len(graph.writers) + 140))
    return style(figure, height, clickmode="event+select", dragmode="pan", hovermode="closest")
