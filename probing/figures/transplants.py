"""What parts of one model do in the other: lanes of attention and MLP over the layers, curves, and pairs side by side.

A dot is what a part changes in its host, with its interval: orange towards the tuned model, blue towards the base, grey
within question noise. All lanes, and all pairs, are on one scale.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.figures.strips import interval_bars
from probing.figures.theme import BASE, FAINT, NEUTRAL, PICKED, TUNED, between, number, percent, style
from probing.graph import layer_of
from probing.transplant.findings import Measure
from probing.transplant.units import ORDERS, Direction, Order

TITLES: dict[Direction, str] = {"into-base": "put into the base", "into-tuned": "taken out of the tuned model"}

UNITS: dict[Measure, str] = {"correct": "points", "loss": "nats per token"}
"""Of a change."""

_SCALES: dict[Measure, float] = {"correct": 100.0, "loss": 1.0}

_TICKS: dict[Measure, int] = {"correct": 5, "loss": 3}

_ORDERS: dict[Order, str] = {"depth": "from the input to the logits", "effect": "the largest single effect first"}

_LABELLED = 14
"""Parts in a lane up to which each has its name beside it."""


def lanes(alone: pd.DataFrame, measure: Measure, sign: int, picked: str | None) -> go.Figure:
    """Every part in its lane and layer, in each direction: rows of `Transplants.alone`, over which it was measured.

    `sign` is that of the change from base to tuned.
    """
    ways: list[Direction] = list(dict.fromkeys(alone["direction"]))
    figure = make_subplots(
        1, 2 * len(ways), subplot_titles=["attention", "MLP"] * len(ways), horizontal_spacing=0.025, shared_yaxes=True
    )
    alone = alone.assign(block=[part.partition(".")[0] for part in alone["part"]])
    alone = alone.assign(height=_heights(alone["block"]))
    for place, way in enumerate(ways):
        rows = alone[alone["direction"] == way]
        mlp = rows["block"].str.fullmatch(r"m\d+")
        for lane, of_lane in enumerate((rows[~mlp], rows[mlp])):
            where = {"row": 1, "col": 1 + 2 * place + lane}
            names = [part if layer_of(block) is not None else "" for part, block in _named(of_lane)]
            figure.add_trace(_dots(of_lane, _spread(of_lane), measure, sign, {picked}, names), **where)
            figure.add_vline(0, line={"color": FAINT, "width": 2}, layer="below", **where)
        figure.add_annotation(
            text=f"<b>{TITLES[way].capitalize()}</b>", x=(place + 0.5) / len(ways), y=1, xref="paper", yref="paper",
            xanchor="center", yanchor="bottom", yshift=22, showarrow=False,
        )  # fmt: skip
    figure.update_xaxes(range=_range(alone, measure), title=UNITS[measure], nticks=_TICKS[measure])
    told = zip(alone["block"], alone["height"], strict=True)
    layers = {height: block if (layer := layer_of(block)) is None else str(layer) for block, height in told}
    figure.update_yaxes(tickvals=list(layers), ticktext=list(layers.values()), showgrid=False)
    figure.update_yaxes(range=[min(layers) - 0.6, max(layers) + 0.7])
    figure.update_yaxes(title="layer", col=1)
    height = int(np.clip(44 * len(layers) + 120, 380, 1100))
    top = {"l": 8, "r": 8, "t": 60, "b": 8}
    return style(figure, height, clickmode="event+select", hovermode="closest", margin=top)


def _named(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    return zip(rows["part"], rows["block"], strict=True)


def _heights(blocks: Sequence[str]) -> list[int]:
    """The layer of each block; the input stands below the first, and the logits above the last."""
    layers = [layer_of(block) for block in blocks]
    top = max((layer for layer in layers if layer is not None), default=-1) + 1
    ends = {"logits": top}
    return [ends.get(block, -1) if layer is None else layer for block, layer in zip(blocks, layers, strict=True)]


def _spread(rows: pd.DataFrame) -> np.ndarray:
    """Heights of a lane's parts, those of one block above each other."""
    groups = rows.groupby("height", sort=False)["part"]
    number_in, count = groups.cumcount(), groups.transform("size")
    return (rows["height"] + 0.8 * (number_in - (count - 1) / 2) / count).to_numpy(float)


def _dots(
    rows: pd.DataFrame, heights: Sequence[float] | np.ndarray, measure: Measure, sign: int,
    marked: Collection[str | None], names: Sequence[str] = (),
) -> go.Scatter:  # fmt: skip
    """A dot for each part at its change, with its interval; those that are marked have a ring."""
    scaled = rows[[f"{measure}_{end}" for end in ("change", "low", "high")]].to_numpy(float) * _SCALES[measure]
    change, low, high = scaled.T
    labelled = bool(len(names)) and len(rows) <= _LABELLED
    rings = [part in marked for part in rows["part"]]
    return go.Scatter(
        x=change,
        y=heights,
        mode="markers+text" if labelled else "markers",
        text=list(names) if labelled else None,
        textposition="top center",
        textfont={"size": 10},
        marker={
            "size": 10,
            "color": _colours(low, high, sign),
            "line": {"color": PICKED, "width": [3 if ring else 0 for ring in rings]},
        },
        error_x=interval_bars(change, *_finite(change, low, high), NEUTRAL) | {"width": 3},
        customdata=rows[["part"]].to_numpy(),
        hovertext=[hover(row) for row in rows.to_dict("records")],
        hoverinfo="text",
        showlegend=False,
    )


def _colours(low: np.ndarray, high: np.ndarray, sign: int) -> list[str]:
    towards = np.where(low > 0, 1, np.where(high < 0, -1, 0)) * sign
    return [{1: TUNED, -1: BASE, 0: NEUTRAL}[int(way)] for way in towards]


