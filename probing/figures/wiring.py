"""The circuit graph: layers from bottom to top, attention in the left lane, MLPs in the right one.

Edges are drawn as curves in few traces, one for each sign and width, because a browser draws few long traces faster
than many short ones. Curves cannot be clicked, so every edge has an invisible marker at its middle.

The heads of an attention block are folded into one node, where all their edges end; those of the block that is picked
stand beside each other in its place. On the lower rim of such a node are three ports, where edges enter its queries,
keys and values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probing.edge_tables import through
from probing.figures.checks import CHECKS, CONTRADICTED
from probing.figures.panels import EFFECTS, PANELS
from probing.figures.places import Places, height_of
from probing.figures.theme import BASE, COLOURS, FAINT, NEUTRAL, PICKED, TUNED, faded, number, style
from probing.figures.wiring_key import Entry, Key, set_beneath
from probing.graph import Edge, ResidualGraph, is_edge, typeset
from probing.words import changed

_WIDTHS = (0.6, 1.2, 2.0, 3.2, 5.0)
"""Line widths, in pixels, for fifths of the largest strength."""

_STEPS = np.linspace(0.0, 1.0, 13)
_BENDS = {"q": 0.16, "k": 0.26, "v": 0.36, "qkv": 0.26, "mlp": 0.20, "logits": 0.24}
"""How far a curve bends out of its lane, so that the edges into q, k and v of a node lie apart."""

_FARTHEST = 1.72
"""The largest x of a curve's middle, that it may stay inside its panel; the smallest lies as far on the other side."""

_NODE = "#53606d"

MARKED = "#cf3f5b"
"""What stands on nodes and edges that are marked."""

_PART = 16
"""The size of the nodes of a block's parts, at most."""

_CROSS = CHECKS["opposite"].colour
"""Of the marks on edges against whose estimate reality speaks."""

_PORT, _READABLE = "#38424d", 9
"""The colour of the ports, and their size from which letters on them can be read."""

_READS = {"q": "queries", "k": "keys", "v": "values"}

_HALO = 9
"""By how many pixels the halo of what is picked is wider than its line."""


@dataclass(frozen=True)
class Pick:
    """What is picked in the graph and in the matrix: a block, a node or an edge by name, or nothing."""

    name: str | None = None
    trace: bool = False
    """Whether to show every path through it, not only its own edges."""

    def edges(self, shown: pd.DataFrame, graph: ResidualGraph) -> set[str] | None:
        """The edges that stand out among those shown; None if nothing is picked."""
        if self.name is None:
            return None
        if self.trace:
            return through(shown, self.name, graph)
        parts = graph.parts(self.name)
        mine = (shown["edge"] == self.name) | shown["writer"].isin(parts) | shown["node"].isin(parts)
        return set(shown.loc[mine, "edge"])

    @property
    def nodes(self) -> set[str]:
        """What is picked, or what the picked edge joins."""
        if self.name is None:
            return set()
        if not is_edge(self.name):
            return {self.name}
        edge = Edge.of(self.name)
        return {edge.writer.node, edge.reader.node}

    def unfolded(self, graph: ResidualGraph) -> frozenset[str]:
        """The blocks whose parts are shown: those that what is picked is, or belongs to."""
        return frozenset(graph.block_of[node] for node in self.nodes if len(graph.nodes[graph.block_of[node]]) > 1)


@dataclass(frozen=True)
class Scale:
    """The values that give the widest lines: one for base and tuned, and one for their difference."""

    strength: float
    difference: float
    what: str = "mean |score|"
    """What a strength is."""
    dotted: str = "removing it lowers the loss"
    """What a negative effect means."""
    tested: bool = True
    """Whether it was asked which differences are beyond chance, as one question alone cannot tell."""

    @staticmethod
    def of(*tables: pd.DataFrame, **meaning: Any) -> "Scale":
        """The largest values of some edge tables (of several steps, say), whether they are shown or not."""
        return Scale(
            max(float(table[["base_strength", "tuned_strength"]].to_numpy().max()) for table in tables),
            max(float(table["difference"].abs().max()) for table in tables),
            **meaning,
        )

    def top(self, panel: str) -> float:
        """The value that gives a panel's widest lines."""
        return self.difference if panel == "difference" else self.strength


