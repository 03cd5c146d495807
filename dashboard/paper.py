"""A figure as it is printed: so wide in millimetres, with letters of so many points, and with its caption inside.

A figure is laid out in pixels, its ordinary letters 12 of them high. A width and a size of letters say how long one
such pixel is on paper; everything, lines and marks too, is drawn at that scale.
"""

import os
import re
import shutil
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Literal

import plotly.graph_objects as go

from probing.figures.theme import ink

Form = Literal["svg", "pdf", "png"]

_CHROMES = ("chromium", "google-chrome", "google-chrome-stable", "chrome", "chromium-browser")

_LETTERS = 12
"""Pixels of a figure's ordinary letters: ticks, legends, hover."""

_INCH, _POINTS, _CSS = 25.4, 72, 96
"""Millimetres, points, and the pixels that Chrome takes for it, of an inch."""

DPI = 300
"""Dots of a PNG to the inch."""


@dataclass(frozen=True)
class Paper:
    """How large a figure is printed."""

    width: float = 180.0
    """In millimetres; two columns of a paper are about so wide."""
    letters: float = 8.0
    """Of ticks and legends, in points; titles are larger and marks on nodes smaller, as on the page."""

    @property
    def pixels(self) -> int:
        """How wide the figure is laid out."""
        return round(self.width / (self.letters * _INCH / _POINTS / _LETTERS))

    @property
    def pixel(self) -> float:
        """The length of one of these, in millimetres."""
        return self.width / self.pixels


@lru_cache(maxsize=1)
def chrome() -> str | None:
    """A browser that can draw images; `BROWSER_PATH`, or one of the usual names."""
    named = os.environ.get("BROWSER_PATH")
    return named or next((path for name in _CHROMES if (path := shutil.which(name))), None)


def on_white(figure: go.Figure) -> go.Figure:
    """The figure on white, its words dark, whatever the page looks like."""
    copy = go.Figure(figure)
    copy.update_layout(template="plotly_white", paper_bgcolor="white", plot_bgcolor="white")
    return ink(copy, dark=False)


def printed(figure: go.Figure, form: Form, paper: Paper, caption: str = "") -> bytes:
    """The figure at its size on paper, drawn by this machine's Chrome; SVG and PNG carry the caption inside."""
    os.environ.setdefault("BROWSER_PATH", chrome() or "")
    height = int(figure.layout.height or 500)
    scales = {"svg": 1.0, "pdf": paper.pixel / _INCH * _CSS, "png": paper.pixel / _INCH * DPI}
    made = on_white(figure).to_image(format=form, width=paper.pixels, height=height, scale=scales[form])
    if form == "svg":
        return _svg(made.decode(), paper, height, caption).encode()
    return _png(made, caption) if form == "png" else made


def _svg(text: str, paper: Paper, height: int, caption: str) -> str:
    """The drawing with its size in millimetres, of which one of its units is `paper.pixel`, and its caption."""
    size = f'width="{paper.width:g}mm" height="{height * paper.pixel:.3f}mm"'
    opened, rest = re.split(r"(?<=>)", text, maxsplit=1)
    opened = re.sub(r'width="[^"]*" height="[^"]*"', size, opened, count=1)
    return f"{opened}<desc>{escape(caption)}</desc>{rest}"


_SIGNATURE, _HEADER = 8, 25
"""Bytes of a PNG's signature, and of the chunk that follows it."""


def _png(image: bytes, caption: str) -> bytes:
    """The picture with its resolution (`pHYs`, dots to the metre) and its caption (`iTXt`)."""
    dots = round(DPI / _INCH * 1000)
    resolution = _chunk(b"pHYs", struct.pack(">IIB", dots, dots, 1))
    description = _chunk(b"iTXt", b"Description\0\0\0\0\0" + caption.encode())
    start = _SIGNATURE + _HEADER
    return image[:start] + resolution + description + image[start:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
