"""What estimates say beside what really happens, what circuits keep, and how far the strongest edges stay the same."""

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.evidence import VERDICTS, Audit, Verdict
from probing.extraction import SHARES
from probing.figures.checks import CHECKS
from probing.figures.strips import interval_bars
from probing.figures.theme import BASE, COLOURS, FAINT, NEUTRAL, PICKED, TUNED, between, number, style
from probing.graph import typeset
from probing.jobs.tasks.circuit import FAITHFUL, Kept

_SYMBOLS = {"strongest": "circle", "random": "diamond-open"}


class _Symmetric:
    """A scale that is linear about zero and logarithmic beyond, on both sides: half of the values are where it is
    linear."""

    def __init__(self, values: np.ndarray) -> None:
        sizes = np.abs(values)
        self._middle = float(np.median(sizes)) or 1.0
        self._largest = float(sizes.max())

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return np.arcsinh(np.asarray(values, np.float64) / self._middle)

    def line(self) -> np.ndarray:
        """Values from end to end, close together about zero."""
        return self._middle * np.sinh(np.linspace(-1, 1, 81) * self(np.array(self._largest)))

    @property
    def axis(self) -> dict[str, object]:
        """Ticks at zero and at powers of ten."""
        first, last = (int(np.floor(np.log10(value))) for value in (self._middle, max(self._largest, self._middle)))
        powers = 10.0 ** np.arange(last, first, -max(1, (last - first + 2) // 3))[::-1]
        ticks = np.concatenate([-powers[::-1], [0.0], powers])
        return {"tickvals": self(ticks), "ticktext": [_power(tick) for tick in ticks]}


def _power(value: float) -> str:
    if value == 0:
        return "0"
    sign, exponent = "−" if value < 0 else "", round(np.log10(abs(value)))
    return f"{sign}{10**exponent:g}" if -2 <= exponent <= 2 else f"{sign}10<sup>{exponent}</sup>"


def estimates(audits: Mapping[str, Audit]) -> go.Figure:
    """Each edge's estimate and real effect, with its interval, a panel for each model, on the same scales."""
    together = pd.concat([found.table for found in audits.values()])
    across = _Symmetric(together["estimate"].to_numpy())
    up = _Symmetric(together[["effect", "low", "high"]].to_numpy())
    figure = make_subplots(1, len(audits), subplot_titles=list(audits), shared_yaxes=True, horizontal_spacing=0.04)
    shown: set[Verdict] = set()
    for column, found in enumerate(audits.values(), 1):
        ends = across.line()
        equal = go.Scatter(x=across(ends), y=up(ends), mode="lines", name="equal", hoverinfo="skip")
        figure.add_trace(equal.update(line={"color": FAINT, "width": 2}, showlegend=column == 1), 1, column)
        for verdict in VERDICTS:
            for group, symbol in _SYMBOLS.items():
                table = found.table
                rows = table[(table["verdict"] == verdict) & (table["group"] == group)]
                if len(rows):
                    trace = _edges(rows, across, up, CHECKS[verdict].colour, symbol)
                    trace.update(name=verdict, legendgroup=verdict, showlegend=verdict not in shown)
                    figure.add_trace(trace, 1, column)
                    shown.add(verdict)
    figure.update_xaxes(title="estimate (mean score)", **across.axis)
    figure.update_yaxes(**up.axis)
    figure.update_yaxes(title="really removed (mean effect)", col=1)
    return _below_legend(style(figure, 520))


def _edges(rows: pd.DataFrame, across: _Symmetric, up: _Symmetric, colour: str, symbol: str) -> go.Scatter:
    middle, low, high = (up(rows[name].to_numpy()) for name in ("effect", "low", "high"))
    bars = interval_bars(middle, low, high, colour) | {"thickness": 1, "width": 0}
    text = [
        f"{typeset(row.edge)}<br>estimate {number(row.estimate, signed=True)}<br>effect "
        f"{number(row.effect, signed=True)} ({between(row.low, row.high)})"
        f"<br>{row.verdict}, {row.group}"
        for row in rows.itertuples()
    ]
    return go.Scatter(
        x=across(rows["estimate"].to_numpy()),
        y=middle,
        mode="markers",
        marker={"color": colour, "size": 7, "symbol": symbol},
        error_y=bars,
        text=text,
        hovertemplate="%{text}<extra></extra>",
    )


def kept(of: Mapping[str, Kept], log: bool) -> go.Figure:
    """What each model keeps in circuits of rising size: those of both models' scores, and a band of random ones."""
    titles = [f"run in {side}" for side in of]
    figure = make_subplots(1, len(of), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.04)
    for column, (side, found) in enumerate(of.items(), 1):
        first = column == 1
        if len(found.by_chance):
            figure.add_traces(_band(found, side, log, first), rows=1, cols=column)
        for whose, curve in found.curves.items():
            sizes = np.array(found.sizes[whose])
            there = _distinct(sizes, log)
            f, low, high = (np.array([getattr(one, end) for one in curve.f])[there] for end in ("value", "low", "high"))
            figure.add_trace(
                go.Scatter(
                    x=sizes[there],
                    y=f,
                    mode="lines+markers",
                    name=f"{whose}'s circuit",
                    legendgroup=whose,
                    showlegend=first,
                    line={"color": COLOURS[whose], "width": 2},
                    marker={"size": 9},
                    error_y=interval_bars(f, low, high, COLOURS[whose]),
                    customdata=[[f"{whose}:{size}"] for size in sizes[there]],
                    hovertemplate=f"{whose}'s circuit in {side}<br>%{{x}} edges keep %{{y:.2f}}<extra></extra>",
                ),
                row=1,
                col=column,
            )
        for level, dash in ((1.0, "solid"), (FAITHFUL, "dot"), (0.0, "solid")):
            figure.add_hline(level, row=1, col=column, line={"color": NEUTRAL, "width": 1, "dash": dash})
    figure.update_xaxes(title="edges in the circuit", type="log" if log else "linear", exponentformat="none")
    if log:
        ticks = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
        figure.update_xaxes(tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    figure.update_yaxes(title="share of the margin kept, f", col=1)
    return _below_legend(style(figure, 440))


def _below_legend(figure: go.Figure) -> go.Figure:
    """With the titles of panels below the legend."""
    return figure.update_layout(margin={"t": 90}, legend={"y": 1, "yref": "container", "yanchor": "top"})


def _distinct(sizes: np.ndarray, log: bool) -> np.ndarray:
    """The places of sizes that are not like the one before; on a logarithmic axis there is no zero."""
    new = np.concatenate([[True], np.diff(sizes) > 0])
    return np.flatnonzero(new & ((sizes > 0) | (not log)))


def _band(found: Kept, side: str, log: bool, first: bool) -> list[go.Scatter]:
    """From the lowest to the highest of the random circuits of each size that the model's own have."""
    asked = [place for place, share in enumerate(found.curves[side].shares) if share in SHARES]
    sizes = np.array(found.sizes[side])[asked]
    there = _distinct(sizes, log)
    x, ends = sizes[there], (found.by_chance[:, there].min(0), found.by_chance[:, there].max(0))
    name = f"{len(found.by_chance)} random circuits"
    line = {"color": FAINT, "width": 1}
    lower, upper = (go.Scatter(x=x, y=y, mode="lines", name=name, legendgroup="random", line=line) for y in ends)
    lower.update(showlegend=False, hoverinfo="skip")
    upper.update(fill="tonexty", fillcolor=FAINT, showlegend=first, hoverinfo="skip")
    return [lower, upper]


_KINDS = {"base": BASE, "tuned": TUNED, "both": PICKED, "seed": NEUTRAL}


def overlaps(rows: pd.DataFrame, chance: float, n: int) -> go.Figure:
    """Columns `label`, `kind`, `whole`, `mean`, `low` and `high`: a line for each two runs that are compared."""
    figure = go.Figure()
    rows = rows.iloc[::-1]  # the first on top
    places, labels = np.arange(len(rows)), [escape(label) for label in rows["label"]]
    mean, colours = rows["mean"].to_numpy(), [_KINDS[kind] for kind in rows["kind"]]
    ends = interval_bars(mean, rows["low"].to_numpy(), rows["high"].to_numpy(), NEUTRAL)
    for x, name, marker, bars in (
        (mean, "mean over draws of the questions", {"size": 10}, ends),
        (rows["whole"], "with all questions", {"size": 11, "symbol": "diamond-open", "line": {"width": 2}}, None),
    ):
        figure.add_trace(
            go.Scatter(
                x=x,
                y=places,
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=False,
                marker={**marker, "color": colours},
                error_x=bars,
                text=labels,
                hovertemplate="%{text}<br>" + name + " %{x:.2f}<extra></extra>",
            )
        )
        grey = {**marker, "color": NEUTRAL}  # in the legend, as the colours are those of the rows
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, legendgroup=name, marker=grey))
    figure.add_vline(chance, line={"color": NEUTRAL, "dash": "dot", "width": 1}, annotation_text="by chance")
    figure.update_xaxes(title=f"overlap of the {n} strongest edges (Jaccard)", range=[-0.02, 1.04])
    figure.update_yaxes(tickvals=places, ticktext=labels, showgrid=False, range=[-0.7, len(rows) - 0.3])
    return style(figure, 130 + 34 * len(rows))
