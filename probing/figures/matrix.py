"""Writers x readers heatmaps: every edge of the graph."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.edge_tables import strongest_of_both
from probing.figures.cells import Axes
from probing.figures.panels import PANELS
from probing.figures.places import height_of
from probing.figures.theme import BASE, DIVERGING, PICKED, TUNED, number, scale_to, style
from probing.figures.wiring import Pick, hover
from probing.graph import Edge, ResidualGraph, edge_name, is_edge, typeset

_CLICKABLE = 1000
"""Cells of a panel up to which each can be clicked."""

_OF_MANY = 300
"""How many of a larger graph's cells can be clicked, the strongest: marks cost a browser time."""


_LABELLED = 75
"""Columns of all panels together up to which each has its name beneath it; of more, a cell's hover says it."""

_LINE = 11
"""Pixels of a row, at least, where each has its name beside it."""

_BARS = 62
"""Pixels beneath the columns' names for what colours mean."""


def _heatmap(axes: Axes, found: pd.DataFrame, panel: str, hovers: bool) -> go.Heatmap:
    top = float(found[["base_strength", "tuned_strength"]].to_numpy().max()) ** 0.5
    largest = float(found["difference"].abs().max()) ** 0.5
    scale, low, high = {
        "base": (scale_to(BASE), 0.0, top),
        "tuned": (scale_to(TUNED), 0.0, top),
        "difference": (DIVERGING, -largest, largest),
    }[panel]
    values = np.full((len(axes.rows), len(axes.columns)), np.nan)
    values[found["row"], found["column"]] = found[PANELS[panel]]
    return go.Heatmap(
        z=np.sign(values) * np.sqrt(np.abs(values)),
        customdata=values,
        x=axes.columns,
        y=axes.rows,
        name=panel,
        colorscale=scale,
        zmin=low,
        zmax=high,
        hovertemplate="%{y} → %{x}<br>%{customdata:.3g}<extra></extra>" if hovers else None,
        hoverinfo=None if hovers else "skip",
        hoverongaps=False,
    )


def _meaning(heat: go.Heatmap, domain: Sequence[float], below: float, several: bool) -> dict:
    """What the colours of a panel mean, as a bar beneath it, `below` the axis as a share of its height."""
    top = float(heat.zmax) ** 2
    ends = (-top, -top / 4, 0.0, top / 4, top) if heat.zmin < 0 else (0.0, top / 4, top)
    title = "difference" if heat.zmin < 0 else "strength"
    return {
        "orientation": "h",
        "x": sum(domain) / 2,
        "xanchor": "center",
        "len": 0.9 * (domain[1] - domain[0]),
        "y": -below,
        "yanchor": "top",
        "thickness": 8,
        "outlinewidth": 0,
        "tickvals": [np.sign(end) * abs(end) ** 0.5 for end in ends],
        "ticktext": [number(end, signed=heat.zmin < 0) for end in ends],
        "tickfont": {"size": 9},
        "title": {
            "text": f"{title}, on a scale of its own" if several and heat.zmin < 0 else title,
            "side": "bottom",
            "font": {"size": 10},
        },
    }


def is_labelled(graph: ResidualGraph, unfolded: Collection[str], names: Sequence[str]) -> bool:
    """Whether every column of the panels has its name beneath it."""
    return len(Axes.of(graph, unfolded).columns) * len(names) <= _LABELLED


def _marks(axes: Axes, found: pd.DataFrame) -> go.Scatter:
    """Invisible marks on some cells, to click."""
    return go.Scatter(
        x=[axes.columns[column] for column in found["column"]],
        y=[axes.rows[row] for row in found["row"]],
        mode="markers",
        marker={"symbol": "square", "size": 9, "color": "rgba(0,0,0,0)"},
        customdata=found[["edge"]].to_numpy(),
        hovertext=[_hover(axes, cell) for cell in found.to_dict("records")],
        hoverinfo="text",
        showlegend=False,
    )


