"""Where the nodes of the circuit graph stand."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from probing.graph import BIAS, Kind, ResidualGraph

_ABREAST = 7
"""Parts of an unfolded block in one row."""

_BESIDE, _ROW, _CENTRE = 0.185, 20, -0.08
"""How far these stand apart, in x and in pixels of y, and the x of their middle."""

_PORTS: dict[Kind, float] = {"q": -0.11, "k": 0.0, "v": 0.11}
"""How far from the middle of a block's node stands where its queries, keys and values read, in x."""

_SHORT = {BIAS: "b"}
"""What is written on a node, where the name of the part is too long."""


@dataclass(frozen=True)
class Places:
    """Where the nodes of a graph stand: x in lanes 0 (attention), 1 (MLP) and ½ between, y up through the layers."""

    at: dict[str, tuple[float, float]]
    """What is drawn: the blocks, and instead of those that are unfolded their parts."""
    texts: dict[str, str]
    stands: dict[str, str]
    """Every node, and what is drawn for it."""
    ports: dict[tuple[str, Kind], tuple[float, float]]
    """Where edges enter the queries, keys and values of each block that is drawn as one node: on its lower rim."""
    boxes: dict[str, tuple[float, float, float, float]]
    """Around the parts of each unfolded block: x0, x1, y0, y1."""
    unit: float
    """Pixels of one unit of y."""
    top: float

    @staticmethod
    def of(graph: ResidualGraph, unfolded: Collection[str]) -> "Places":
        """The places of all blocks, with the parts of some beside each other; what is above them moves up."""
        unit = (height_of(graph.layers) - 80) / (2 * graph.layers + 4.6)
        at, boxes, lift = {graph.blocks[0]: (0.5, 0.0)}, {}, 0.0
        for layer, (attention, mlp) in enumerate(zip(graph.blocks[1:-1:2], graph.blocks[2:-1:2], strict=True)):
            at[attention] = (0.0, 2 * layer + 1.0 + lift)
            if attention in unfolded:
                parts, boxes[attention] = _beside(_rows(graph, attention), at.pop(attention)[1], _ROW / unit)
                at |= parts
                lift += boxes[attention][3] - boxes[attention][2]
            at[mlp] = (1.0, 2 * layer + 1.8 + lift)
        top = 2.0 * graph.layers + 1 + lift
        at[graph.blocks[-1]] = (0.5, top)
        stands = {node: node if node in at else block for node, block in graph.block_of.items()}
        texts = {node: _SHORT.get(part, part) for node, part in _parts(graph).items()}
        reads = dict.fromkeys((one.block, one.kind) for one in graph.reader_records)
        rim = size_of(unit) / 2 / unit
        ports = {
            (block, kind): (at[block][0] + _PORTS[kind], at[block][1] - rim)
            for block, kind in reads
            if kind in _PORTS and block in at
        }
        return Places(at, texts, stands, ports, boxes, unit, top)

    @property
    def size(self) -> float:
        """Of a block's node, in pixels."""
        return size_of(self.unit)

    def end(self, node: str, kind: Kind) -> tuple[float, float]:
        """Where the edges into a kind of reader of a node end."""
        drawn = self.stands[node]
        return self.ports.get((drawn, kind), self.at[drawn])


def size_of(unit: float) -> float:
    """Of a block's node, in pixels, where a unit of y has so many: two of them leave a gap for what reads."""
    return float(np.clip(1.4 * unit, 12, 26))


def _parts(graph: ResidualGraph) -> dict[str, str]:
    """What each node is called within its block."""
    return {one.node: one.part for one in (*graph.writer_records, *graph.reader_records) if one.part}


def _rows(graph: ResidualGraph, block: str) -> list[list[str]]:
    """The parts of a block in rows from bottom to top: groups of keys and values, which its heads read, below them."""
    writing = set(graph.writers)
    found: list[list[str]] = []
    for writes in (False, True):
        parts = [node for node in graph.nodes[block] if (node in writing) == writes]
        rows = np.array_split(np.array(parts), max(1, math.ceil(len(parts) / _ABREAST)))
        found += [row.tolist() for row in reversed(rows) if len(row)]
    return found


def _beside(
    rows: Sequence[Sequence[str]], y: float, step: float
) -> tuple[dict[str, tuple[float, float]], tuple[float, float, float, float]]:
    """Places of a block's parts, the lowest row a little above y, and the box around them."""
    at = {
        node: (_CENTRE + _BESIDE * (i - (len(row) - 1) / 2), y + (number + 0.5) * step)
        for number, row in enumerate(rows)
        for i, node in enumerate(row)
    }
    wide = _BESIDE * (max(map(len, rows)) / 2 + 0.08)
    return at, (_CENTRE - wide, _CENTRE + wide, y - 0.2 * step, y + (len(rows) + 0.2) * step)


def height_of(layers: int) -> int:
    """Of a graph or matrix, in pixels: room for every layer, within one screen and a bit."""
    return int(np.clip(72 * layers + 120, 520, 980))
