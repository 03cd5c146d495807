"""The circuit graph: layers from bottom to top, attention in the left lane, MLPs in the right one.

Edges are drawn as curves in few traces, one for each sign and width, because a browser draws few long traces faster
than many short ones. Curves cannot be clicked, so every edge has an invisible marker at its middle.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.theme import BASE, NEUTRAL, TUNED, number, style
from probing.circuits import strongest

_WIDTHS = (0.6, 1.2, 2.0, 3.2, 5.0)
"""Line widths, in pixels, for fifths of the largest strength."""

_STEPS = np.linspace(0.0, 1.0, 13)
_BENDS = {"q": 0.16, "k": 0.26, "v": 0.36, "mlp": 0.20, "logits": 0.24}
"""How far a curve bends out of its lane, so that the edges into q, k and v of a node lie apart."""


def positions(layers: int) -> dict[str, tuple[float, float]]:
    """Where each node stands: x in lanes 0 (attention), 1 (MLP) and ½ between, y upwards through the layers."""
    places = {"input": (0.5, 0.0), "logits": (0.5, 2.0 * layers + 1)}
    for layer in range(layers):
        places[f"a{layer}"] = (0.0, 2 * layer + 1.0)
        places[f"m{layer}"] = (1.0, 2 * layer + 1.8)
    return places


def _curves(edges: pd.DataFrame, places: dict[str, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Points of a quadratic curve for each edge, [edge, step] for x and for y."""
    start = np.array([places[name] for name in edges["writer"]])
    end = np.array([places[name] for name in edges["node"]])
    bend = edges["kind"].map(_BENDS).to_numpy()
    outward = np.sign((start[:, 0] + end[:, 0]) / 2 - 0.5)
    outward[outward == 0] = np.where(np.arange(len(edges)) % 2 == 0, 1, -1)[outward == 0]
    same_lane = start[:, 0] == end[:, 0]
    reach = np.where(same_lane, 0.35 + 0.5 * np.abs(end[:, 1] - start[:, 1]) / max(2.0, end[:, 1].max()), 0.35)
    control = (start + end) / 2
    control[:, 0] += outward * (bend * 1.6 + reach * same_lane)
    t = _STEPS[None, :]
    weights = ((1 - t) ** 2, 2 * t * (1 - t), t**2)
    x, y = (weights[0] * start[:, [i]] + weights[1] * control[:, [i]] + weights[2] * end[:, [i]] for i in (0, 1))
    return x, y


def _lines(x: np.ndarray, y: np.ndarray, **line: object) -> go.Scatter:
    """Many curves as one trace, with gaps between."""
    gap = np.full((len(x), 1), np.nan)
    return go.Scatter(
        x=np.hstack([x, gap]).ravel(),
        y=np.hstack([y, gap]).ravel(),
        mode="lines",
        line=line,
        hoverinfo="skip",
        showlegend=False,
    )


def _draw(figure: go.Figure, column: int, edges: pd.DataFrame, size: pd.Series, colour: pd.Series, dotted: pd.Series,
          places: dict[str, tuple[float, float]], top: float) -> None:  # fmt: skip
    """One panel: its edges in a trace for each colour, style and width, then what can be clicked."""
    if len(edges):
        x, y = _curves(edges, places)
        width = np.minimum(len(_WIDTHS) - 1, (len(_WIDTHS) * size / top).astype(int)) if top > 0 else 0 * size
        looks = zip(colour, dotted, width, strict=True)
        for c, d, w in sorted(set(looks)):
            members = np.flatnonzero((colour == c) & (dotted == d) & (width == w))
            dash = "dot" if d else "solid"
            figure.add_trace(
                _lines(x[members], y[members], color=c, width=_WIDTHS[int(w)], dash=dash), row=1, col=column
            )
        middle = len(_STEPS) // 2
        figure.add_trace(
            go.Scatter(
                x=x[:, middle],
                y=y[:, middle],
                mode="markers",
                marker={"size": 11, "color": "rgba(0,0,0,0)"},
                customdata=edges[["edge"]].to_numpy(),
                hovertext=[_hover(row) for row in edges.to_dict("records")],
                hoverinfo="text",
                showlegend=False,
            ),
            row=1,
            col=column,
        )
    names = list(places)
    figure.add_trace(
        go.Scatter(
            x=[places[name][0] for name in names],
            y=[places[name][1] for name in names],
            mode="markers+text",
            text=names,
            textposition="middle center",
            textfont={"size": 10, "color": "#ffffff"},
            marker={"size": [44 if len(n) > 3 else 26 for n in names], "color": "#53606d", "opacity": 1},
            customdata=np.array(names)[:, None],
            hovertext=names,
            hoverinfo="text",
            showlegend=False,
        ),
        row=1,
        col=column,
    )


def _hover(row: dict) -> str:
    noise = "beyond noise" if row["beyond_noise"] else "within noise"
    return (
        f"<b>{row['edge']}</b><br>base {number(row['base_strength'])} (rank {row['base_rank']})"
        f"<br>tuned {number(row['tuned_strength'])} (rank {row['tuned_rank']})"
        f"<br>difference {number(row['difference'], signed=True)}, {noise}"
    ).replace("->", "→")


def shown_edges(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The edges that any of the three panels shows."""
    panels = ("base_strength", "tuned_strength", "difference")
    return pd.concat([strongest(table, column, n) for column in panels]).drop_duplicates("edge")


def three_panels(table: pd.DataFrame, layers: int, n: int) -> go.Figure:
    """Base, tuned and difference: the `n` strongest edges of each, in the same places and on the same scale."""
    places = positions(layers)
    figure = make_subplots(
        1,
        3,
        subplot_titles=("Base", "Tuned", "Difference"),
        horizontal_spacing=0.03,
        shared_xaxes=True,
        shared_yaxes=True,
    )
    top = float(table[["base_strength", "tuned_strength"]].to_numpy().max())
    for column, side, colour in ((1, "base", BASE), (2, "tuned", TUNED)):
        edges = strongest(table, f"{side}_strength", n)
        colours = pd.Series(colour, index=edges.index)
        _draw(figure, column, edges, edges[f"{side}_strength"], colours, edges[f"{side}_effect"] < 0, places, top)
    edges = strongest(table, "difference", n)
    towards = edges["difference"].map(lambda d: TUNED if d > 0 else BASE).where(edges["beyond_noise"], NEUTRAL)
    largest = float(table["difference"].abs().max())
    _draw(figure, 3, edges, edges["difference"].abs(), towards, ~edges["beyond_noise"], places, largest)
    figure.update_xaxes(visible=False, range=[-0.75, 1.75], fixedrange=False)
    figure.update_yaxes(visible=False, range=[-0.8, 2 * layers + 1.8])
    return style(figure, max(520, 80 * layers + 120), clickmode="event+select", dragmode="pan", hovermode="closest")