def _hover(axes: Axes, cell: dict) -> str:
    """A cell's edge, or how many it has and their sums."""
    if cell["edges"] == 1:
        return hover(cell)
    return (
        f"<b>{typeset(edge_name(axes.rows[cell['row']], axes.columns[cell['column']]))}</b>, {cell['edges']} edges"
        f"<br>base {number(cell['base_strength'])}, tuned {number(cell['tuned_strength'])}"
        f"<br>difference {number(cell['difference'], signed=True)}<br>strongest: {typeset(cell['edge'])}"
    )


def _outlines(graph: ResidualGraph, axes: Axes, name: str) -> Iterator[tuple[float, float, float, float]]:
    """Boxes (x0, x1, y0, y1) around an edge's cell, or around what a node reads and writes."""
    if is_edge(name):
        edge = Edge.of(name)
        x = axes.column_of[graph.readers.index(edge.reader.name)]
        y = axes.row_of[graph.writers.index(edge.writer.name)]
        yield x - 0.5, x + 0.5, y - 0.5, y + 0.5
        return
    parts = graph.parts(name)
    reads = [place for place, reader in enumerate(graph.reader_records) if reader.node in parts]
    for first, last in _runs(axes.column_of[reads]):
        yield first - 0.5, last + 0.5, -0.5, axes.row_of[graph.writers_before[reads].max() - 1] + 0.5
    writes = [place for place, writer in enumerate(graph.writer_records) if writer.node in parts]
    for first, last in _runs(axes.row_of[writes]):
        read_from = axes.column_of[graph.first_readers[writes].min()]
        yield read_from - 0.5, len(axes.columns) - 0.5, first - 0.5, last + 0.5


def _runs(places: np.ndarray) -> list[tuple[int, int]]:
    """The first and last of each run of neighbours."""
    different = np.unique(places)
    runs = np.split(different, np.flatnonzero(np.diff(different) > 1) + 1)
    return [(int(run[0]), int(run[-1])) for run in runs if len(run)]


def panels(
    found: pd.DataFrame, graph: ResidualGraph, unfolded: Collection[str], names: Sequence[str], pick: Pick
) -> go.Figure:
    """Of some `cells`, strength in the base and in the tuned model on one scale, and their difference around zero.

    Colours follow the square root, because strengths span orders of magnitude.
    """
    axes = Axes.of(graph, unfolded)
    figure = make_subplots(
        1,
        len(names),
        subplot_titles=[name.capitalize() for name in names],
        horizontal_spacing=0.05,
        shared_yaxes=True,
    )
    clickable = strongest_of_both(found, _OF_MANY) if len(found) > _CLICKABLE else found
    for column, panel in enumerate(names, start=1):
        figure.add_trace(_heatmap(axes, found, panel, clickable is not found), row=1, col=column)
        figure.add_trace(_marks(axes, clickable), row=1, col=column)
        for x0, x1, y0, y1 in _outlines(graph, axes, pick.name) if pick.name else ():
            line = {"color": PICKED, "width": 2}
            figure.add_shape(type="rect", x0=x0, x1=x1, y0=y0, y1=y1, line=line, row=1, col=column)
    height = min(height_of(graph.layers), max(380, 18 * len(axes.rows) + 140))
    figure.update_yaxes(autorange="reversed", showgrid=False, title=None)
    figure.update_xaxes(showgrid=False, tickangle=-90)
    if is_labelled(graph, unfolded, names):
        figure.update_xaxes(dtick=1, tickfont={"size": 9})
    if len(axes.rows) * _LINE <= height - 120:
        figure.update_yaxes(dtick=1, tickfont={"size": 9})
    style(figure, height + _BARS, clickmode="event+select", dragmode="pan", hovermode="closest")
    names_below = 8 + 6 * max(map(len, axes.columns))
    bottom = figure.layout.margin.b + names_below + _BARS
    figure.update_layout(margin={"b": bottom})
    inside = figure.layout.height - figure.layout.margin.t - bottom
    for column, heat in enumerate(figure.select_traces({"type": "heatmap"}), start=1):
        domain = figure.layout[f"xaxis{column if column > 1 else ''}"].domain
        heat.colorbar = _meaning(heat, domain, names_below / inside, len(names) > 1)
    return figure
