"""Circuits from scores: which edges a model is to keep, from few to all, each circuit within the next.

An extraction puts the edges in an order, and a circuit of a size is the first so many of them, without those that do
nothing in it:

- `top` takes the best edges wherever they are. (EAP-IG: `apply_topn`.)
- `greedy` grows from the logits: again and again the best edge that is not in yet and whose reader is; a reader is in
  if it is `logits`, or if something that writes what it read has an edge in the circuit. (EAP-IG: `apply_greedy`.)

The best edge has the largest |score| or the largest score; among equals, the first in canonical order.

An edge does something if it is on a path from what writes by itself to `logits`. By itself writes `input`, and so does
the bias of an output projection (`a3.bias`), which no reader decides. A block writes what its readers read: what
`a3<k>` reads reaches what `a3` writes; of heads, what a head's own query and the keys and values of its group read
reaches what that head writes. As what is on no path is left out, a circuit may have fewer edges than were asked for,
or none; smaller circuits lie within larger ones all the same.

Source: Hanna et al. 2024 (arXiv:2403.17806) and its code; Mueller et al. 2025 (MIB, arXiv:2504.13151) for the sizes.
"""

import heapq
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from probing.graph import ResidualGraph

Extraction = Literal["top", "greedy"]
"""How edges are put in order; see the module."""

Best = Literal["magnitude", "score"]
"""Whether the best edge has the largest |score| or the largest score."""

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""MIB's sizes, as shares of all edges."""

_TRIES = 200
"""How often a random circuit that came to a dead end is begun anew."""

Order = Int[np.ndarray, " edge"]
Inside = Bool[np.ndarray, " edge"]


def circuits(
    graph: ResidualGraph,
    scores: Float[np.ndarray, " edge"],
    extraction: Extraction,
    best: Best,
    shares: Sequence[float],
) -> Bool[np.ndarray, "share edge"]:
    """The circuit of each share of a graph's edges, whose number is rounded down as MIB does."""
    value = np.abs(scores) if best == "magnitude" else scores
    order = np.argsort(-value, kind="stable") if extraction == "top" else _from_logits(graph, value)
    return np.array([connected(graph, _first(graph, order, share)) for share in shares]).reshape(-1, graph.size)


def _first(graph: ResidualGraph, order: Order, share: float) -> Inside:
    inside = np.zeros(graph.size, bool)
    inside[order[: int(share * graph.size + 1e-9)]] = True  # 0.29 of 100 edges are 29
    return inside


def _from_logits(graph: ResidualGraph, value: Float[np.ndarray, " edge"]) -> Order:
    """The edges in the order in which they are added from `logits` on."""
    feeds, before, ends = _feeds(graph), graph.writers_before, graph.edge_index[0]
    waiting: list[tuple[float, int]] = []
    written, read = np.zeros(len(graph.writers), bool), np.zeros(len(graph.readers), bool)

    def enter(readers: Iterable[int]) -> None:
        for reader in readers:
            if not read[reader]:
                read[reader] = True
                numbers = graph.writer_starts[: before[reader]] + reader - graph.first_readers[: before[reader]]
                for one in zip((-value[numbers]).tolist(), numbers.tolist(), strict=True):
                    heapq.heappush(waiting, one)

    enter([len(graph.readers) - 1])
    order = []
    while waiting:
        number = heapq.heappop(waiting)[1]
        order.append(number)
        writer = ends[number]
        if not written[writer]:
            written[writer] = True
            enter(np.flatnonzero(feeds[:, writer]))
    return np.array(order, int)


def connected(graph: ResidualGraph, inside: Inside) -> Inside:
    """Those of some edges that are on a path of them from what writes by itself to `logits`."""
    matrix, feeds = graph.to_matrix(inside), _feeds(graph)
    reached, leads = _by_itself(graph), _at_the_end(graph)
    for reader in range(len(graph.readers)):  # in order: all that could reach what it reads has
        if (matrix[:, reader] & reached).any():
            reached |= feeds[reader]
    for reader in reversed(range(len(graph.readers))):
        leads[reader] |= bool((matrix[feeds[reader]] & leads).any())
    writers, readers = graph.edge_index
    return inside & reached[writers] & leads[readers]


