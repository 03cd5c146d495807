"""How unequally strength is spread: cumulative and Lorenz curves, and complexity against the number of bins."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probing.figures.strips import both_against
from probing.figures.theme import COLOURS, NEUTRAL, style
from probing.metrics import Comparison
from probing.scores import Scores

_POINTS = 400
"""Points of a curve; more cannot be seen."""


def _curve(x: np.ndarray, y: np.ndarray, side: str, hover: str) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=side,
        line={"color": COLOURS[side], "width": 2},
        hovertemplate=hover + "<extra></extra>",
    )


def cumulative(base: Scores, tuned: Scores) -> go.Figure:
    """The share of edge scores, over questions and edges, that are at most so large."""
    figure = go.Figure()
    shares = np.linspace(0.001, 1.0, _POINTS)
    for side, scores in (("base", base), ("tuned", tuned)):
        size = np.abs(scores.edges).ravel()
        at_most = np.quantile(size, shares, overwrite_input=True)
        figure.add_trace(_curve(at_most, shares, side, "%{y:.1%} are at most %{x:.3g}"))
    figure.update_xaxes(title="|score| (nats)", type="log", dtick=1)
    figure.update_yaxes(title="share of scores", tickformat=".0%", range=[0, 1.02])
    return style(figure, 380)


def lorenz(edges: pd.DataFrame) -> go.Figure:
    """The share of all strength that the strongest share of edges holds."""
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[0, 1], y=[0, 1], mode="lines", name="all equal", line={"color": NEUTRAL, "dash": "dot", "width": 1}
        )
    )
    for side in ("base", "tuned"):
        strength = np.sort(edges[f"{side}_strength"].to_numpy())[::-1]
        held = np.concatenate([[0.0], strength.cumsum() / max(strength.sum(), 1e-300)])
        share = np.linspace(0, 1, len(held))
        keep = np.unique(np.linspace(0, len(held) - 1, _POINTS).astype(int))
        figure.add_trace(_curve(share[keep], held[keep], side, "the strongest %{x:.1%} hold %{y:.1%}"))
    figure.update_xaxes(title="share of edges, the strongest first", tickformat=".0%")
    figure.update_yaxes(title="share of all strength", tickformat=".0%", range=[0, 1.02])
    return style(figure, 380)


def complexity(by_bins: dict[int, Comparison]) -> go.Figure:
    """Information complexity of both models against the number of bins."""
    rows = pd.DataFrame([{"bins": bins, **vars(c)} for bins, c in by_bins.items()])
    figure = both_against(rows, "bins", "%{x} bins")
    figure.update_xaxes(title="bins", type="log", tickvals=rows["bins"], ticktext=rows["bins"])
    figure.update_yaxes(title="information complexity (nats)", rangemode="tozero")
    return style(figure, 420)
