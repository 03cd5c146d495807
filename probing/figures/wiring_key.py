"""What the lines of a circuit graph mean, drawn beneath each of its panels, so that it goes where the figure goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import plotly.graph_objects as go

_ROW, _TITLE, _GAP = 19, 14, 22
"""Heights in pixels: of an entry (Plotly gives it no less), of a line of the title, and around them."""

_SIZE = 10
"""Of the letters."""

_WIDE = 38
"""Letters of a line of the title."""


@dataclass(frozen=True)
class Entry:
    """A line, or a mark where it has a symbol, and what it means."""

    meaning: str
    colour: str
    width: float = 2.0
    dotted: bool = False
    symbol: str | None = None

    def trace(self, legend: str) -> go.Scatter:
        """A trace that draws nothing but an entry of a legend."""
        if self.symbol is not None:
            look = {"marker": {"symbol": self.symbol, "size": 8, "line": {"color": self.colour, "width": self.width}}}
            mode = "markers"
        else:
            look = {"line": {"color": self.colour, "width": self.width, "dash": "dot" if self.dotted else "solid"}}
            mode = "lines"
        return go.Scatter(x=[None], y=[None], mode=mode, name=self.meaning, legend=legend, showlegend=True, **look)


@dataclass(frozen=True)
class Key:
    """What stands beneath a panel."""

    title: str
    entries: Sequence[Entry]

    @property
    def lines(self) -> list[str]:
        """The title, in as many lines as it takes."""
        return wrap(self.title, _WIDE)

    @property
    def height(self) -> int:
        """In pixels."""
        return _ROW * len(self.entries) + _TITLE * len(self.lines) + _GAP


def set_beneath(figure: go.Figure, keys: Sequence[Key]) -> go.Figure:
    """Put a key beneath each panel of a figure, which gets as much higher as that takes."""
    room = max(key.height for key in keys)
    for column, key in enumerate(keys, start=1):
        left, _ = figure.layout[f"xaxis{column if column > 1 else ''}"].domain
        legend = f"legend{column + 1}"  # Streamlit gives the first one's title a colour of its own
        figure.add_traces([entry.trace(legend) for entry in key.entries])
        figure.layout[legend] = {
            "title": {"text": "<br>".join(key.lines), "font": {"size": _SIZE}},
            "font": {"size": _SIZE},
            "orientation": "v",
            "x": left,
            "xanchor": "left",
            "y": 0,
            "yanchor": "top",
            "itemclick": False,
            "itemdoubleclick": False,
            "bgcolor": "rgba(0,0,0,0)",
        }
    margin = figure.layout.margin.b + room
    return figure.update_layout(height=figure.layout.height + room, margin={"b": margin})
