"""A circuit in the graph of heads alone that other programs have, and back.

Their nodes are attention heads and MLPs, as many heads in every layer, and every head has keys and values of its own.
What is one edge here and several there is given to each of those in equal shares; what they have and we have not scores
zero; what the bias of an output projection writes is no node there, so those edges are left out.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from probing.graph import ResidualGraph


@dataclass(frozen=True)
class Shares:
    """How the edges of one graph are divided among those of a finer one."""

    graph: ResidualGraph
    theirs: ResidualGraph

    @staticmethod
    def of_heads(graph: ResidualGraph) -> "Shares":
        """Those among the heads alone; a block that has none is its only one."""
        return Shares(graph, graph.ungrouped())

    @property
    def heads(self) -> int:
        """Of each of their layers."""
        return max((one.queries for one in self.theirs.heads if one), default=1)

    @cached_property
    def owner(self) -> Int[np.ndarray, " theirs"]:
        """The edge of ours that each of theirs is part of; -1 for what ours has not."""
        return self.theirs.places_in(self.graph)

    @cached_property
    def parts(self) -> Int[np.ndarray, " edge"]:
        """How many of theirs each edge of ours is."""
        return np.bincount(self.owner[self.owner >= 0], minlength=self.graph.size)

    @property
    def left_out(self) -> Int[np.ndarray, " left"]:
        """The edges of ours that theirs has not."""
        return np.flatnonzero(self.parts == 0)

    def split(self, scores: Float[np.ndarray, " edge"]) -> Float[np.ndarray, " theirs"]:
        """Each of theirs with its share of a score."""
        return np.where(self.owner >= 0, scores[self.owner] / np.maximum(self.parts[self.owner], 1), 0.0)

    def spread(self, inside: Bool[np.ndarray, " edge"]) -> Bool[np.ndarray, " theirs"]:
        """Each of theirs that is part of a marked edge."""
        return (self.owner >= 0) & inside[self.owner]

    def join(
        self, theirs: Float[np.ndarray, " theirs"], left: Float[np.ndarray, " left"]
    ) -> Float[np.ndarray, " edge"]:
        """The sum of each edge's shares, and of those left out their own; of marks, how many are set."""
        owner = np.concatenate([self.owner, self.left_out])
        there = owner >= 0
        return np.bincount(owner[there], np.concatenate([theirs, left])[there], self.graph.size)