def random_circuits(
    graph: ResidualGraph, sizes: Sequence[int], rng: np.random.Generator
) -> Bool[np.ndarray, "size edge"]:
    """Random circuits of so many edges, in rising order: each within the next, and every edge on a path, as those of
    scores are.

    Edges come in random order, each with a random path to it from what is reached already, and one from it to what
    leads to `logits` already; where these are too long for the size, the next edge for which shortest ones are not.
    Of sizes that chance rarely meets, such as one edge and then two, a circuit may lack the last edge.
    """
    for _ in range(_TRIES):
        growing = _Growing(graph, rng)
        made = np.array([growing.to(size) for size in sizes]).reshape(-1, graph.size)
        if (made.sum(1) == sizes).all():
            break
    return made


class _Growing:
    """A circuit that grows; each of its edges is on a path at any time."""

    def __init__(self, graph: ResidualGraph, rng: np.random.Generator) -> None:
        self._graph, self._rng, self._feeds = graph, rng, _feeds(graph)
        self._order = rng.permutation(graph.size)
        self._inside = np.zeros(graph.size, bool)
        self._reached, self._leads = _by_itself(graph), _at_the_end(graph)

    def to(self, size: int) -> Inside:
        """Grow to so many edges, or as far as it goes; a copy of what it is then."""
        left = size - int(self._inside.sum())
        while left > 0 and not (self._reached.all() and self._leads.all()):
            path = self._path(self._next(self._inside))
            if len(path) > left:
                path = self._shortest(left)
            if not path:
                return self._inside.copy()
            self._add(path)
            left -= len(path)
        rest = self._order[~self._inside[self._order]]
        self._inside[rest[: max(0, left)]] = True
        return self._inside.copy()

    def _next(self, not_these: Inside) -> int | None:
        """The first edge in random order that is none of these."""
        place = int(np.argmin(not_these[self._order]))
        number = int(self._order[place])
        return None if not_these[number] else number

    def _path(self, number: int | None) -> list[int]:
        """An edge that is not in yet, with random paths to and from it."""
        if number is None:
            return []
        graph, found = self._graph, [number]
        writer, reader = (int(ends[number]) for ends in graph.edge_index)
        while not self._reached[writer]:
            through = int(self._rng.choice(np.flatnonzero(self._feeds[:, writer])))
            writer = int(self._rng.integers(graph.writers_before[through]))
            found.append(graph.between(writer, through))
        while not self._leads[reader]:
            through = int(self._rng.choice(np.flatnonzero(self._feeds[reader])))
            reader = int(self._rng.integers(graph.first_readers[through], len(graph.readers)))
            found.append(graph.between(through, reader))
        return found

    def _shortest(self, most: int) -> list[int]:
        """The next edge that is not in yet and needs no more than so many with it: `input` reaches everything at once,
        and everything leads to `logits`."""
        writers, readers = self._graph.edge_index
        edges = 1 + ~self._reached[writers] + ~self._leads[readers]
        number = self._next(self._inside | (edges > most))
        if number is None:
            return []
        found, writer, reader = [number], int(writers[number]), int(readers[number])
        if not self._reached[writer]:
            through = int(self._rng.choice(np.flatnonzero(self._feeds[:, writer])))
            found.append(self._graph.between(0, through))
        if not self._leads[reader]:
            through = int(self._rng.choice(np.flatnonzero(self._feeds[reader])))
            found.append(self._graph.between(through, len(self._graph.readers) - 1))
        return found

    def _add(self, path: list[int]) -> None:
        self._inside[path] = True
        writers, readers = (ends[path] for ends in self._graph.edge_index)
        self._reached |= self._feeds[readers].any(0)
        self._leads |= self._feeds[:, writers].any(1)


@lru_cache(maxsize=4)
def _feeds(graph: ResidualGraph) -> Bool[np.ndarray, "reader writer"]:
    """Whether what a reader reads decides what a writer writes."""
    feeds = np.zeros((len(graph.readers), len(graph.writers)), bool)
    fed: dict[str, list[str]] = {}
    for group, head in graph.feeds:
        fed.setdefault(group, []).append(head)
    place = {writer.node: place for place, writer in enumerate(graph.writer_records)}
    for row, reader in zip(feeds, graph.reader_records, strict=True):
        row[[place[node] for node in fed.get(reader.node, [reader.node]) if node in place]] = True
    return feeds


def _by_itself(graph: ResidualGraph) -> Bool[np.ndarray, " writer"]:
    """Whether a writer is fed by no reader: `input`, and what projections add whatever heads say."""
    return np.logical_not(_feeds(graph).any(0))


def _at_the_end(graph: ResidualGraph) -> Bool[np.ndarray, " reader"]:
    """Whether a reader feeds no writer: `logits`."""
    return np.logical_not(_feeds(graph).any(1))
