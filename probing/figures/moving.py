"""A circuit that moves through training, as a picture: an SVG that needs no script.

It stands where the circuit graph would, layers from bottom to top, attention on the left and MLPs on the right. The
width of a line is the edge's share of all strength at that moment, so that a model that grows sure of its answers, all
of whose scores then shrink, does not fade away. Grey is as in the base, orange a larger share, blue a smaller one.

What a browser is told of a person who wants less motion it does not tell a picture: there is a still one for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.figures.places import Places
from probing.figures.theme import BASE, NEUTRAL, TUNED, blend
from probing.figures.wiring import curves
from probing.graph import ResidualGraph

_WIDTH, _HEIGHT = 560, 620
_LEFT, _RIGHT, _TOP, _BOTTOM = 170, 390, 70, 590
"""Where the lanes of attention and MLPs stand, and the last and the first node."""

_WIDEST, _THINNEST = 9.0, 0.4
"""Line widths, in pixels."""

_EDGES = 60
"""Edges that are drawn: those with the largest shares at any moment."""

_MOVING, _RESTING = 1.1, 2.5
"""Seconds from one moment to the next, and at the last before it all begins again."""

_CLEAR = 0.5
"""A change of share, relative to the sum of both, that has the full colour."""


@dataclass(frozen=True)
class Moments:
    """The strengths of every edge at several moments."""

    labels: tuple[str, ...]
    edges: pd.DataFrame
    """What the edges are: `edge`, `writer`, `node`, `kind`."""
    strengths: Float[np.ndarray, "moment edge"]

    @staticmethod
    def of(tables: Mapping[str, pd.DataFrame]) -> "Moments":
        """The moments of a training by their labels: the base, which each table has, and each table's tuned model."""
        first = next(iter(tables.values()))
        edges = first[["edge", "writer", "node", "kind"]]
        later = [table.set_index("edge").loc[edges["edge"], "tuned_strength"].to_numpy() for table in tables.values()]
        return Moments(("base", *tables), edges, np.array([first["base_strength"].to_numpy(), *later]))

    @property
    def shares(self) -> Float[np.ndarray, "moment edge"]:
        """Each edge's share of all strength at its moment."""
        total = self.strengths.sum(axis=1, keepdims=True)
        return np.divide(self.strengths, total, out=np.zeros_like(self.strengths), where=total > 0)


def circuit(graph: ResidualGraph, moments: Moments, dark: bool, moving: bool = True) -> str:
    """The picture, for a light or a dark page; where it is not to move, of the last moment."""
    places, shares = replace(Places.of(graph, ()), ports={}), moments.shares  # edges end at nodes, seen from afar
    strongest = np.sort(np.argsort(-shares.max(axis=0), kind="stable")[:_EDGES])
    shares = shares[:, strongest]
    widths = _THINNEST + (_WIDEST - _THINNEST) * shares / max(float(shares.max()), np.finfo(float).tiny)
    x, y = _on_paper(places, *curves(moments.edges.iloc[strongest], places))
    ink = "#b9c2cc" if dark else "#4f5a66"
    clock = _Clock(len(moments.labels))
    rules, parts = [], []
    for number, points in enumerate(zip(x, y, strict=True)):
        of = shares[:, number]
        looks = [
            f"stroke-width:{width:.1f};stroke:{_colour(share, of[0])}"
            for width, share in zip(widths[:, number], of, strict=True)
        ]
        rules.append(clock.keyframes(f"e{number}", looks))
        path = "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in zip(*points, strict=True))
        parts.append(f'<path id="e{number}" d="{path}" style="{looks[-1]}"/>')
    parts += _nodes(places, ink, dark)
    for number, label in enumerate(moments.labels):
        seen = [f"opacity:{int(moment == number)}" for moment in range(len(moments.labels))]
        rules.append(clock.keyframes(f"l{number}", seen, jump=True))
        parts.append(
            f'<text id="l{number}" class="label" x="{_WIDTH / 2}" y="26" fill="{ink}" style="{seen[-1]}">'
            f"{escape(label)}</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}"><style>path{{fill:none;stroke-opacity:.72;stroke-linecap:round}}'
        "text{font:600 12px sans-serif;text-anchor:middle}text.label{font-size:17px}"
        f"{''.join(rules) if moving else ''}</style>{''.join(parts)}</svg>"
    )


def in_words(moments: Moments) -> str:
    """What the picture shows, for those who do not see it."""
    shares, names = moments.shares, moments.edges["edge"].to_numpy()
    first, last = (
        ", ".join(f"{names[edge]} ({100 * of[edge]:.0f} %)" for edge in np.argsort(-of, kind="stable")[:3])
        for of in (shares[0], shares[-1])
    )
    return (
        f"The circuit of a model from {moments.labels[0]} to {moments.labels[-1]}, as a graph whose lines grow, shrink "
        f"and change colour. Edges with the largest shares of all strength at first: {first}; at the end: {last}."
    )


def _on_paper(
    places: Places, x: Float[np.ndarray, "edge step"], y: Float[np.ndarray, "edge step"]
) -> tuple[Float[np.ndarray, "edge step"], Float[np.ndarray, "edge step"]]:
    """Pixels of places: lanes across, layers up."""
    return _LEFT + (_RIGHT - _LEFT) * x, _BOTTOM - (_BOTTOM - _TOP) * y / places.top


def _nodes(places: Places, ink: str, dark: bool) -> Iterator[str]:
    ground = "#0f141a" if dark else "#ffffff"
    layer = 2 * (_BOTTOM - _TOP) / places.top
    for name, (x, y) in places.at.items():
        across, down = _on_paper(places, np.array([[x]]), np.array([[y]]))
        half = 17 if len(name) < 4 else 26
        yield (
            f'<g transform="translate({across[0, 0]:.1f} {down[0, 0]:.1f}) scale({min(1.0, layer / 26):.2f})">'
            f'<rect x="-{half}" y="-11" width="{2 * half}" height="22" rx="11" fill="{ground}" stroke="{ink}"/>'
            f'<text y="4" fill="{ink}">{escape(name)}</text></g>'
        )


def _colour(share: float, base: float) -> str:
    change = 0.0 if share == base else (share - base) / (share + base)
    return blend(NEUTRAL, TUNED if change > 0 else BASE, min(1.0, abs(change) / _CLEAR))


@dataclass(frozen=True)
class _Clock:
    """When each of several moments is, in per cent of a round."""

    moments: int

    @property
    def seconds(self) -> float:
        """Of a round."""
        return _MOVING * self.moments + _RESTING

    def keyframes(self, name: str, looks: Sequence[str], jump: bool = False) -> str:
        """Rules by which something looks so at each moment, with all between or `jump`ing, and stays at the last."""
        stops = [f"{100 * _MOVING * moment / self.seconds:.1f}%{{{look}}}" for moment, look in enumerate(looks)]
        timing = "step-end" if jump else "linear"
        back = "" if jump else f"97%{{{looks[-1]}}}100%{{{looks[0]}}}"
        return (
            f"@keyframes {name}{{{''.join(stops)}{back}}}"
            f"#{name}{{animation:{name} {self.seconds:.1f}s {timing} infinite}}"
        )
