"""Figures in which every question is a dot."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probing.edge_tables import Breakdown
from probing.figures.theme import BASE, COLOURS, FAINT, NEUTRAL, TUNED, style
from probing.graph import typeset
from probing.metrics import INTENSITY, LOSS, METRICS, with_unit


def _jitter(count: int, width: float) -> np.ndarray:
    """The same small offsets every time."""
    return np.random.default_rng(0).uniform(-width, width, count)


def paired(questions: pd.DataFrame, metric: str, height: int = 300) -> go.Figure:
    """Each question's base and tuned value of a metric, joined by a line."""
    base, tuned = (questions[f"{metric}_{side}"].to_numpy() for side in ("base", "tuned"))
    figure = pairs(base, tuned, questions["question_id"], METRICS[metric].unit, height)
    return figure.update_yaxes(rangemode="tozero")


def pairs(base: np.ndarray, tuned: np.ndarray, names: Sequence[str], title: str, height: int) -> go.Figure:
    """Two values of every question, joined by a line."""
    offsets = _jitter(len(base), 0.07)
    gap = np.full(len(base), np.nan)
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=np.column_stack([offsets, 1 + offsets, gap]).ravel(),
            y=np.column_stack([base, tuned, gap]).ravel(),
            mode="lines",
            line={"color": FAINT, "width": 1},
            hoverinfo="skip",
        )
    )
    for place, (side, values) in enumerate((("base", base), ("tuned", tuned))):
        figure.add_trace(
            go.Scatter(
                x=place + offsets,
                y=values,
                mode="markers",
                name=side,
                marker={"color": COLOURS[side], "size": 5, "opacity": 0.75},
                text=[escape(name) for name in names],
                hovertemplate="%{text}<br>%{y:.3g}<extra></extra>",
            )
        )
    figure.update_xaxes(tickvals=[0, 1], ticktext=["base", "tuned"], range=[-0.35, 1.35], showgrid=False)
    figure.update_yaxes(nticks=5, title=title)
    return style(figure, height, showlegend=False, margin={"l": 8, "r": 8, "t": 8, "b": 8})


_DOTS = 1500
"""Dots up to which each question has its own; more make a browser slow, and are drawn as boxes."""


