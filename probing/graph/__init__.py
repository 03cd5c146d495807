"""The graph of a decoder's residual stream."""

from probing.graph.build import (
    KINDS,
    MOST_LAYERS,
    Granularity,
    ResidualGraph,
    granularity_of,
    graph_of,
    kind_of,
    layer_of,
    node_of,
)

__all__ = [
    "KINDS",
    "MOST_LAYERS",
    "Granularity",
    "ResidualGraph",
    "granularity_of",
    "graph_of",
    "kind_of",
    "layer_of",
    "node_of",
]
