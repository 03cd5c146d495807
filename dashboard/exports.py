"""What can be taken away from where one looks: a figure as HTML, or as it is printed in a paper (SVG, PDF, PNG), with
its caption and what to cite; the numbers behind it as CSV or Parquet.

Files are made when they are asked for. Images need a Chrome or Chromium on the server; without one, the camera above
each figure saves what the visitor's own browser draws.
"""

import io
from collections.abc import Callable
from html import unescape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard.paper import Form, Paper, chrome, on_white, printed
from dashboard.view import COHORT_NAMES, Choice, current_choice
from dashboard.words import BIBTEX

_MOST_LINES = 100_000
"""Rows of a table that are written as text; a million would take half a minute, and no spreadsheet would open them."""

_IMAGES: dict[Form, str] = {"svg": "image/svg+xml", "pdf": "application/pdf", "png": "image/png"}


def offer(
    name: str, numbers: pd.DataFrame | Callable[[], pd.DataFrame], figure: go.Figure | None = None, about: str = ""
) -> None:
    """A small menu of downloads; without a figure, the numbers only. `about` says what the figure shows."""
    with st.container(horizontal=True, horizontal_alignment="right"):
        menu = st.popover("Export", icon=":material/download:", type="tertiary", key=f"export-{name}")
    with menu:
        st.fragment(_menu)(name, numbers, figure, about)


def _menu(name: str, numbers: pd.DataFrame | Callable[[], pd.DataFrame], figure: go.Figure | None, about: str) -> None:
    def table() -> pd.DataFrame:
        return numbers() if callable(numbers) else numbers

    choice = current_choice()
    file = file_name(choice, name)
    if figure is not None:
        _button("Figure as interactive HTML", lambda: as_html(figure), f"{file}.html", "text/html")
        caption = caption_of(choice, about)
        if chrome():
            _images(name, file, figure, caption)
        else:
            st.caption("This server draws no images; the camera above the figure saves it as SVG.")
        st.caption("Caption")
        st.code(caption, language=None, wrap_lines=True)
        _button("What to cite, as BibTeX", lambda: BIBTEX, f"{file}.bib", "application/x-bibtex")
    if callable(numbers) or len(numbers) <= _MOST_LINES:
        _button("Numbers as CSV", lambda: table().to_csv(index=False), f"{file}.csv", "text/csv")
    _button("Numbers as Parquet", lambda: as_parquet(table()), f"{file}.parquet", "application/vnd.apache.parquet")


def _images(name: str, file: str, figure: go.Figure, caption: str) -> None:
    """The figure as images, of a size that is chosen here."""
    wide, letters = st.columns(2)
    usual = Paper()
    with wide:
        width = st.number_input("Width, mm", 40.0, 400.0, usual.width, 1.0, "%.0f", key=f"width-{name}")
    with letters:
        size = st.number_input("Letters, pt", 4.0, 16.0, usual.letters, 0.5, "%.1f", key=f"letters-{name}")
    paper = Paper(width, size)
    for form, kind in _IMAGES.items():
        _button(
            f"Figure as {form.upper()}",
            lambda form=form: printed(figure, form, paper, caption),  # type: ignore[misc]
            f"{file}.{form}",
            kind,
        )


def _button(label: str, content: Callable[[], str | bytes], file: str, kind: str) -> None:
    st.download_button(label, content, file, kind, key=f"download-{file}", on_click="ignore", type="tertiary")


def file_name(choice: Choice, name: str) -> str:
    """Says of which pair, questions and cut a file is, without its ending: `grpo_addition_both-correct_a0.3_graph`."""
    cohort = choice.cohort.replace("_", "-")
    cut = f"a{choice.at}" if choice.at.unit == "alpha" else str(choice.at).replace(" ", "-")
    return f"{choice.pair.name}_{choice.question_set}_{cohort}_{cut}_{name}"


def caption_of(choice: Choice, about: str) -> str:
    """What stands below a figure in a paper: what it shows, and of what."""
    return (
        f"{about} {choice.pair.arrow} ({choice.pair.algorithm}), questions {choice.question_set}, "
        f"{COHORT_NAMES[choice.cohort]}, cut {choice.at.words}. Made with RL Circuit Explorer."
    )


def as_html(figure: go.Figure) -> str:
    """A page of its own that needs no network."""
    config = {"showSendToCloud": False, "displaylogo": False, "responsive": True}
    return on_white(figure).to_html(include_plotlyjs=True, config=config)


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
