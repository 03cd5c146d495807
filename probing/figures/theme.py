"""One visual language: colours, number formats and what figures have in common.

The base is blue and the tuned model orange, everywhere. A difference diverges around a neutral grey towards the model
in which the thing is larger. Blue and orange stay apart for every common kind of colour blindness, and both stand out
against the light and the dark background.
"""

import math

import plotly.graph_objects as go

BASE = "#3b82c4"
TUNED = "#d9702b"
NEUTRAL = "#8a94a0"
FAINT = "rgba(138, 148, 160, 0.28)"
COLOURS = {"base": BASE, "tuned": TUNED}
PICKED = "#8a5cf0"
"""What a person has picked, in the graph and in the matrix."""

DIVERGING = [[0.0, BASE], [0.5, "rgba(138, 148, 160, 0.12)"], [1.0, TUNED]]
"""From larger in the base to larger in the tuned model."""

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"], "responsive": True}
"""Plotly's settings for every figure."""


def text_colours(dark: bool) -> dict[int, str]:
    """Colours of text about a change, by its direction: tuned's for up, base's for down, grey for neither.

    Deeper on white and paler on black than the figures' colours, so that small letters can be read.
    """
    if dark:
        return {1: "#f2a26b", -1: "#84bcee", 0: "#a7b1bc"}
    return {1: "#a4480c", -1: "#1f5f99", 0: "#5a6570"}


def faded(colour: str, opacity: float) -> str:
    """`#rrggbb` with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity:g})"


def blend(one: str, other: str, share: float) -> str:
    """A colour so far on the way from one to another, all `#rrggbb`."""
    mixed = (round((1 - share) * int(one[i : i + 2], 16) + share * int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def scale_to(colour: str) -> list[list[float | str]]:
    """A colour scale from nothing to `colour`."""
    return [[0.0, faded(colour, 0.04)], [1.0, colour]]


def style(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """Apply what all figures share: size, margins, a transparent ground, the legend above."""
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": NEUTRAL},
    )
    figure.update_xaxes(exponentformat="power", zeroline=False)
    figure.update_yaxes(exponentformat="power", zeroline=False)
    figure.update_layout(**layout)
    return figure


def ink(figure: go.Figure, dark: bool) -> go.Figure:
    """Write the figure's words in a colour that can be read on a light or a dark page."""
    colour = "#b9c2cc" if dark else "#4f5a66"
    figure.layout.font.color = figure.layout.legend.font.color = colour
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        axis.tickfont.color = axis.title.font.color = colour
    for annotation in figure.layout.annotations:
        annotation.font.color = colour
    return figure


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, signed: bool = False) -> str:
    """Three significant digits, with a power of ten where many zeros would be needed; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    sign = "+" if signed and value > 0 else "−" if value < 0 else ""
    size = abs(value)
    if size == 0:
        return "0"
    exponent = math.floor(math.log10(size))
    if -3 <= exponent < 5:
        return f"{sign}{size:.{max(0, 2 - exponent)}f}"
    return f"{sign}{size / 10**exponent:.2f}×10{str(exponent).translate(_SUPERSCRIPTS)}"


def between(low: float | None, high: float | None) -> str:
    """The ends of an interval of something that has a sign."""
    return f"{number(low, signed=True)} to {number(high, signed=True)}"


def percent(value: float | None, signed: bool = True) -> str:
    """A share as a whole percentage, with one decimal below ten."""
    if value is None or not math.isfinite(value):
        return "–"
    sign = "+" if signed and value > 0 else "−" if value < 0 else ""
    size = abs(100 * value)
    return f"{sign}{size:.1f} %" if size < 9.95 else f"{sign}{size:.0f} %"
