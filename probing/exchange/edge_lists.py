"""Edges that are named one by one, as a table or another program has them."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from probing.errors import CircuitError
from probing.graph import BIAS, MOST_LAYERS, Edge, Granularity, Heads, ResidualGraph, graph_of

_FEWEST = 100
"""How many times more edges a graph may have than are named, for the first missing one to be looked for."""


def graph_of_edges(names: Iterable[str]) -> ResidualGraph:
    """The graph that has these edges and no others.

    Raises:
        CircuitError: a name is no edge's, or no graph has just these edges; the first is named that is missing.
    """
    there = set(names)
    try:
        edges = [Edge.of(name) for name in there]
    except ValueError as error:
        raise CircuitError(f"There is no edge as one is named here: {error}.", "An edge is 'm2->a5<q>'.") from error
    readers = {edge.reader for edge in edges}
    layers = 1 + max((reader.layer for reader in readers if reader.layer is not None), default=-1)
    if layers > min(MOST_LAYERS, len(readers)):
        raise CircuitError(f"Edges into {len(readers)} readers are not those of {layers} layers.", "Give them all.")
    parts: list[dict[str, set[str]]] = [{} for _ in range(layers)]
    for reader in readers:
        if reader.attention and reader.layer is not None:
            parts[reader.layer].setdefault(reader.kind, set()).add(reader.part)
    biased = {edge.writer.layer for edge in edges if edge.writer.part == BIAS}
    whole = tuple(layer for layer, of in enumerate(parts) if "qkv" in of)
    heads = tuple(
        Heads(len(of.get("q", "")), len(of.get("k", "")), layer in biased) if of.get("q", {""}) != {""} else None
        for layer, of in enumerate(parts)
    )
    parallel = layers > 0 and not any(
        edge.writer.attention and edge.writer.layer == edge.reader.layer for edge in edges
    )
    granularity: Granularity = "heads" if any(heads) else "blocks" if len(whole) == layers > 0 else "projections"
    if not all(one is None or one.believable for one in heads):
        raise CircuitError("The edges are not those of heads that share keys and values evenly.", "Give them all.")
    graph = graph_of(
        layers, parallel, granularity, () if granularity == "blocks" else whole, heads if any(heads) else ()
    )
    check_near(graph, len(there))
    if graph.size > len(there):
        missing = next(name for name in graph.edges if name not in there)
        raise CircuitError(f"There is no edge '{missing}' among those given.", "Give all edges of the graph.")
    numbers_of(graph, list(there))
    return graph


def check_near(graph: ResidualGraph, named: int) -> None:
    """Raise a CircuitError if far fewer edges are named than a graph has, whose names are then not made."""
    if graph.size > _FEWEST * max(named, 1):
        raise CircuitError(f"There are {named:,} edges of {graph.size:,}.", "Give all edges of the graph.")


def numbers_of(graph: ResidualGraph, names: Sequence[str]) -> Int[np.ndarray, " name"]:
    """The number of the edge of each name.

    Raises:
        CircuitError: the graph has no edge of a name; the first is named.
    """
    place = {name: number for number, name in enumerate(graph.edges)}
    numbers = np.fromiter((place.get(name, -1) for name in names), int, len(names))
    if (numbers < 0).any():
        unknown = str(names[int(np.argmax(numbers < 0))])
        raise CircuitError(f"The graph has no edge '{unknown[:60]}'.", "Choose the graph that the edges are of.")
    return numbers


def in_order(
    graph: ResidualGraph, numbers: Int[np.ndarray, " row"], scores: Float[np.ndarray, " row"], of: str = ""
) -> Float[np.ndarray, " edge"]:
    """The scores of all edges in canonical order, given each once with its number; `of` says whose they are.

    Raises:
        CircuitError: an edge is twice there, is missing, or has no finite score; the first is named.
    """
    count = np.bincount(numbers, minlength=graph.size)
    if count.max(initial=0) > 1:
        _, first = np.unique(numbers, return_index=True)
        again = np.setdiff1d(np.arange(len(numbers)), first)[0]
        raise CircuitError(f"The edge '{graph.names([numbers[again]])[0]}'{of} is there twice.", "Give each edge once.")
    if not count.all():
        missing = graph.names([int(np.argmin(count))])[0]
        raise CircuitError(f"The edge '{missing}'{of} is missing.", "Give all edges of the graph.")
    if not np.isfinite(scores).all():
        strange = graph.names([numbers[int(np.argmin(np.isfinite(scores)))]])[0]
        raise CircuitError(f"The edge '{strange}'{of} has no finite score.", "Score it again.")
    ordered = np.empty(graph.size, scores.dtype)
    ordered[numbers] = scores
    return ordered
