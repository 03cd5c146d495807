"""What both models of the playground say: their answers token by token, and what else they might have said."""

from collections.abc import Sequence
from html import escape
from itertools import zip_longest

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.figures.theme import COLOURS, PICKED, faded, percent, style
from probing.playground import Chosen, Outcome, Said, Side

_ACROSS = 46
"""Characters that fit side by side on a phone."""

_LONGEST = 8
"""Characters of a token that are written on it."""

_UNIT = 28
"""Pixels of a row of tokens."""

_NAME, _GAP = 0.8, 0.25
"""Rows' heights of the name above an answer, and of what is left free below it."""

_MARKS = {True: ": right ✓", False: ": wrong ✗", None: ""}
"""Behind the name of an answer; nothing where nobody knows."""


def shown(token: str) -> str:
    """A token's text where there is little room: blanks and ends can be seen, and long ones are cut."""
    if token.startswith("<") and token.endswith(">"):
        return "■"
    text = token.strip() or "␣"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def rows(outcome: Outcome) -> list[tuple[str, str, Said, Said]]:
    """The answers from top to bottom: side, name, answer, and the one that it is held against: a model's under changes
    against its own, the tuned model's against the base's."""
    found = []
    for side, of in (("base", outcome.base), ("tuned", outcome.tuned)):
        found.append((side, side, of.answer, outcome.base.answer))
        if of.changed is not None:
            found.append((side, f"{side} under the changes", of.changed, of.answer))
    return found


def strip(outcome: Outcome) -> go.Figure:
    """A cell for each token, the likelier the fuller of its model's colour; the chosen place has a frame.

    Bold is what differs from the answer that it is held against. A click on a cell gives its place, from 0.
    """
    answers = rows(outcome)
    longest = max(len(shown(one)) for _, _, said, _ in answers for one in said.tokens)
    most = max(len(said.tokens) for _, _, said, _ in answers)
    across = min(most, max(1, _ACROSS // (longest + 1)))
    each = _NAME + -(-most // across) + _GAP
    traces, above, frames = [], [], []
    for number, (side, name, said, other) in enumerate(answers):
        top, place = -number * each, np.arange(len(said.tokens))
        x, y = place % across, top - _NAME - 0.5 - place // across
        text = f"{escape(name)}{_MARKS[said.is_right]}"
        where = {"x": -0.5, "y": top - _NAME / 2, "xanchor": "left", "yanchor": "middle"}
        above.append({"text": text, "showarrow": False, "borderpad": 0, **where})
        for row in np.unique(y)[::-1]:
            traces.append(_cells(side, x[y == row], row, np.array(said.probabilities)[y == row]))
        traces.append(_tokens(name, x, y, said, other))
        at = min(outcome.token, len(place) - 1)
        frame = {"x0": x[at] - 0.46, "x1": x[at] + 0.46, "y0": y[at] - 0.46, "y1": y[at] + 0.46}
        frames.append({"type": "rect", "line": {"color": PICKED, "width": 3}, **frame})
    axis = {"visible": False, "fixedrange": True}
    layout = {
        "xaxis": {**axis, "range": [-0.52, across - 0.48]},
        "yaxis": {**axis, "range": [-len(answers) * each, 0.1]},
        "annotations": above,
        "shapes": frames,
        "clickmode": "event+select",
        "dragmode": False,
        "hovermode": "closest",
        "showlegend": False,
        "margin": {"l": 2, "r": 2, "t": 0, "b": 0},
    }
    return style(go.Figure(traces), round(_UNIT * (len(answers) * each + 0.1)), **layout)


def _cells(side: str, x: np.ndarray, y: float, probabilities: np.ndarray) -> go.Heatmap:
    scale = [[0.0, faded(COLOURS[side], 0.05)], [1.0, faded(COLOURS[side], 0.45)]]
    return go.Heatmap(
        x=x, y=[y], z=[probabilities], colorscale=scale, zmin=0, zmax=1, dx=1, dy=1, xgap=2, ygap=2, showscale=False,
        hoverinfo="skip",
    )  # fmt: skip


def _tokens(name: str, x: np.ndarray, y: np.ndarray, said: Said, other: Said) -> go.Scatter:
    """What is written on the cells, and can be clicked."""
    against = zip_longest(said.tokens, other.tokens[: len(x)])
    return go.Scatter(
        x=x,
        y=y,
        mode="markers+text",
        customdata=np.arange(len(x))[:, None],
        text=[_text(one, one != was) for one, was in against],
        textfont={"size": 13},
        marker={"symbol": "square", "size": 22, "color": "rgba(0,0,0,0)"},
        hovertext=[
            f"<b>{escape(repr(one))}</b><br>{escape(name)}, token {place}<br>probability {percent(p, signed=False)}"
            for place, (one, p) in enumerate(zip(said.tokens, said.probabilities, strict=True), start=1)
        ],
        hoverinfo="text",
    )


def _text(token: str, differs: bool) -> str:
    text = escape(shown(token))
    return f"<b>{text}</b>" if differs else text


_LISTED = 5
"""Tokens of which a probability is drawn, for each model."""


def likeliest(outcome: Outcome) -> go.Figure:
    """The likeliest tokens at the chosen place, of each model on its own; pale before the changes, full under them."""
    sides = {"base": outcome.base, "tuned": outcome.tuned}
    names = {name: _named(side.chosen, side.without) for name, side in sides.items()}
    most = max(map(len, names.values()))
    figure = make_subplots(1, 2, subplot_titles=[_title(name, side) for name, side in sides.items()], shared_xaxes=True)
    for column, (name, side) in enumerate(sides.items(), start=1):
        labels = [escape(shown(one)) for one in names[name]]
        for of, words, opacity in ((side.chosen, "before", 0.45), (side.without, "under the changes", 1.0)):
            if of is None:
                continue
            values = dict(of.likeliest) | {of.token: of.probability}
            bar = go.Bar(
                x=[values.get(one) for one in names[name]],
                y=np.arange(len(labels)),
                orientation="h",
                name=words,
                marker={"color": faded(COLOURS[name], opacity)},
                text=labels,
                textposition="none",
                hovertemplate=f"“%{{text}}” {words}: %{{x:.1%}}<extra>{name}</extra>",
                showlegend=False,
            )
            figure.add_trace(bar, row=1, col=column)
        figure.update_yaxes(
            tickvals=np.arange(len(labels)), ticktext=labels, range=[most - 0.5, -0.5], row=1, col=column
        )
    figure.update_xaxes(range=[0, 1], tickformat=".0%", tickvals=[0, 0.5, 1])
    return style(figure, 90 + 30 * most, bargap=0.25, bargroupgap=0.05)


def _title(name: str, side: Side) -> str:
    return f"{name}: “{escape(shown(side.chosen.token))}”"


def _named(chosen: Chosen, without: Chosen | None) -> Sequence[str]:
    """The tokens that are listed: those of the model as it is, then what the changes bring up."""
    found = [chosen.token, *(token for token, _ in chosen.likeliest[:_LISTED])]
    if without is not None:
        found[2:2] = [token for token, _ in without.likeliest[:2]]
    return list(dict.fromkeys(found))[: _LISTED + 1]
