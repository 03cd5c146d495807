"""Which writers, readers and edges a decoder has, at each granularity, and in which order.

The residual stream is a sum: the embedding, every attention block's output and every MLP's are *written* into it. The
projections of an attention block, the MLPs and the head *read* the sum as it stands before them. An edge joins a writer
to a reader that comes after it; a model with L layers has 4L² + 3L + 1 of them.

That is the granularity `projections`. At `blocks`, an attention block reads as one, `a3<qkv>`, and there are
2L² + 3L + 1 edges. At `heads`, each head writes on its own, and so does the bias of the output projection, which is no
head's; each head has a query that reads on its own, and each group of heads its keys and values. The gradient at a
reader is the sum of those at its parts, and what a block writes that of its heads, so an edge's score is the sum of
those that it is made of (`merge`). A block that mixes positions without queries, keys and values of its own (linear
attention, a state space) reads and writes as one at every granularity.

Scores are vectors over the edges in canonical order: writer by writer, and for each the readers in their order. A
matrix [writer, reader] is a view of them, whose other cells are structural zeros. Source: arXiv:2509.21044, section 2,
with q, k and v apart as in its code.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Int, Shaped

from probing.graph.nodes import BIAS, INPUT, KINDS, LOGITS, Edge, Kind, Reader, Writer, edge_name, is_edge
from probing.graph.shape import COARSENESS, MOST_LAYERS, Granularity, Heads


@dataclass(frozen=True)
class ResidualGraph:
    """The edges of a decoder with `layers` blocks of attention and MLP.

    `parallel` says that a layer's MLP reads the residual before the layer's attention has written to it (GPT-NeoX),
    so the edge `a3->m3` does not exist. `whole` are the layers, in order, whose attention block reads as one whatever
    the granularity. `heads` has, at the granularity of that name, each layer's, or None where they cannot be told
    apart: such a layer is as at `projections`.
    """

    layers: int
    parallel: bool = False
    granularity: Granularity = "projections"
    whole: tuple[int, ...] = ()
    heads: tuple[Heads | None, ...] = ()

    def as_text(self) -> str:
        """All that the graph is, as JSON; equal graphs have equal texts."""
        told: dict[str, Any] = {
            "layers": self.layers, "parallel": self.parallel, "granularity": self.granularity, "whole": self.whole,
        }  # fmt: skip
        if self.heads:
            told["heads"] = [one and (one.queries, one.groups, one.bias) for one in self.heads]
        return json.dumps(told)

    @staticmethod
    def from_text(text: str) -> "ResidualGraph":
        """The graph that `as_text` described.

        Raises:
            ValueError: it is no such text.
        """
        row = json.loads(text)
        try:
            heads = tuple(one and Heads(*one) for one in row.get("heads", ()))
            parts = {**row, "whole": tuple(row["whole"]), "heads": heads}
            makes_sense = ResidualGraph(**parts)._makes_sense()  # before the shared one: to its cache True is 1
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("not the shape of a graph") from error
        if not makes_sense:
            raise ValueError("not the shape of a graph")
        return graph_of(**parts)

    def _makes_sense(self) -> bool:
        return (
            type(self.layers) is int
            and 0 <= self.layers <= MOST_LAYERS
            and type(self.parallel) is bool
            and self.granularity in get_args(Granularity)
            and all(type(layer) is int and 0 <= layer < self.layers for layer in self.whole)
            and sorted(set(self.whole)) == list(self.whole)
            and len(self.heads) == (self.layers if self.granularity == "heads" else 0)
            and all(one is None or one.believable for one in self.heads)
            and not any(self.heads[layer] for layer in self.whole if self.heads)
        )

    # -- what writes and reads -------------------------------------------------------------------------------------

    @cached_property
    def _blocks(self) -> tuple[tuple[tuple[Writer, ...], tuple[Reader, ...]], ...]:
        """What writes and what reads for each layer's attention."""
        return tuple(self._attention(layer) for layer in range(self.layers))

    def _attention(self, layer: int) -> tuple[tuple[Writer, ...], tuple[Reader, ...]]:
        block, heads = f"a{layer}", self.heads[layer] if self.heads else None
        if self.granularity == "blocks" or layer in self.whole:
            return (Writer(block),), (Reader(block, "qkv"),)
        if heads is None:
            return (Writer(block),), tuple(Reader(block, kind) for kind in ("q", "k", "v"))
        queries = [f"h{head}" for head in range(heads.queries)]
        groups = queries if heads.groups == heads.queries else [f"g{group}" for group in range(heads.groups)]
        parts = [*queries, BIAS] if heads.bias else queries
        readers = [Reader(block, "q", query) for query in queries]
        readers += [Reader(block, kind, group) for kind in ("k", "v") for group in groups]
        return tuple(Writer(block, part) for part in parts), tuple(readers)

    @cached_property
    def writer_records(self) -> tuple[Writer, ...]:
        """The writers in the order they write."""
        blocks = ((*writers, Writer(f"m{layer}")) for layer, (writers, _) in enumerate(self._blocks))
        return (Writer(INPUT), *(writer for block in blocks for writer in block))

    @cached_property
    def reader_records(self) -> tuple[Reader, ...]:
        """The readers in the order they read."""
        blocks = ((*readers, Reader(f"m{layer}", "mlp")) for layer, (_, readers) in enumerate(self._blocks))
        return (*(reader for block in blocks for reader in block), Reader(LOGITS, "logits"))

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Names of the writers in the order they write: `input`, `a0`, `m0`, `a1`, ..."""
        return tuple(writer.name for writer in self.writer_records)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers in the order they read: `a0<q>`, `a0<k>`, `a0<v>`, `m0`, ..., `logits`."""
        return tuple(reader.name for reader in self.reader_records)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks that write or read: `input`, `a0`, `m0`, ..., `logits`."""
        return (*dict.fromkeys(writer.block for writer in self.writer_records), LOGITS)

    @cached_property
    def nodes(self) -> dict[str, tuple[str, ...]]:
        """The nodes that each block is made of: itself, or its heads, its bias and its groups."""
        made: dict[str, dict[str, None]] = {block: {} for block in self.blocks}
        for one in (*self.writer_records, *self.reader_records):
            made[one.block][one.node] = None
        return {block: tuple(nodes) for block, nodes in made.items()}

    @cached_property
    def block_of(self) -> dict[str, str]:
        """The block that each block and each node is, or is part of."""
        blocks = {node: block for block, nodes in self.nodes.items() for node in nodes}
        return {block: block for block in self.blocks} | blocks

    def parts(self, name: str) -> tuple[str, ...]:
        """The nodes that a block is made of, or the node of that name alone."""
        return self.nodes.get(name, (name,))

    @cached_property
    def feeds(self) -> tuple[tuple[str, str], ...]:
        """Each group of keys and values, and each head that writes what it read; a head that reads all alone is not
        listed."""
        found = []
        for layer, heads in enumerate(self.heads):
            if heads and heads.groups < heads.queries:
                readers = {reader.part: reader.node for reader in self._blocks[layer][1]}
                each = heads.queries // heads.groups
                found += [(readers[f"g{head // each}"], readers[f"h{head}"]) for head in range(heads.queries)]
        return tuple(found)

    @cached_property
    def _starts(self) -> tuple[list[int], list[int]]:
        """The places of each layer's first writer and first reader."""
        writers, readers = [1], [0]
        for written, read in self._blocks:
            writers.append(writers[-1] + len(written) + 1)
            readers.append(readers[-1] + len(read) + 1)
        return writers, readers

    def attention_readers(self, layer: int) -> range:
        """The places in `readers` of what reads for a layer's attention block."""
        return range(self._starts[1][layer], self.mlp_reader(layer))

    def mlp_reader(self, layer: int) -> int:
        """The place of a layer's MLP in `readers`."""
        return self._starts[1][layer + 1] - 1

    def attention_writers(self, layer: int) -> range:
        """The places in `writers` of what writes for a layer's attention block."""
        return range(self._starts[0][layer], self.mlp_writer(layer))

    def mlp_writer(self, layer: int) -> int:
        """The place of a layer's MLP in `writers`."""
        return self._starts[0][layer + 1] - 1

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of reader that there are, in the order of `KINDS`."""
        there = {reader.kind for reader in self.reader_records}
        return tuple(kind for kind in KINDS if kind in there)

    # -- edges -----------------------------------------------------------------------------------------------------

    @cached_property
    def writers_before(self) -> Int[np.ndarray, " reader"]:
        """How many of `writers` have written when each reader reads; never fewer than for the reader before it."""
        before = [
            count
            for layer, (_, readers) in enumerate(self._blocks)
            for count in (
                *(self.attention_writers(layer).start,) * len(readers),
                self.attention_writers(layer).start if self.parallel else self.mlp_writer(layer),
            )
        ]
        return np.array([*before, len(self.writers)])

    @cached_property
    def first_readers(self) -> Int[np.ndarray, " writer"]:
        """The place of the first reader of each writer; all after it read it too."""
        return np.searchsorted(self.writers_before, np.arange(len(self.writers)), side="right")

    @cached_property
    def writer_starts(self) -> Int[np.ndarray, " writer"]:
        """The number of each writer's first edge."""
        return np.concatenate([[0], np.cumsum(len(self.readers) - self.first_readers)[:-1]])

    @cached_property
    def size(self) -> int:
        """How many edges there are."""
        return int(self.writers_before.sum())

    @cached_property
    def mask(self) -> Bool[np.ndarray, "writer reader"]:
        """True where an edge exists."""
        return np.arange(len(self.writers))[:, None] < self.writers_before[None, :]

    @cached_property
    def edge_index(self) -> tuple[Int[np.ndarray, " edge"], Int[np.ndarray, " edge"]]:
        """Places of every edge's writer and reader, in canonical order."""
        writer, reader = np.nonzero(self.mask)
        return writer.astype(np.int32), reader.astype(np.int32)

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names of the edges in canonical order, such as `m2->a5<q>`; of a large graph, better `names` of some."""
        return tuple(self.names(np.arange(self.size)))

    def names(self, numbers: Iterable[int]) -> list[str]:
        """The names of some edges."""
        writer, reader = self.edge_index
        return [edge_name(self.writers[writer[number]], self.readers[reader[number]]) for number in numbers]

    def out_of(self, name: str) -> Int[np.ndarray, " some"]:
        """The numbers of the edges that leave a block or a node."""
        parts = self.parts(name)
        return np.flatnonzero(np.array([writer.node in parts for writer in self.writer_records])[self.edge_index[0]])

    def into(self, name: str) -> Int[np.ndarray, " some"]:
        """The numbers of the edges that enter a block or a node."""
        parts = self.parts(name)
        return np.flatnonzero(np.array([reader.node in parts for reader in self.reader_records])[self.edge_index[1]])

    def knows(self, name: str) -> bool:
        """Whether a block, a node or an edge has this name."""
        if not is_edge(name):
            return name in self.block_of
        try:
            self.number(name)
        except ValueError:
            return False
        return True

    def number(self, name: str) -> int:
        """The number of an edge, which is its place in canonical order.

        Raises:
            ValueError: the graph has no such edge.
        """
        edge = Edge.of(name)
        try:
            writer, reader = self._writer_place[edge.writer.name], self._reader_place[edge.reader.name]
        except KeyError as error:
            raise ValueError(f"this graph has no edge '{name}'") from error
        if reader < self.first_readers[writer]:
            raise ValueError(f"this graph has no edge '{name}'")
        return self.between(writer, reader)

    def between(self, writer: int, reader: int) -> int:
        """The number of the edge between a writer and a reader at these places."""
        return int(self.writer_starts[writer] + reader - self.first_readers[writer])

    @cached_property
    def _writer_place(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.writers)}

    @cached_property
    def _reader_place(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.readers)}

    def to_edges(self, matrix: Shaped[np.ndarray, "*sample writer reader"]) -> Shaped[np.ndarray, "*sample edge"]:
        """The real edges of a matrix, in canonical order."""
        writer, reader = self.edge_index
        return matrix[..., writer, reader]

    def to_matrix(self, edges: Shaped[np.ndarray, "*sample edge"]) -> Shaped[np.ndarray, "*sample writer reader"]:
        """The matrix of a vector over edges, with structural zeros in the other cells."""
        matrix = np.zeros((*edges.shape[:-1], *self.mask.shape), edges.dtype)
        writer, reader = self.edge_index
        matrix[..., writer, reader] = edges
        return matrix

    # -- granularities ---------------------------------------------------------------------------------------------

    def at(self, granularity: Granularity) -> "ResidualGraph":
        """The same model's graph at this granularity or a coarser one.

        Raises:
            ValueError: it is a finer one.
        """
        if COARSENESS[granularity] < COARSENESS[self.granularity]:
            raise ValueError(f"a graph of {self.granularity} does not know {granularity}")
        heads = self.heads if granularity == "heads" else ()
        return graph_of(self.layers, self.parallel, granularity, self.whole, heads)

    def merge(
        self, edges: Shaped[np.ndarray, "*sample edge"], granularity: Granularity
    ) -> Shaped[np.ndarray, "*sample merged"]:
        """Scores of the edges of `at(granularity)`: sums over those that each is made of, in float64."""
        merged = self.at(granularity)
        if merged == self:
            return edges
        place = self.places_in(merged)
        rows = edges.reshape(-1, self.size)
        sums = [np.bincount(place, row, merged.size) for row in rows]
        return np.array(sums, edges.dtype).reshape(*edges.shape[:-1], merged.size)

    def parts_of(self, edges: Iterable[int], granularity: Granularity) -> Int[np.ndarray, " edge"]:
        """The edges that some edges of `at(granularity)`, by their numbers, are made of."""
        merged = self.at(granularity)
        numbers = np.fromiter(edges, int)
        return numbers if merged == self else np.flatnonzero(np.isin(self.places_in(merged), numbers))

    def ungrouped(self) -> "ResidualGraph":
        """The graph of heads alone: each with keys and values of its own, as many in every layer, and no biases."""
        most = max((one.queries for one in self.heads if one), default=1)
        return graph_of(self.layers, self.parallel, "heads", (), (Heads(most, most),) * self.layers)

    def holding(self, name: str) -> int:
        """The number of the edge that another graph's edge of that name is, or is part of.

        Raises:
            ValueError: there is none.
        """
        edge = Edge.of(name)
        writer, reader = self._holding_writer(edge.writer), self._holding_reader(edge.reader)
        if min(writer, reader) < 0 or reader < self.first_readers[writer]:
            raise ValueError(f"this graph has no edge '{name}'")
        return self.between(writer, reader)

    def places_in(self, other: "ResidualGraph") -> Int[np.ndarray, " edge"]:
        """The number in another graph of the edge that each of this one's is, or is part of; -1 without one."""
        to_writer = np.array([other._holding_writer(writer) for writer in self.writer_records])
        to_reader = np.array([other._holding_reader(reader) for reader in self.reader_records])
        writer, reader = self.edge_index
        w, r = to_writer[writer], to_reader[reader]
        there = (w >= 0) & (r >= other.first_readers[w])
        return np.where(there, other.writer_starts[w] + r - other.first_readers[w], -1)

    def _holding_writer(self, writer: Writer) -> int:
        """The place of the writer that another graph's is, or is part of; -1 without one."""
        return self._writer_place.get(writer.name, self._writer_place.get(writer.block, -1))

    def _holding_reader(self, reader: Reader) -> int:
        """The same of a reader: the place of itself, its group, the block's of its kind, or the block as one."""
        block, kind = reader.block, reader.kind
        there = [reader, Reader(block, kind), Reader(block, "qkv")]
        layer, head = reader.layer, reader.head
        if layer is not None and layer < len(self.heads) and (heads := self.heads[layer]) and head is not None:
            there.insert(1, Reader(block, kind, f"g{head * heads.groups // heads.queries}"))
        return next((self._reader_place[one.name] for one in there if one.name in self._reader_place), -1)


@lru_cache(maxsize=64)
def graph_of(
    layers: int,
    parallel: bool = False,
    granularity: Granularity = "projections",
    whole: tuple[int, ...] = (),
    heads: tuple[Heads | None, ...] = (),
) -> ResidualGraph:
    """The shared instance for a model's shape."""
    return ResidualGraph(layers, parallel, granularity, whole, heads)


def granularity_of(readers: Sequence[Reader]) -> Granularity:
    """The granularity of a graph with these readers, where nothing else says it."""
    if any(reader.part for reader in readers):
        return "heads"
    return "blocks" if any(reader.kind == "qkv" for reader in readers) else "projections"
