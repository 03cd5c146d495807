"""What each position contributes to a score."""

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.figures.theme import COLOURS, NEUTRAL, number, style

_LABELLED = 60
"""Positions up to which each has its token below it."""


def contributions(labels: Sequence[Sequence[str]], values: Sequence[np.ndarray], prompt: int) -> go.Figure:
    """A bar for each position, base above tuned; the answers may differ, so each has its own tokens below."""
    figure = make_subplots(2, 1, subplot_titles=("Base", "Tuned"), shared_yaxes="all", vertical_spacing=0.2)
    for row, (side, tokens, bars) in enumerate(zip(("base", "tuned"), labels, values, strict=True), start=1):
        places = np.arange(len(bars))
        figure.add_trace(
            go.Bar(
                x=places,
                y=bars,
                name=side,
                marker={"color": COLOURS[side]},
                text=[escape(token) for token in tokens],
                textposition="none",
                customdata=[number(value, signed=True) for value in bars],
                hovertemplate="position %{x}: “%{text}”<br>%{customdata} nats<extra></extra>",
                showlegend=False,
            ),
            row=row,
            col=1,
        )
        figure.add_vline(prompt - 0.5, line={"color": NEUTRAL, "dash": "dash", "width": 1}, row=row, col=1)
        if len(bars) <= _LABELLED:
            figure.update_xaxes(
                tickvals=places, ticktext=[escape(t.strip()) or "␣" for t in tokens], tickangle=0, row=row, col=1
            )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title="nats", nticks=5)
    return style(figure, 400)
