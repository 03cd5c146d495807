"""The graph of a decoder's residual stream: `nodes` has what writes, what reads and what joins them, and their names;
`shape` how finely a model is looked at, and `build` what it then has, in which order, and scores over that."""

from probing.graph.build import ResidualGraph, granularity_of, graph_of
from probing.graph.nodes import BIAS, KINDS, Edge, Kind, Reader, Writer, edge_name, is_edge, layer_of, typeset
from probing.graph.shape import MOST_HEADS, MOST_LAYERS, Granularity, Heads

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
    "layer_of",
    "typeset",
]
