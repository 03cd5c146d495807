"""Differences of intensity by layer and kind of reader."""

import numpy as np
import plotly.graph_objects as go

from dashboard.theme import DIVERGING, PICKED, number, style
from probing.edge_tables import Breakdown
from probing.graph import ResidualGraph
from probing.metrics import significant


def heatmap(breakdown: Breakdown, graph: ResidualGraph) -> go.Figure:
    """Layers from bottom to top, kinds of reader from left to right; a dot where the interval excludes zero.

    `breakdown` is by reader. The head stands above the last layer.
    """
    names, kinds = [*map(str, range(graph.layers)), "head"], graph.kinds
    z = np.full((len(names), len(kinds)), np.nan)
    hover = np.full(z.shape, "", dtype=object)
    sure = significant(breakdown.ci_low, breakdown.ci_high)
    dots = []
    for i, reader in enumerate(graph.reader_records):
        row, column = graph.layers if reader.layer is None else reader.layer, kinds.index(reader.kind)
        z[row, column] = breakdown.difference[i]
        hover[row, column] = (
            f"<b>{reader.name}</b><br>difference {number(breakdown.difference[i], signed=True)}<br>95 % interval "
            f"{number(breakdown.ci_low[i], signed=True)} to {number(breakdown.ci_high[i], signed=True)}"
        )
        if sure[i]:
            dots.append((kinds[column], names[row]))
    largest = float(np.nanmax(np.abs(z))) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=kinds,
            y=names,
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
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in dots],
            y=[y for _, y in dots],
            mode="markers",
            name="beyond question noise",
            marker={"size": 4, "color": PICKED},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    figure.update_xaxes(title="kind of reader", showgrid=False)
    figure.update_yaxes(title="layer", showgrid=False, type="category")
    return style(figure, int(np.clip(34 * len(names) + 110, 420, 760)))
