"""Figures of the lessons, each of one idea."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from probing.figures.theme import COLOURS, NEUTRAL, PICKED, faded, style
from probing.graph import ResidualGraph, typeset


def written(graph: ResidualGraph, scores: Mapping[str, Float[np.ndarray, " edge"]]) -> go.Figure:
    """What each part of the stream says to the last reader, for each model."""
    numbers = graph.into("logits")
    writers = [graph.writers[place] for place in graph.edge_index[0][numbers]]
    figure = go.Figure()
    for side, values in scores.items():
        figure.add_trace(
            go.Bar(
                x=values[numbers],
                y=writers,
                orientation="h",
                name=side,
                marker={"color": COLOURS[side]},
                hovertemplate="%{y}: %{x:.2f} nats<extra>%{fullData.name}</extra>",
            )
        )
    figure.update_xaxes(title="nats of the margin")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return style(figure, 90 + 26 * len(writers), bargap=0.3)


_STEPS = np.linspace(0, np.pi, 25)

_WIDEST = 6
"""Pixels of the strongest edge."""


def arcs(graph: ResidualGraph, scores: Float[np.ndarray, " edge"], side: str, most: int) -> go.Figure:
    """The strongest edges as arcs over the blocks, which stand in the order in which they write; dotted ones hinder."""
    strongest = np.argsort(-np.abs(scores))[:most]
    place = {block: at for at, block in enumerate(graph.blocks)}
    top = float(np.abs(scores[strongest[0]]))
    figure = go.Figure()
    middles: list[tuple[float, float]] = []
    for edge in strongest[::-1]:
        writer = graph.writer_records[graph.edge_index[0][edge]].block
        reader = graph.reader_records[graph.edge_index[1][edge]]
        start, end, kind = place[writer], place[reader.block], reader.kind
        # Edges into q, k and v of one block lie apart by their heights.
        height = np.sqrt(end - start) * (1 + 0.1 * "qkv".find(kind))
        share = abs(float(scores[edge])) / top
        figure.add_trace(
            go.Scatter(
                x=(start + end) / 2 - (end - start) / 2 * np.cos(_STEPS),
                y=height * np.sin(_STEPS),
                mode="lines",
                line={
                    "color": faded(COLOURS[side], 0.35 + 0.65 * share),
                    "width": 0.8 + (_WIDEST - 0.8) * share,
                    "dash": "solid" if scores[edge] > 0 else "dot",
                },
                hoverinfo="skip",
            )
        )
        middles.append(((start + end) / 2, height))
    names = graph.names(strongest[::-1])
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in middles],
            y=[y for _, y in middles],
            mode="markers",
            marker={"size": 12, "color": "rgba(0,0,0,0)"},
            hovertext=[
                f"<b>{typeset(n)}</b><br>{s:+.2f} nats" for n, s in zip(names, scores[strongest[::-1]], strict=True)
            ],
            hoverinfo="text",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=list(place.values()), y=np.zeros(len(place)), mode="markers", marker={"size": 9, "color": NEUTRAL},
            hovertext=list(place), hoverinfo="text",
        )
    )  # fmt: skip
    figure.update_xaxes(tickvals=list(place.values()), ticktext=list(place), tickangle=-90, showgrid=False)
    figure.update_yaxes(visible=False, range=[-0.25, max(height for _, height in middles) + 0.3])
    return style(figure, 340, showlegend=False, margin={"l": 8, "r": 8, "t": 8, "b": 8})


def promise(sides: Mapping[str, tuple[float, float, float]]) -> go.Figure:
    """The margin of each model as it is, as it was promised to become, and as it became."""
    figure = go.Figure()
    names: Sequence[str] = ("as it is", "promised", "really")
    for side, values in sides.items():
        figure.add_trace(
            go.Bar(
                x=values,
                y=[[side] * len(names), list(names)],
                orientation="h",
                marker={"color": [faded(COLOURS[side], opacity) for opacity in (0.35, 0.65, 1.0)]},
                text=[f"{value:.2f}" for value in values],
                hovertemplate="%{y}: %{x:.2f} nats<extra></extra>",
            )
        )
    figure.add_vline(0, line={"color": PICKED, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="margin, nats")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return style(figure, 300, showlegend=False, bargap=0.25)
