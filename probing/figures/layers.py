"""Differences of intensity by layer and kind of reader, and by layer and head."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from probing.edge_tables import Breakdown
from probing.figures.theme import DIVERGING, PICKED, between, number, style
from probing.graph import Reader, ResidualGraph
from probing.metrics import significant

Ends = tuple[Float[np.ndarray, " group"], Float[np.ndarray, " group"]]
"""Lower and upper ends of each group's seed band, in nats."""


def by_kind(breakdown: Breakdown, graph: ResidualGraph, seeds: Ends | None = None) -> go.Figure:
    """Layers from bottom to top, kinds of reader from left to right, of a breakdown by layer and kind.

    The head stands above the last layer. `seeds` has the ends of each group's seed band.
    """
    readers = {name: Reader.of(name) for name in breakdown.labels}
    cells = {name: ("head" if one.layer is None else str(one.layer), one.kind) for name, one in readers.items()}
    rows = [*map(str, range(graph.layers)), "head"]
    return _heatmap(breakdown, cells, rows, graph.kinds, seeds).update_xaxes(title="kind of reader")


def by_head(breakdown: Breakdown, graph: ResidualGraph, seeds: Ends | None = None) -> go.Figure:
    """Layers from bottom to top, heads from left to right, of a breakdown into or out of heads.

    After the heads stand the groups that share keys and values, or the biases.
    """
    records = {one.node: one for one in (*graph.writer_records, *graph.reader_records)}
    cells = {name: (str(records[name].layer), records[name].part) for name in breakdown.labels}
    parts = {records[name].part: records[name] for name in breakdown.labels}
    heads_first = sorted(parts, key=lambda part: (parts[part].head is None, len(part), part))
    return _heatmap(breakdown, cells, [*map(str, range(graph.layers))], heads_first, seeds).update_xaxes(title="head")


def _heatmap(
    breakdown: Breakdown,
    cells: Mapping[str, tuple[str, str]],
    rows: Sequence[str],
    columns: Sequence[str],
    seeds: Ends | None,
) -> go.Figure:
    """The difference of each group in its cell, (row, column); a dot where the interval excludes zero, a ring where it
    excludes the seed band.
    """
    z = np.full((len(rows), len(columns)), np.nan)
    hover = np.full(z.shape, "", dtype=object)
    sure = significant(breakdown.ci_low, breakdown.ci_high)
    low, high = (np.zeros(len(breakdown.labels)),) * 2 if seeds is None else seeds
    further = (breakdown.ci_low > high) | (breakdown.ci_high < low)
    dots, rings = [], []
    for i, name in enumerate(breakdown.labels):
        row, column = cells[name]
        place = rows.index(row), columns.index(column)
        z[place] = breakdown.difference[i]
        hover[place] = (
            f"<b>{name}</b><br>difference {number(breakdown.difference[i], signed=True)}<br>95 % interval "
            f"{between(breakdown.ci_low[i], breakdown.ci_high[i])}"
        )
        if seeds is not None:
            hover[place] += f"<br>seeds {between(low[i], high[i])}"
            if further[i]:
                rings.append((column, row))
        if sure[i]:
            dots.append((column, row))
    largest = float(np.nanmax(np.abs(z))) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=columns,
            y=rows,
            name="difference",
            colorscale=DIVERGING,
            zmin=-largest,
            zmax=largest,
            text=hover,
            hovertemplate="%{text}<extra></extra>",
            hoverongaps=False,
            colorbar={"thickness": 10, "title": "nats", "exponentformat": "power"},
        )
    )
    marks = (("beyond question noise", dots, "circle", 4), ("beyond the seed band", rings, "circle-open", 11))
    for name, places, symbol, size in marks:
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in places],
                y=[y for _, y in places],
                mode="markers",
                name=name,
                marker={"size": size, "color": PICKED, "symbol": symbol},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title="layer", showgrid=False, type="category")
    return style(figure, int(np.clip(34 * len(rows) + 110, 420, 760)))