def differences(breakdown: Breakdown, title: str, seeds: tuple[np.ndarray, np.ndarray] | None = None) -> go.Figure:
    """Each group's differences, a dot a question (or a box of their quartiles), with the mean and its interval, and
    between the ends of `seeds` a bar of what other seeds do."""
    figure = go.Figure()
    differences = breakdown.tuned - breakdown.base
    places = np.arange(len(breakdown.labels))
    figure.add_hline(0, line={"color": NEUTRAL, "width": 1})
    if seeds is not None:
        low, high = seeds
        bar = go.Bar(x=places, base=low, y=high - low, width=0.8, marker={"color": FAINT, "line": {"width": 0}})
        figure.add_trace(bar.update(name="seeds", hoverinfo="skip", showlegend=False))
    if differences.size <= _DOTS:
        each = go.Scatter(
            x=np.repeat(places, differences.shape[1]) + np.tile(_jitter(differences.shape[1], 0.28), len(places)),
            y=differences.ravel(),
            mode="markers",
            marker={"color": FAINT, "size": 4},
        )
    else:
        quartiles = np.quantile(differences, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
        ends = dict(zip(("lowerfence", "q1", "median", "q3", "upperfence"), quartiles, strict=True))
        each = go.Box(x=places, **ends, line={"color": NEUTRAL, "width": 1}, fillcolor=FAINT)
    figure.add_trace(each.update(name="questions", hoverinfo="skip", showlegend=False))
    figure.add_trace(
        go.Scatter(
            x=places,
            y=breakdown.difference,
            mode="markers",
            marker={"size": 9, "color": [TUNED if d > 0 else BASE for d in breakdown.difference]},
            error_y=interval_bars(breakdown.difference, breakdown.ci_low, breakdown.ci_high, NEUTRAL),
            text=breakdown.labels,
            hovertemplate="%{text}<br>%{y:.3g}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(tickvals=places, ticktext=breakdown.labels, title=title, showgrid=False)
    figure.update_yaxes(title="tuned − base, mean |score| (nats)")
    return style(figure, 380)


_MOVER = 30
"""Pixels of a mover's row."""


def movers(differences: np.ndarray, rows: pd.DataFrame, questions: Sequence[str]) -> go.Figure:
    """How the strength of some edges changed on each question, [question, edge]: a row for each edge, a dot for each
    question, and the mean with its interval. `rows` are those of an edge table, with `mirror`."""
    figure = go.Figure()
    figure.add_vline(0, line={"color": NEUTRAL, "width": 1})
    places = np.arange(len(rows))
    size = np.abs(differences)
    dots = go.Scatter(
        x=differences.T.ravel(),
        y=(places[:, None] + _jitter(len(questions), 0.3)[None, :]).ravel(),
        mode="markers",
        name="questions",
        marker={
            "size": 5,
            "color": np.where(differences.T.ravel() > 0, TUNED, BASE),
            "opacity": 0.35 if size.size <= _DOTS else 0.2,
        },
        text=[escape(name) for _ in places for name in questions],
        hovertemplate="%{text}<br>%{x:.3g}<extra></extra>",
    )
    means = go.Scatter(
        x=rows["difference"],
        y=places,
        mode="markers",
        name="mean",
        marker={"symbol": "diamond", "size": 9, "color": NEUTRAL, "line": {"color": "#ffffff", "width": 1}},
        error_x=interval_bars(rows["difference"], rows["ci_low"], rows["ci_high"], NEUTRAL),
        hovertemplate="mean %{x:.3g}<extra></extra>",
    )
    figure.add_traces([dots, means])
    names = [
        typeset(e) + (f"<br>and {typeset(m)}" if m else "") for e, m in zip(rows["edge"], rows["mirror"], strict=True)
    ]
    figure.update_yaxes(tickvals=places, ticktext=names, range=[len(rows) - 0.4, -0.6], showgrid=False)
    figure.update_xaxes(title="tuned − base, |score| of each question (nats)")
    return style(figure, _MOVER * len(rows) + 90, showlegend=False, hovermode="closest")


def intensity_against_loss(questions: pd.DataFrame) -> go.Figure:
    """Each question's intensity against its loss, on logarithmic axes."""
    figure = go.Figure()
    for side in ("base", "tuned"):
        figure.add_trace(
            go.Scatter(
                x=questions[f"{LOSS.key}_{side}"],
                y=questions[f"{INTENSITY.key}_{side}"],
                mode="markers",
                name=side,
                marker={"color": COLOURS[side], "size": 7, "opacity": 0.7},
                text=[escape(name) for name in questions["question_id"]],
                hovertemplate="%{text}<br>loss %{x:.3g}<br>intensity %{y:.3g}<extra></extra>",
            )
        )
    figure.update_xaxes(title=with_unit(LOSS.label, LOSS.full_unit), type="log", dtick=1)
    figure.update_yaxes(title="intensity (nats)", type="log", dtick=1)
    return style(figure, 420)


def over_cuts(cuts: pd.DataFrame, metric: str) -> go.Figure:
    """A metric of both models at every cut: columns `cut` (words), `tokens`, `base`, `tuned`, `ci_low`, `ci_high`."""
    figure = both_against(cuts, "tokens", "%{text}").update_traces(text=cuts["cut"])
    words = [escape(cut).replace(": ", ":<br>") for cut in cuts["cut"]]
    figure.update_xaxes(title="cut", tickvals=cuts["tokens"], ticktext=words, rangemode="tozero")
    figure.update_yaxes(title=with_unit(METRICS[metric].label, METRICS[metric].unit), rangemode="tozero")
    return style(figure, 380)


def both_against(rows: pd.DataFrame, x: str, hover: str) -> go.Figure:
    """Columns `base` and `tuned` against column `x`; the bars are the interval of the difference, hung on the base."""
    figure = go.Figure()
    ends = interval_bars(rows["tuned"], rows["base"] + rows["ci_low"], rows["base"] + rows["ci_high"], TUNED)
    for side, bars in (("base", None), ("tuned", ends)):
        figure.add_trace(
            go.Scatter(
                x=rows[x],
                y=rows[side],
                mode="lines+markers",
                name=side,
                line={"color": COLOURS[side], "width": 2},
                marker={"size": 8},
                error_y=bars,
                hovertemplate=f"{hover}<br>%{{y:.3g}}<extra></extra>",
            )
        )
    return figure


def interval_bars(middle: Any, low: Any, high: Any, colour: str) -> dict[str, Any]:
    """Plotly's error bars from `low` to `high` around `middle`."""
    return {
        "type": "data",
        "symmetric": False,
        "array": high - middle,
        "arrayminus": middle - low,
        "color": colour,
        "thickness": 1.6,
        "width": 5,
    }
