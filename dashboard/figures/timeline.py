"""Metrics and edges over the steps of a training."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.figures.strips import interval_bars
from dashboard.theme import BASE, PICKED, TUNED, scale_to, style
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


def metrics(table: pd.DataFrame, final: dict[str, Comparison]) -> go.Figure:
    """Accuracy and the main metrics in small panels, against the step."""
    names = ("accuracy", *(metric.key for metric in _SHOWN))
    titles = ["Accuracy", *(metric.title for metric in _SHOWN)]
    figure = make_subplots(2, 3, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.17)
    levels: list[dict[str, Any]] = []
    for i, name in enumerate(names):
        place = {"row": i // 3 + 1, "col": i % 3 + 1}
        rows = table[table["metric"] == name].sort_values("step")
        bars = interval_bars(rows["value"], rows["low"], rows["high"], TUNED)
        figure.add_trace(
            go.Scatter(
                x=rows["step"],
                y=rows["value"],
                mode="lines+markers",
                name=name,
                line={"color": TUNED, "width": 2},
                marker={"size": 6},
                error_y=bars | {"width": 3, "thickness": 1.2},
                hovertemplate="step %{x}<br>%{y:.3g}<extra></extra>",
                showlegend=False,
            ),
            **place,
        )
        if name in final:
            levels += [_level(i, final[name].base, BASE), _level(i, final[name].tuned, TUNED)]
        figure.update_yaxes(rangemode="tozero", nticks=5, **place)
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    figure.update_xaxes(title="step", row=2)
    figure.update_annotations(font={"size": 13})
    return style(figure, 520, shapes=levels)


def _level(panel: int, value: float, colour: str) -> dict[str, Any]:
    """A dotted line across a panel."""
    axis = str(panel + 1) if panel else ""
    across = {"type": "line", "xref": f"x{axis} domain", "x0": 0, "x1": 1, "yref": f"y{axis}", "y0": value, "y1": value}
    return across | {"line": {"color": colour, "dash": "dot", "width": 1}}


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
