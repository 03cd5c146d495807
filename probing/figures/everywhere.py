"""The same few numbers of many models, with their intervals, one below the other."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.figures.strips import interval_bars
from probing.figures.theme import COLOURS, NEUTRAL, faded, style

_ROW = 17
"""Pixels of a row."""

_APART = {"base": -0.17, "tuned": 0.17}
"""Of a row, where each model's numbers stand in it."""


def plot(rows: pd.DataFrame, columns: Mapping[str, str], bands: Mapping[str, tuple[float, float]]) -> go.Figure:
    """A panel for each of some columns, by their titles; in it each row's value, of which the ends of the interval are
    in `COLUMN_low` and `COLUMN_high`.

    Rows that have the same `group` and `label` share a line, base above tuned (`side`); groups have headings. A band
    is drawn behind all lines, from one value to another.
    """
    titles = [*columns.values()]
    figure = make_subplots(1, len(columns), shared_yaxes=True, horizontal_spacing=0.025, subplot_titles=titles)
    place, names = _lines(rows)
    at = np.array([place[key] for key in zip(rows["group"], rows["label"], strict=True)])
    for column, name in enumerate(columns, start=1):
        where = {"row": 1, "col": column}
        for side, colour in COLOURS.items():
            mine = ((rows["side"] == side) & rows[name].notna()).to_numpy()
            some = rows[mine]
            figure.add_trace(
                go.Scatter(
                    x=some[name],
                    y=at[mine] + _APART[side],
                    mode="markers",
                    name=side,
                    showlegend=column == 1,
                    legendgroup=side,
                    marker={"color": colour, "size": 6},
                    error_x=interval_bars(some[name], some[f"{name}_low"], some[f"{name}_high"], colour) | {"width": 0},
                    text=some["group"] + ", " + some["label"],
                    hovertemplate=f"%{{text}}, {side}<br>%{{x:.3g}}<extra></extra>",
                ),
                **where,
            )
        if name in bands:
            low, high = bands[name]
            figure.add_vrect(low, high, fillcolor=faded(NEUTRAL, 0.16), line_width=0, layer="below", **where)
        figure.add_vline(0, line={"color": NEUTRAL, "width": 1}, layer="below", **where)
    figure.update_yaxes(range=[len(names) - 0.4, -0.6], tickvals=[*range(len(names))], ticktext=names, showgrid=False)
    figure.update_xaxes(nticks=5)
    legend = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"}
    return style(figure, 120 + _ROW * len(names), hovermode="closest", legend=legend)


def _lines(rows: pd.DataFrame) -> tuple[dict[tuple[str, str], int], list[str]]:
    """The line of each group and label, and what stands beside every line."""
    place: dict[tuple[str, str], int] = {}
    names: list[str] = []
    last = None
    for group, label in zip(rows["group"], rows["label"], strict=True):
        if (group, label) in place:
            continue
        if group != last:
            names.append(f"<b>{group}</b>")
            last = group
        place[group, label] = len(names)
        names.append(label)
    return place, names
