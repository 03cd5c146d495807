"""Histograms of both models on shared bins."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probing.figures.theme import COLOURS, faded, style
from probing.metrics import METRICS, Definition, histogram_top, parts, sizes, with_unit, zeros
from probing.scores import Scores

_FLOOR = 0.5
"""Where empty bins stand on a logarithmic axis, just below a single cell."""


def _outline(edges: np.ndarray, counts: np.ndarray, side: str) -> go.Scatter:
    """A histogram as a filled step line."""
    colour = COLOURS[side]
    return go.Scatter(
        x=np.repeat(edges, 2)[1:-1],
        y=np.repeat(counts, 2),
        mode="lines",
        name=side,
        line={"color": colour, "width": 1.6},
        fill="tozeroy",
        fillcolor=faded(colour, 0.18),
    )


def of_sizes(base: Scores, tuned: Scores, definition: Definition, log_counts: bool, log_size: bool) -> go.Figure:
    """|score| of all cells and questions; bins as in the definition, or of equal ratio if `log_size`."""
    top = histogram_top(base, tuned, definition)
    edges = np.linspace(0.0, top, definition.bins + 1)
    if log_size:
        every = (sizes(part) for scores in (base, tuned) for part in parts(scores))
        edges = np.geomspace(min(size[size > 0].min(initial=top) for size in every), top, definition.bins + 1)
    figure = go.Figure()
    for side, scores in (("base", base), ("tuned", tuned)):
        counts = np.zeros(definition.bins)
        for part in parts(scores):
            counts += np.histogram(np.minimum(sizes(part), top), edges)[0]  # the last bin has all that is above
        if not log_size:
            counts[0] += len(scores.ids) * zeros(scores, definition)
        figure.add_trace(_outline(edges, np.maximum(counts, _FLOOR) if log_counts else counts, side))
    figure.update_xaxes(title="|score| (nats)", type="log" if log_size else "linear")
    figure.update_yaxes(title="cells", rangemode="tozero")
    if log_size:
        figure.update_xaxes(dtick=1)
    if log_counts:
        most = max(float(trace.y.max()) for trace in figure.data)
        figure.update_yaxes(type="log", dtick=1, range=[np.log10(_FLOOR), np.log10(2 * most)])
    return style(figure, 420)


def of_questions(questions: pd.DataFrame, metric: str) -> go.Figure:
    """One metric's values over the questions."""
    both = questions[[f"{metric}_base", f"{metric}_tuned"]].to_numpy()
    edges = np.histogram_bin_edges(both[np.isfinite(both)], bins=30)
    figure = go.Figure()
    for side in ("base", "tuned"):
        sample = questions[f"{metric}_{side}"].dropna().to_numpy()
        figure.add_trace(_outline(edges, np.histogram(sample, edges)[0], side))
        figure.add_vline(float(sample.mean()), line={"color": COLOURS[side], "dash": "dash", "width": 1.5})
    figure.update_xaxes(title=f"{with_unit(METRICS[metric].label, METRICS[metric].unit)}; dashed: mean")
    figure.update_yaxes(title="questions")
    return style(figure, 340)
