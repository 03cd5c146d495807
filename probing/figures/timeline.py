"""Metrics and edges over the steps of a training."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.figures.strips import interval_bars
from probing.figures.theme import BASE, NEUTRAL, PICKED, TUNED, faded, number, scale_to, style
from probing.graph import typeset
from probing.metrics import (
    COMPLEXITY,
    EFFECTIVE_EDGES,
    INTENSITY,
    KURTOSIS,
    LOSS,
    Comparison,
    wilson,
)

_SHOWN = (INTENSITY, COMPLEXITY, KURTOSIS, LOSS, EFFECTIVE_EDGES)


def series(steps: pd.DataFrame, compared: dict[str, dict[str, Comparison]]) -> pd.DataFrame:
    """Rows of `step`, `metric`, `value`, `low` and `high`.

    For accuracy the interval is Wilson's; for a metric it is that of the difference to the base, hung on the base.
    """
    rows = []
    for step in steps.to_dict("records"):
        low, high = wilson(int(step["correct"]), int(step["asked"]))
        value = step["correct"] / step["asked"]
        rows.append({"step": step["step"], "metric": "accuracy", "value": value, "low": low, "high": high})
        for metric, c in compared[step["side"]].items():
            ends = {"low": c.base + c.ci_low, "high": c.base + c.ci_high}
            rows.append({"step": step["step"], "metric": metric, "value": c.tuned, **ends})
    return pd.DataFrame(rows)


def metrics(trainings: Mapping[str, pd.DataFrame], final: Mapping[str, Comparison]) -> go.Figure:
    """Accuracy and the main metrics in small panels, against the step, of one or more trainings by their titles.

    Dotted are the two models of the first one's comparison, `final`; not of the complexity, which depends on bins that
    each step shares with the base.
    """
    titles = {"accuracy": "Accuracy"} | {metric.key: metric.title for metric in _SHOWN}
    levels = {name: (c.base, c.tuned) for name, c in final.items() if name != COMPLEXITY.key}
    figure = _panels(titles, trainings, 3, levels, {})
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    return style(figure, 520, **_legend(trainings))


def edge(
    trainings: Mapping[str, pd.DataFrame],
    levels: Mapping[str, tuple[float, float]],
    bands: Mapping[str, tuple[float, float]],
) -> go.Figure:
    """An edge's strength and effect against the step, likewise; grey behind them is what other seeds do."""
    titles = {"strength": "Strength, mean |score| (nats)", "effect": "Effect, mean score (nats)"}
    figure = _panels(titles, trainings, 2, levels, bands)
    figure.update_yaxes(rangemode="tozero", col=1)
    figure.add_hline(0, line={"color": NEUTRAL, "width": 1}, row=1, col=2)
    return style(figure, 320, **_legend(trainings))


_LOOKS: tuple[dict[str, dict[str, Any]], ...] = (
    {"line": {"color": TUNED, "width": 2}, "marker": {"size": 6}},
    {"line": {"color": PICKED, "width": 2, "dash": "dash"}, "marker": {"size": 7, "symbol": "diamond"}},
)
"""How a training is drawn, and another beside it."""


def _panels(
    titles: Mapping[str, str],
    trainings: Mapping[str, pd.DataFrame],
    columns: int,
    levels: Mapping[str, tuple[float, float]],
    bands: Mapping[str, tuple[float, float]],
) -> go.Figure:
    """A panel for each quantity by its title, with a line for each training; dotted across it are base and tuned, and
    behind it lies its band."""
    rows = -(-len(titles) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[*titles.values()], horizontal_spacing=0.07, vertical_spacing=0.17
    )
    for i, name in enumerate(titles):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        for (training, table), look in zip(trainings.items(), _LOOKS, strict=False):
            own = table[table["metric"] == name].sort_values("step")
            bars = interval_bars(own["value"], own["low"], own["high"], look["line"]["color"])
            figure.add_trace(
                go.Scatter(
                    x=own["step"],
                    y=own["value"],
                    mode="lines+markers",
                    name=training,
                    legendgroup=training,
                    error_y=bars | {"width": 3, "thickness": 1.2},
                    customdata=[number(value) for value in own["value"]],
                    hovertemplate=f"{escape(training)}, step %{{x}}<br>%{{customdata}}<extra></extra>",
                    showlegend=not i,
                    **look,
                ),
                **place,
            )
        for level, colour in zip(levels.get(name, ()), (BASE, TUNED), strict=False):
            figure.add_hline(level, line={"color": colour, "dash": "dot", "width": 1}, **place)
        if name in bands:
            low, high = bands[name]
            figure.add_hrect(low, high, fillcolor=faded(NEUTRAL, 0.16), line_width=0, layer="below", **place)
            ends = go.Scatter(x=[0, 0], y=[low, high], mode="markers", opacity=0, hoverinfo="skip", showlegend=False)
            figure.add_trace(ends, **place)  # as the axis does not reach as far as a shape
        figure.update_yaxes(nticks=5, **place)
    figure.update_xaxes(title="step", row=rows)
    return figure.update_annotations(font={"size": 13})


def _legend(trainings: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Below the panels, whose titles stand where it is elsewhere; none of a single training."""
    below = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"}
    return {"showlegend": len(trainings) > 1, "legend": below, "margin": {"l": 8, "r": 8, "t": 40, "b": 60}}


def moving(tables: dict[int, pd.DataFrame], count: int) -> pd.DataFrame:
    """Ranks of the edges that are among the `count` strongest at some steps and not at others: edges by steps."""
    ranks = pd.DataFrame({step: table.set_index("edge")["tuned_rank"] for step, table in tables.items()})
    inside = ranks <= count
    some = ranks[inside.any(axis=1) & ~inside.all(axis=1)]
    # First those that are there at the start and go, then those that come, each by when that happens.
    member = some <= count
    order = (
        pd.DataFrame({"late": ~member.iloc[:, 0], "share": -member.sum(axis=1)}).sort_values(["late", "share"]).index
    )
    return some.loc[order].rename_axis(columns="step")


def membership(ranks: pd.DataFrame, count: int) -> go.Figure:
    """A cell for each edge and step: darker is stronger, blank is not among the `count` strongest."""
    z = ranks.to_numpy(dtype=float)
    figure = go.Figure(
        go.Heatmap(
            z=np.where(z <= count, -z, np.nan),
            customdata=z,
            x=[str(step) for step in ranks.columns],
            y=[typeset(edge) for edge in ranks.index],
            name="rank",
            colorscale=scale_to(PICKED),
            showscale=False,
            xgap=2,
            ygap=1,
            hovertemplate="%{y}<br>step %{x}: rank %{customdata:.0f}<extra></extra>",
            hoverongaps=False,
        )
    )
    figure.update_xaxes(title="step", type="category", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return style(figure, int(np.clip(22 * len(ranks) + 90, 200, 900)))
