"""Writers x readers heatmaps: every edge of the graph."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.theme import BASE, DIVERGING, TUNED, scale_to, style
from probing.residual_graph import ResidualGraph


def _matrix(graph: ResidualGraph, values: pd.Series) -> np.ndarray:
    matrix = graph.to_matrix(values.to_numpy(dtype=float))
    matrix[~graph.mask] = np.nan
    return matrix


def three_panels(table: pd.DataFrame, graph: ResidualGraph) -> go.Figure:
    """Strength in the base and in the tuned model on one scale, and their difference around zero.

    Colours follow the square root, because strengths span orders of magnitude.
    """
    figure = make_subplots(
        1, 3, subplot_titles=("Base", "Tuned", "Difference"), horizontal_spacing=0.05, shared_yaxes=True
    )
    top = float(table[["base_strength", "tuned_strength"]].to_numpy().max()) ** 0.5
    largest = float(table["difference"].abs().max()) ** 0.5
    panels = (
        (1, "base_strength", scale_to(BASE), 0.0, top),
        (2, "tuned_strength", scale_to(TUNED), 0.0, top),
        (3, "difference", DIVERGING, -largest, largest),
    )
    for column, name, scale, low, high in panels:
        values = _matrix(graph, table[name])
        figure.add_trace(
            go.Heatmap(
                z=np.sign(values) * np.sqrt(np.abs(values)),
                customdata=values,
                x=graph.readers,
                y=graph.writers,
                colorscale=scale,
                zmin=low,
                zmax=high,
                showscale=False,
                hovertemplate="%{y} → %{x}<br>%{customdata:.3g}<extra></extra>",
                hoverongaps=False,
            ),
            row=1,
            col=column,
        )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=-90)
    return style(figure, max(380, 18 * len(graph.writers) + 140))
