"""What can be taken away from where one looks: a figure as HTML, SVG or PNG, the numbers behind it as CSV or Parquet.

Files are made when they are asked for. Images need a Chrome or Chromium on the server; without one they are not
offered.
"""

import io
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from html import unescape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard.theme import ink

_CHROMES = ("chromium", "google-chrome", "google-chrome-stable", "chrome", "chromium-browser")

_MOST_LINES = 100_000
"""Rows of a table that are written as text; a million would take half a minute, and no spreadsheet would open them."""


def offer(name: str, numbers: pd.DataFrame | Callable[[], pd.DataFrame], figure: go.Figure | None = None) -> None:
    """A small menu of downloads; without a figure, the numbers only."""

    def table() -> pd.DataFrame:
        return numbers() if callable(numbers) else numbers

    with st.container(horizontal=True, horizontal_alignment="right"):
        menu = st.popover("Export", icon=":material/download:", type="tertiary", key=f"export-{name}")
    with menu:
        if figure is not None:
            _button("Figure as interactive HTML", lambda: as_html(figure), f"{name}.html", "text/html")
            if chrome():
                _button("Figure as SVG", lambda: as_image(figure, "svg"), f"{name}.svg", "image/svg+xml")
                _button("Figure as PNG", lambda: as_image(figure, "png"), f"{name}.png", "image/png")
        if callable(numbers) or len(numbers) <= _MOST_LINES:
            _button("Numbers as CSV", lambda: table().to_csv(index=False), f"{name}.csv", "text/csv")
        _button("Numbers as Parquet", lambda: as_parquet(table()), f"{name}.parquet", "application/vnd.apache.parquet")


def _button(label: str, content: Callable[[], str | bytes], file: str, kind: str) -> None:
    st.download_button(label, content, file, kind, key=f"download-{file}", on_click="ignore", type="tertiary")


@lru_cache(maxsize=1)
def chrome() -> str | None:
    """A browser that can draw images; `BROWSER_PATH`, or one of the usual names."""
    named = os.environ.get("BROWSER_PATH")
    return named or next((path for name in _CHROMES if (path := shutil.which(name))), None)


def _on_paper(figure: go.Figure) -> go.Figure:
    """The figure on white, its words dark, whatever the page looks like."""
    copy = go.Figure(figure)
    copy.update_layout(template="plotly_white", paper_bgcolor="white", plot_bgcolor="white")
    return ink(copy, dark=False)


def as_html(figure: go.Figure) -> str:
    """A page of its own that needs no network."""
    config = {"showSendToCloud": False, "displaylogo": False, "responsive": True}
    return _on_paper(figure).to_html(include_plotlyjs=True, config=config)


def as_image(figure: go.Figure, form: str) -> bytes:
    """The figure as `svg` or `png`, drawn by the server's Chrome."""
    os.environ.setdefault("BROWSER_PATH", chrome() or "")
    height = int(figure.layout.height or 500)
    return _on_paper(figure).to_image(format=form, width=max(900, height), height=height, scale=2)


def as_parquet(table: pd.DataFrame) -> bytes:
    """The table as Parquet."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def numbers_of(figure: go.Figure) -> pd.DataFrame:
    """What a figure's traces draw: a row for each point, with the trace it belongs to; gaps are left out."""
    parts = []
    for number, trace in enumerate(figure.data):
        name = trace.name or str(number)
        if trace.type == "heatmap":
            z = np.asarray(trace.z, dtype=float)
            x = range(z.shape[1]) if trace.x is None else trace.x
            y = range(z.shape[0]) if trace.y is None else trace.y
            across, down = np.meshgrid(np.asarray(x), np.asarray(y))
            shown = z if trace.customdata is None else np.asarray(trace.customdata, dtype=float)
            parts.append(pd.DataFrame({"trace": name, "x": across.ravel(), "y": down.ravel(), "z": shown.ravel()}))
        elif trace.x is not None and trace.y is not None:
            part = pd.DataFrame({"trace": name, "x": np.asarray(trace.x), "y": np.asarray(trace.y)})
            if trace.text is not None and not isinstance(trace.text, str):
                part["label"] = [unescape(str(text)) for text in trace.text]
            parts.append(part)
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["trace", "x", "y"])
    table = table.dropna(subset=["z" if "z" in table else "y"])
    mixed = [column for column in ("x", "y") if table[column].dtype == object]
    return table.astype(dict.fromkeys(mixed, str))
