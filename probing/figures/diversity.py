"""How alike the questions' edge scores are."""

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.figures.theme import COLOURS, scale_to, style


def maps(base: np.ndarray, tuned: np.ndarray, ids: Sequence[str]) -> go.Figure:
    """The questions' correlations in each model, in one order and on one scale."""
    order = np.argsort(-base.sum(0), kind="stable")
    names = [escape(ids[i]) for i in order]
    low = float(np.nanmin([base, tuned]))
    figure = make_subplots(1, 2, subplot_titles=("Base", "Tuned"), horizontal_spacing=0.14, shared_yaxes=True)
    for column, (side, matrix) in enumerate((("base", base), ("tuned", tuned)), start=1):
        figure.add_trace(
            go.Heatmap(
                z=matrix[np.ix_(order, order)].round(4),
                x=names,
                y=names,
                name=side,
                colorscale=scale_to(COLOURS[side]),
                zmin=low,
                zmax=1.0,
                colorbar={"len": 0.9, "thickness": 10, "x": 0.435 if column == 1 else 1.0, "title": "r"},
                hovertemplate="%{y}, %{x}<br>r = %{z:.3f}<extra></extra>",
            ),
            row=1,
            col=column,
        )
    figure.update_xaxes(showticklabels=False, showgrid=False, title="questions")
    figure.update_yaxes(showticklabels=False, showgrid=False, autorange="reversed")
    return style(figure, 480)
