"""Where the nodes of the circuit graph stand."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from probing.graph import BIAS, ResidualGraph

_ABREAST = 7
"""Parts of an unfolded block in one row."""

_BESIDE, _ROW, _CENTRE = 0.185, 20, -0.08
"""How far these stand apart, in x and in pixels of y, and the x of their middle."""

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
        return Places(at, texts, stands, boxes, unit, top)

    @property
    def size(self) -> float:
        """Of a block's node, in pixels."""
        return float(np.clip(2.0 * self.unit, 15, 26))


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