def curves(edges: pd.DataFrame, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Points of a quadratic curve for each edge, [edge, step] for x and for y."""
    start = np.array([places.at[places.stands[name]] for name in edges["writer"]])
    end = np.array([places.end(name, kind) for name, kind in zip(edges["node"], edges["kind"], strict=True)])
    bend = edges["kind"].map(_BENDS).to_numpy()
    beside = pd.DataFrame({"start": edges["writer"].map(places.stands), "end": edges["node"].map(places.stands)})
    beside = beside.assign(kind=edges["kind"]).groupby(["start", "end", "kind"], sort=False)["kind"]
    number, count = beside.cumcount().to_numpy(), beside.transform("size").to_numpy()
    outward = np.sign((start[:, 0] + end[:, 0]) / 2 - 0.5)
    outward[outward == 0] = np.where((np.arange(len(edges)) % 2 == 0) | (count > 1), 1, -1)[outward == 0]
    same_lane = np.sign(start[:, 0] - 0.5) == np.sign(end[:, 0] - 0.5)
    reach = np.where(same_lane, 0.35 + 0.5 * np.abs(end[:, 1] - start[:, 1]) / max(2.0, end[:, 1].max()), 0.35)
    # Edges of several heads of a folded block share both ends: within their lane they lie inside each other, and
    # between lanes they fan out.
    apart = 1 - np.where(same_lane, 0.7, 2.0) * number / count
    control = (start + end) / 2
    control[:, 0] += outward * apart * (bend * 1.6 + reach * same_lane)
    ends = (start + end)[:, 0] / 2
    control[:, 0] = np.clip(control[:, 0], 2 * (1 - _FARTHEST) - ends, 2 * _FARTHEST - ends)
    t = _STEPS[None, :]
    weights = ((1 - t) ** 2, 2 * t * (1 - t), t**2)
    x, y = (weights[0] * start[:, [i]] + weights[1] * control[:, [i]] + weights[2] * end[:, [i]] for i in (0, 1))
    return x, y


def _lines(x: np.ndarray, y: np.ndarray, **line: object) -> go.Scatter:
    """Many curves as one trace, with gaps between."""
    gap = np.full((len(x), 1), np.nan)
    return go.Scatter(
        x=np.hstack([x, gap]).round(3).ravel(),
        y=np.hstack([y, gap]).round(3).ravel(),
        mode="lines",
        line=line,
        hoverinfo="skip",
        showlegend=False,
    )


def _colours(edges: pd.DataFrame, panel: str) -> pd.Series:
    if panel != "difference":
        return pd.Series(COLOURS[panel], index=edges.index)
    towards = edges["difference"].map(lambda d: TUNED if d > 0 else BASE)
    return towards.where(edges["changed"], NEUTRAL)


def _is_dotted(edges: pd.DataFrame, panel: str) -> pd.Series:
    """Which edges are dotted: of a model those whose removal would lower its loss, else those that did not change."""
    return ~edges["changed"] if panel == "difference" else edges[EFFECTS[panel]] < 0


def _edges(edges: pd.DataFrame, panel: str, top: float, pick: Pick, graph: ResidualGraph, places: Places) -> list:
    """The traces of a panel's edges: the faded ones, the halo of the picked one, the others, and what can be
    clicked."""
    x, y = curves(edges, places)
    size = edges[PANELS[panel]].abs()
    width = np.minimum(len(_WIDTHS) - 1, (len(_WIDTHS) * size / top).astype(int)) if top > 0 else 0 * size
    stands_out = pick.edges(edges, graph)
    front = pd.Series(True, index=edges.index) if stands_out is None else edges["edge"].isin(stands_out)
    looks = pd.DataFrame(
        {"front": front, "colour": _colours(edges, panel), "dotted": _is_dotted(edges, panel), "width": width}
    ).reset_index(drop=True)
    behind: list[go.Scatter] = []
    before: list[go.Scatter] = []
    for (is_front, colour, is_dotted, w), members in looks.groupby(list(looks.columns)):
        rows = members.index.to_numpy()
        line = {"color": colour if is_front else faded(colour, 0.12), "width": _WIDTHS[int(w)]}
        lines = _lines(x[rows], y[rows], **line, dash="dot" if is_dotted else "solid")
        (before if is_front else behind).append(lines)
    mine = np.flatnonzero(edges["edge"] == pick.name)
    halo = [
        _lines(x[[row]], y[[row]], color=faded(PICKED, 0.4), width=_WIDTHS[int(looks["width"][row])] + _HALO)
        for row in mine
    ]
    middle = len(_STEPS) // 2
    clickable = go.Scatter(
        x=x[:, middle],
        y=y[:, middle],
        mode="markers",
        marker={"size": 11, "color": "rgba(0,0,0,0)"},
        customdata=edges[["edge"]].to_numpy(),
        hovertext=[hover(row) for row in edges.to_dict("records")],
        hoverinfo="text",
        showlegend=False,
    )
    crosses = []
    wrong = np.flatnonzero(contradicted(edges, panel) & front)
    if len(wrong):
        cross = {"symbol": "x-thin", "size": 8, "line": {"color": _CROSS, "width": 2}}
        at = {"x": x[wrong, middle], "y": y[wrong, middle]}
        crosses = [go.Scatter(**at, mode="markers", marker=cross, hoverinfo="skip", showlegend=False)]
    return [*behind, *halo, *before, *crosses, clickable]


def _nodes(graph: ResidualGraph, places: Places, pick: Pick) -> go.Scatter:
    """The nodes with their names."""
    names, texts = list(places.at), [places.texts.get(name, name) for name in places.at]
    sizes = [min(places.size, _PART) if name in places.texts else places.size for name in names]
    return go.Scatter(
        x=[places.at[name][0] for name in names],
        y=[places.at[name][1] for name in names],
        mode="markers+text",
        text=texts,
        textposition="middle center",
        textfont={"size": [float(np.clip(0.42 * size, 7, 10)) for size in sizes], "color": "#ffffff"},
        marker={
            "size": [1.7 * size if len(text) > 3 else size for text, size in zip(texts, sizes, strict=True)],
            "color": [PICKED if name in pick.nodes else _NODE for name in names],
            "opacity": 1,
        },
        customdata=np.array(names)[:, None],
        hovertext=[_about(graph, name) for name in names],
        hoverinfo="text",
        showlegend=False,
    )


def _ports(places: Places) -> list[go.Scatter]:
    """Where edges enter the queries, keys and values of a block, joined to its node; each says which it is, and picks
    the block."""
    if not places.ports:
        return []
    of_block: dict[str, list[tuple[float, float]]] = {}
    for (block, _), place in places.ports.items():
        of_block.setdefault(block, []).append(place)
    rails = np.array([(at[0], at[-1]) for at in of_block.values()])
    size = float(np.clip(0.4 * places.size, 5, 10))
    ports = go.Scatter(
        x=[x for x, _ in places.ports.values()],
        y=[y for _, y in places.ports.values()],
        mode="markers+text" if size >= _READABLE else "markers",
        text=[kind for _, kind in places.ports],
        textposition="middle center",
        textfont={"size": 8, "color": "#ffffff"},
        marker={"size": size, "color": _PORT, "opacity": 1},
        customdata=[[block] for block, _ in places.ports],
        hovertext=[f"<b>{block}&lt;{kind}&gt;</b><br>{_READS[kind]} read here" for block, kind in places.ports],
        hoverinfo="text",
        showlegend=False,
    )
    return [_lines(rails[:, :, 0], rails[:, :, 1], color=NEUTRAL, width=1), ports]


def _marks(edges: pd.DataFrame, places: Places, marked: Mapping[str, str]) -> list[go.Scatter]:
    """Symbols on the nodes and on the middles of the edges that have one; a dashed line along such an edge."""
    mine = np.flatnonzero(edges["edge"].isin(marked.keys()))
    at = {name: places.at[places.stands[name]] for name in marked if name in places.stands}
    traces = []
    if len(mine):
        x, y = curves(edges, places)
        middles = zip(x[mine, len(_STEPS) // 2], y[mine, len(_STEPS) // 2], strict=True)
        at |= dict(zip(edges["edge"].iloc[mine], middles, strict=True))
        traces.append(_lines(x[mine], y[mine], color=MARKED, width=2, dash="dash"))
    symbols = [marked[name] for name in at]
    marker = {"symbol": symbols, "size": 15, "color": MARKED, "line": {"color": MARKED, "width": 3}}
    where = {"x": [x for x, _ in at.values()], "y": [y for _, y in at.values()]}
    return [*traces, go.Scatter(**where, mode="markers", marker=marker, hoverinfo="skip", showlegend=False)]


def _about(graph: ResidualGraph, name: str) -> str:
    """A node's name, and what it is where that does not say it."""
    if len(parts := graph.parts(name)) > 1:
        return f"<b>{name}</b><br>{len(parts)} parts, folded"
    heads = [head for group, head in graph.feeds if group == name]
    return f"<b>{name}</b><br>keys and values of {heads[0]} to {heads[-1]}" if heads else name


def _shared(graph: ResidualGraph, places: Places) -> go.Scatter:
    """Thin lines from the groups of keys and values to the heads that share them."""
    ends = [(places.at[group], places.at[head]) for group, head in graph.feeds if head in places.at]
    x, y = (np.array([[start[i], end[i]] for start, end in ends]).reshape(-1, 2) for i in (0, 1))
    return _lines(x, y, color=FAINT, width=1)


def contradicted(edges: pd.DataFrame, panel: str) -> pd.Series:
    """Whether reality speaks against the estimate of each edge, or in the difference against either model's."""
    columns = [f"{side}_verdict" for side in COLOURS if panel in (side, "difference")]
    return edges.reindex(columns=columns).isin(CONTRADICTED).any(axis=1)


def hover(row: dict) -> str:
    """An edge's name and values."""
    return (
        f"<b>{typeset(row['edge'])}</b><br>base {number(row['base_strength'])} (rank {row['base_rank']})"
        f"<br>tuned {number(row['tuned_strength'])} (rank {row['tuned_rank']})"
        f"<br>difference {number(row['difference'], signed=True)}, {changed(row['q'])}{_checked(row)}"
    )


def _checked(row: dict) -> str:
    """What is said of the estimates of an edge, where they were held against reality."""
    found = {side: row[f"{side}_verdict"] for side in COLOURS if f"{side}_verdict" in row}
    return f"<br>estimate {', '.join(f'{verdict} in {side}' for side, verdict in found.items())}" if found else ""


def graph(
    panels: Mapping[str, pd.DataFrame],
    model: ResidualGraph,
    scale: Scale,
    pick: Pick,
    titles: Mapping[str, str] | None = None,
    marked: Mapping[str, str] | None = None,
) -> go.Figure:
    """The panels side by side: the edges that each shows, in the same places; base and tuned on the same scale.

    `marked` are nodes, blocks and edges on which a symbol stands, by its name in Plotly.
    """
    places = Places.of(model, pick.unfolded(model))
    margin = 0.9 * places.size / places.unit
    names = [(titles or {}).get(panel, panel.capitalize()) for panel in panels]
    figure = make_subplots(
        1, len(panels), subplot_titles=names, horizontal_spacing=0.03, shared_xaxes=True, shared_yaxes=True
    )
    for column, (panel, edges) in enumerate(panels.items(), start=1):
        for block, box in places.boxes.items():
            _frame(figure, column, block, box, PICKED if block == pick.name else NEUTRAL)
        traces = [_shared(model, places)] if places.boxes else []
        if len(edges):
            traces += _edges(edges, panel, scale.top(panel), pick, model, places)
        traces += [_nodes(model, places, pick), *_ports(places)]
        traces += _marks(edges, places, marked) if marked else []
        for trace in traces:
            figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(visible=False, range=[-0.75, 1.75])
    figure.update_yaxes(visible=False, range=[-margin, places.top + margin])
    height = height_of(model.layers) + round((places.top - 2 * model.layers - 1) * places.unit)
    style(figure, height, clickmode="event+select", dragmode="pan", hovermode="closest")
    return set_beneath(figure, [_key(panel, edges, scale, len(panels) > 1) for panel, edges in panels.items()])


def _key(panel: str, edges: pd.DataFrame, scale: Scale, several: bool) -> Key:
    """What the lines of a panel mean, which is one of several or alone; the same whichever of its edges are shown."""
    model = panel != "difference"
    title = f"Width: {scale.what}" if model else f"Width: difference of {scale.what}"
    if several and not model:
        title += ", on a scale of its own"
    entries = []
    top, steps = scale.top(panel), len(_WIDTHS)
    for step in (steps - 1, steps // 2, 0) if top > 0 else ():
        low, high = (number(top * end / steps) for end in (step, step + 1))
        entries.append(Entry(f"{low} to {high}", COLOURS[panel] if model else NEUTRAL, _WIDTHS[step]))
    if model:
        entries.append(Entry(scale.dotted, COLOURS[panel], dotted=True))
    elif not scale.tested:
        entries.append(Entry("of one question, so not tested", NEUTRAL, dotted=True))
    else:
        entries.append(Entry("stronger after tuning", TUNED))
        entries.append(Entry("weaker after tuning", BASE))
        entries.append(Entry("no change found (q above 0.05)", NEUTRAL, dotted=True))
    if "base_verdict" in edges:
        entries.append(Entry("really otherwise than estimated", _CROSS, symbol="x-thin"))
    return Key(title, entries)


def _frame(figure: go.Figure, column: int, block: str, box: tuple[float, float, float, float], colour: str) -> None:
    """A box around the parts of a block, with its name at a corner."""
    x0, x1, y0, y1 = box
    line = {"color": faded(colour, 0.7), "width": 1}
    where = {"row": 1, "col": column}
    figure.add_shape(type="rect", x0=x0, x1=x1, y0=y0, y1=y1, line=line, layer="below", **where)
    figure.add_annotation(
        text=block, x=x0, y=y1, xanchor="left", yanchor="bottom", showarrow=False, borderpad=0, font={"size": 10},
        **where,
    )  # fmt: skip
