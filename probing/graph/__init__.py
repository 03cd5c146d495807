"""The graph of a decoder's residual stream: `nodes` has what writes, what reads and what joins them, and their names;
`build` which of them a model has at each granularity, in their order, and scores over them."""

from probing.graph.build import (
    MOST_HEADS,
    MOST_LAYERS,
    Granularity,
    Heads,
    ResidualGraph,
    granularity_of,
    graph_of,
)
from probing.graph.nodes import BIAS, KINDS, Edge, Kind, Reader, Writer, edge_name, is_edge, typeset

__all__ = [
    "BIAS",
    "KINDS",
    "MOST_HEADS",
    "MOST_LAYERS",
    "Edge",
    "Granularity",
    "Heads",
    "Kind",
    "Reader",
    "ResidualGraph",
    "Writer",
    "edge_name",
    "granularity_of",
    "graph_of",
    "is_edge",
    "typeset",
]
