"""Figures in which every question is a dot."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.theme import BASE, COLOURS, FAINT, NEUTRAL, TUNED, style
from dashboard.words import TERMS
from probing.circuits import Breakdown


def _jitter(count: int, width: float) -> np.ndarray:
    """The same small offsets every time."""
    return np.random.default_rng(0).uniform(-width, width, count)


def paired(questions: pd.DataFrame, metric: str) -> go.Figure:
    """Each question's base and tuned value, joined by a line."""
    offsets = _jitter(len(questions), 0.07)
    gap = np.full(len(questions), np.nan)
    values = {side: questions[f"{metric}_{side}"].to_numpy() for side in ("base", "tuned")}
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=np.column_stack([offsets, 1 + offsets, gap]).ravel(),
            y=np.column_stack([values["base"], values["tuned"], gap]).ravel(),
            mode="lines",
            line={"color": FAINT, "width": 1},
            hoverinfo="skip",
        )
    )
    for place, side in enumerate(("base", "tuned")):
        figure.add_trace(
            go.Scatter(
                x=place + offsets,
                y=values[side],
                mode="markers",
                marker={"color": COLOURS[side], "size": 5, "opacity": 0.75},
                text=questions["question_id"],
                hovertemplate="%{text}<br>%{y:.3g}<extra></extra>",
            )
        )
    figure.update_xaxes(tickvals=[0, 1], ticktext=["base", "tuned"], range=[-0.35, 1.35], showgrid=False)
    figure.update_yaxes(rangemode="tozero", nticks=5)
    return style(figure, 300, showlegend=False, title={"text": TERMS[metric].name, "font": {"size": 14}})


def differences(breakdown: Breakdown, title: str) -> go.Figure:
    """Each group's differences, a dot a question, with the mean and its interval."""
    figure = go.Figure()
    differences = breakdown.tuned - breakdown.base
    places = np.arange(len(breakdown.labels))
    figure.add_hline(0, line={"color": NEUTRAL, "width": 1})
    figure.add_trace(
        go.Scatter(
            x=np.repeat(places, differences.shape[1]) + np.tile(_jitter(differences.shape[1], 0.28), len(places)),
            y=differences.ravel(),
            mode="markers",
            marker={"color": FAINT, "size": 4},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    figure.add_trace(
        go.Scatter(
            x=places,
            y=breakdown.difference,
            mode="markers",
            marker={"size": 9, "color": [TUNED if d > 0 else BASE for d in breakdown.difference]},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": breakdown.ci_high - breakdown.difference,
                "arrayminus": breakdown.difference - breakdown.ci_low,
                "color": NEUTRAL,
                "thickness": 1.6,
                "width": 5,
            },
            text=breakdown.labels,
            hovertemplate="%{text}<br>%{y:.3g}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(tickvals=places, ticktext=breakdown.labels, title=title, showgrid=False)
    figure.update_yaxes(title="tuned − base, mean |score| (nats)")
    return style(figure, 380)


def intensity_against_loss(questions: pd.DataFrame) -> go.Figure:
    """Each question's intensity against its loss, on logarithmic axes."""
    figure = go.Figure()
    for side in ("base", "tuned"):
        figure.add_trace(
            go.Scatter(
                x=questions[f"loss_{side}"],
                y=questions[f"activation_intensity_{side}"],
                mode="markers",
                name=side,
                marker={"color": COLOURS[side], "size": 7, "opacity": 0.7},
                text=questions["question_id"],
                hovertemplate="%{text}<br>loss %{x:.3g}<br>intensity %{y:.3g}<extra></extra>",
            )
        )
    figure.update_xaxes(title="loss (nats per token)", type="log", dtick=1)
    figure.update_yaxes(title="intensity (nats)", type="log", dtick=1)
    return style(figure, 420)