def _finite(middle: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An interval that says nothing is not drawn."""
    none = ~np.isfinite(low) | ~np.isfinite(high)
    return np.where(none, middle, low), np.where(none, middle, high)


def _range(rows: pd.DataFrame, measure: Measure) -> list[float]:
    """Of an axis that holds every interval, and zero."""
    ends = rows[[f"{measure}_{end}" for end in ("change", "low", "high")]].to_numpy(float)
    ends = np.append(ends[np.isfinite(ends)], 0) * _SCALES[measure]
    air = 0.08 * float(np.ptp(ends)) or 1.0
    return [float(ends.min()) - air, float(ends.max()) + air]


def hover(row: Mapping[str, float | str | None]) -> str:
    """A part, and what it changes by every measure."""
    lines = [f"<b>{row['part']}</b>, {TITLES[row['direction']]}"]  # type: ignore[index]
    lines += [f"{name} {value}" for name, value in in_words(row).items()]
    return "<br>".join(lines)


def in_words(row: Mapping[str, float | str | None]) -> dict[str, str]:
    """What a part makes of its host, by each measure that there is, with intervals."""
    said = {}
    if _is_number(row["correct"]):
        said["right answers"] = f"{percent(row['correct'], signed=False)}, {_change(row, 'correct')}"  # type: ignore[arg-type]
    said["loss"] = f"{number(row['loss'])}, {_change(row, 'loss')}"  # type: ignore[arg-type]
    if _is_number(row["gap_change"]):
        value, low, high = (f"{100 * row[f'gap_{end}']:.0f}" for end in ("change", "low", "high"))  # type: ignore[operator]
        said["gap in loss closed"] = f"{value} % ({low} to {high})"
    if _is_number(row.get("moved")):
        said["moved by tuning"] = f"{percent(row['moved'], signed=False)} of its norm"  # type: ignore[arg-type]
    return said


def _change(row: Mapping[str, float | str | None], measure: Measure) -> str:
    scale, unit = _SCALES[measure], " points" if measure == "correct" else ""
    value, low, high = (scale * row[f"{measure}_{end}"] for end in ("change", "low", "high"))  # type: ignore[operator]
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"{number(value, signed=True)}{unit} (no interval)"
    return f"{number(value, signed=True)}{unit} ({between(low, high)})"


def _is_number(value: float | str | None) -> bool:
    return isinstance(value, float) and np.isfinite(value)


def cumulative(together: pd.DataFrame, measure: Measure) -> go.Figure:
    """Parts put in one after the other, in each order and direction: rows of `Transplants.together`."""
    figure = make_subplots(
        1, len(ORDERS), subplot_titles=[_ORDERS[order] for order in ORDERS], horizontal_spacing=0.05, shared_yaxes=True
    )
    scale = _SCALES[measure]
    for place, order in enumerate(ORDERS, 1):
        for way, colour, name in (
            ("into-base", TUNED, "the tuned model's parts put into the base"),
            ("into-tuned", BASE, "the base's parts put into the tuned model"),
        ):
            rows = together[(together["direction"] == way) & (together["order"] == order)]
            if rows.empty:
                continue
            host, mean = scale * rows[measure].iloc[0], scale * rows[measure].to_numpy(float)
            ends = [host + scale * rows[f"{measure}_{end}"].to_numpy(float) for end in ("low", "high")]
            if measure == "correct":
                ends = [np.clip(end, 0, scale) for end in ends]
            bars = interval_bars(mean, *_finite(mean, *ends), colour) | {"width": 3, "thickness": 1}
            figure.add_trace(
                go.Scatter(
                    x=rows["parts"],
                    y=mean,
                    mode="lines+markers",
                    name=name,
                    line={"color": colour, "width": 2},
                    marker={"size": 6},
                    error_y=bars,
                    text=[f"and {added}" if added else "nothing" for added in rows["added"]],
                    hovertemplate="%{x} parts: %{text}<br>%{y:.3g}<extra></extra>",
                    showlegend=place == 1,
                ),
                row=1,
                col=place,
            )
    figure.update_xaxes(title="parts of the other model")
    figure.update_yaxes(title="right answers (%)" if measure == "correct" else "loss (nats per token)", col=1)
    return style(figure, 400, legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0})


def side_by_side(
    tables: Mapping[str, pd.DataFrame],
    signs: Mapping[str, int],
    marked: Mapping[str, Collection[str]],
    measure: Measure,
) -> go.Figure:
    """The same direction of several pairs, by title: rows of `Transplants.alone`, some parts marked."""
    titles = list(tables)
    figure = make_subplots(
        1, len(titles), subplot_titles=[escape(title) for title in titles], horizontal_spacing=0.02, shared_yaxes=True
    )
    parts = list(dict.fromkeys(part for table in tables.values() for part in table["part"]))
    for place, (title, table) in enumerate(tables.items(), 1):
        heights = [parts.index(part) for part in table["part"]]
        dots = _dots(table, heights, measure, signs[title], marked[title])
        figure.add_trace(dots.update(name=title), row=1, col=place)
        figure.add_vline(0, line={"color": FAINT, "width": 2}, layer="below", row=1, col=place)
    figure.update_xaxes(range=_range(pd.concat(tables.values()), measure), title=UNITS[measure], nticks=_TICKS[measure])
    figure.update_yaxes(tickvals=list(range(len(parts))), ticktext=parts, range=[-0.6, len(parts) - 0.4], showgrid=True)
    return style(figure, int(np.clip(20 * len(parts) + 120, 320, 1100)), hovermode="closest")
