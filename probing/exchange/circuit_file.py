"""What a circuit's file holds."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probing.edge_tables import EDGE_VALUES
from probing.errors import CircuitError
from probing.graph import BIAS, Edge, ResidualGraph
from probing.scores import Scores


@dataclass(frozen=True)
class CircuitFile:
    """A graph with a score for each edge, some edges of which are the circuit."""

    graph: ResidualGraph
    scores: Float[np.ndarray, " edge"]
    """In the graph's canonical order, as all that follows."""
    inside: Bool[np.ndarray, " edge"]
    """Whether the edge is in the circuit."""
    values: pd.DataFrame | None = None
    """`EDGE_VALUES` of each edge, where the file has them."""
    width: int = 0
    """The model's, where it is known."""

    @staticmethod
    def shown(graph: ResidualGraph, table: pd.DataFrame, edges: Collection[str], beside: bool = True) -> "CircuitFile":
        """Some edges of a comparison's edge table, with the tuned model's effects as scores.

        `beside` says whether `EDGE_VALUES` go along, which make a file seven times as large.
        """
        values = table[list(EDGE_VALUES)].reset_index(drop=True) if beside else None
        return CircuitFile(graph, table["tuned_effect"].to_numpy(), table["edge"].isin(edges).to_numpy(), values)

    @staticmethod
    def mean(scores: Scores) -> "CircuitFile":
        """The mean score of every edge over the samples; `strongest` of that makes a circuit."""
        graph = scores.graph
        return CircuitFile(graph, scores.edges.mean(0, dtype=np.float64), np.zeros(graph.size, bool))

    @property
    def members(self) -> set[str]:
        """The names of the edges in the circuit."""
        return set(self.graph.names(np.flatnonzero(self.inside)))

    def strongest(self, n: int) -> "CircuitFile":
        """The circuit of the `n` edges with the largest |score| instead; of value zero are none."""
        size = np.abs(self.scores)
        inside = np.zeros(self.graph.size, bool)
        inside[np.argsort(-size, kind="stable")[:n]] = True
        return replace(self, inside=inside & (size > 0))

    def as_graph(self) -> nx.MultiDiGraph:
        """The circuit's edges; the key of each is its name, its attributes are `writer`, `reader` and `score`."""
        graph, numbers = nx.MultiDiGraph(), np.flatnonzero(self.inside)
        for name, score in zip(self.graph.names(numbers), self.scores[numbers].tolist(), strict=True):
            edge = Edge.of(name)
            ends = {"writer": edge.writer.name, "reader": edge.reader.name}
            graph.add_edge(edge.writer.node, edge.reader.node, key=name, **ends, score=score)
        return graph

    def within(self, graph: ResidualGraph) -> "CircuitFile":
        """The same circuit in another graph of the model, whose edges are this one's or sums of them.

        An edge is in the circuit if one that it is made of is. Heads of others' graphs have keys and values of their
        own, and there are no biases.

        Raises:
            CircuitError: the graphs are not of one model, or this one is the coarser.
        """
        if graph == self.graph:
            return self
        place = self.graph.places_in(graph)
        made = np.bincount(place[place >= 0], minlength=graph.size) > 0
        without_parts = graph.edge_index[0][~made]
        if (place < 0).any() or any(graph.writer_records[writer].part != BIAS for writer in np.unique(without_parts)):
            raise CircuitError(
                f"The circuit's graph ({_told(self.graph)}) is not this pair's ({_told(graph)}), nor a finer one.",
                "Choose the pair that it came from.",
            )
        scores, inside = (np.bincount(place, of, graph.size) for of in (self.scores, self.inside))
        return CircuitFile(graph, scores, inside > 0, width=self.width)


def _told(graph: ResidualGraph) -> str:
    """A graph in few words."""
    heads = max((one.queries for one in graph.heads if one), default=0)
    parts = [f"{graph.layers} layers", f"{heads} heads in each" if heads else graph.granularity]
    return ", ".join([*parts, "attention and MLP side by side"] if graph.parallel else parts)
