"""Changes of several pairs by several definitions, one below the other, with intervals and the seed band."""

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probing.figures.strips import interval_bars
from probing.figures.theme import BASE, FAINT, NEUTRAL, TUNED, style

_ROW = 25
"""Pixels of each row."""

_LEAST = 150
"""Pixels below which the axis and its title would not fit."""


def changes(rows: pd.DataFrame, title: str) -> go.Figure:
    """A metric's relative change, in percent: a row for each definition, below its pair's name where there are several.

    Columns `pair`, `definition`, `relative` with `relative_low` and `relative_high`, `seeds_low` and `seeds_high` (NaN
    where there is no band), `exact` and `estimated`.
    """
    several = rows["pair"].nunique() > 1
    ticks: list[str] = []
    places = []
    for pair, group in rows.groupby("pair", sort=False):
        if several:
            ticks.append(f"<b>{escape(str(pair))}</b>")
        for definition in group["definition"]:
            places.append(len(ticks))
            ticks.append(escape(definition))
    shown = rows.assign(place=places)
    figure = go.Figure()
    figure.add_vline(0, line={"color": NEUTRAL, "width": 1})
    bands = shown.dropna(subset=["seeds_low", "seeds_high"])
    gap = np.full(len(bands), np.nan)
    figure.add_trace(
        go.Scatter(
            x=100 * np.column_stack([bands["seeds_low"], bands["seeds_high"], gap]).ravel(),
            y=np.column_stack([bands["place"], bands["place"], gap]).ravel(),
            mode="lines",
            name="seeds",
            line={"color": FAINT, "width": 13},
            hoverinfo="skip",
        )
    )
    known = shown.dropna(subset=["relative"])
    middle = 100 * known["relative"]
    # An end that is infinite is none.
    low, high = ((100 * known[end]).where(np.isfinite(known[end]), middle) for end in ("relative_low", "relative_high"))
    colours = np.where(known["relative_low"] > 0, TUNED, np.where(known["relative_high"] < 0, BASE, NEUTRAL))
    kinds = zip(known["exact"], known["estimated"], strict=True)
    figure.add_trace(
        go.Scatter(
            x=middle,
            y=known["place"],
            mode="markers",
            name="change",
            marker={
                "color": colours,
                "size": 9,
                "symbol": [("diamond-open" if part else "diamond") if real else "circle" for real, part in kinds],
            },
            error_x=interval_bars(middle, low, high, NEUTRAL),
            text=[_hover(row) for row in known.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title=f"{title}, change in %", ticksuffix=" %", nticks=6)
    figure.update_yaxes(
        tickvals=list(range(len(ticks))), ticktext=ticks, range=[len(ticks) - 0.5, -0.5], showgrid=False
    )
    return style(figure, max(_LEAST, _ROW * len(ticks) + 70), showlegend=False, margin={"l": 8, "r": 8, "t": 8, "b": 8})


def _hover(row: dict) -> str:
    ends = f"{100 * row['relative_low']:+.1f} to {100 * row['relative_high']:+.1f} %"
    ends = ends if np.isfinite(row["relative_low"]) else "no interval"
    seeds = (
        ""
        if pd.isna(row["seeds_low"])
        else f"<br>seeds {100 * row['seeds_low']:+.0f} to {100 * row['seeds_high']:+.0f} %"
    )
    estimated = "<br>estimated from some edges" if row["estimated"] else ""
    return (
        f"<b>{escape(row['pair'])}</b>, {escape(row['definition'])}<br>{100 * row['relative']:+.1f} % ({ends})"
        f"{seeds}{estimated}"
    )
