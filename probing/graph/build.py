"""Writers, readers and edges of a pre-norm decoder: their names, their order and which edges exist.

The residual stream is a sum: the embedding (`input`), every attention block's output (`a0`, `a1`, ...) and every
MLP's (`m0`, `m1`, ...) are *written* into it. The projections of an attention block (`a3<q>`, `a3<k>`, `a3<v>`), the
MLPs (`m3`) and the head (`logits`) *read* the sum as it stands before them. An edge joins a writer to a reader that
comes after it; a model with L layers has 4L² + 3L + 1 of them.

The coarser granularity takes an attention block as one reader, `a3<qkv>`, and has 2L² + 3L + 1 edges. The gradient at
that reader is the sum of those at its projections, so an edge's score is the sum of the three (`merge`). A block that
mixes positions without queries, keys and values of its own (linear attention, a state space) reads as one at either
granularity.

Scores live in a matrix [writer, reader] whose other cells are structural zeros, or in a vector over `edges`, which
goes through that matrix row by row. Source: arXiv:2509.21044, section 2, with q, k and v apart as in its code.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int, Shaped

Granularity = Literal["projections", "blocks"]
"""Whether the projections of an attention block read apart from each other, or the block as one."""

MOST_LAYERS = 1000
"""Of a model that is believed."""

_APART, _TOGETHER = ("q", "k", "v"), ("qkv",)
"""What may read for an attention block."""


@dataclass(frozen=True)
class ResidualGraph:
    """The edges of a decoder with `layers` blocks of attention and MLP.

    `parallel` says that a layer's MLP reads the residual before the layer's attention has written to it (GPT-NeoX),
    so the edge `a3->m3` does not exist. `whole` are the layers, in order, whose attention block reads as one whatever
    the granularity.
    """

    layers: int
    parallel: bool = False
    granularity: Granularity = "projections"
    whole: tuple[int, ...] = ()

    def as_text(self) -> str:
        """All that the graph is, as JSON; equal graphs have equal texts."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_text(text: str) -> "ResidualGraph":
        """The graph that `as_text` described.

        Raises:
            ValueError: it is no such text.
        """
        row = json.loads(text)
        try:
            graph = graph_of(**{**row, "whole": tuple(row["whole"])})
        except (TypeError, KeyError) as error:
            raise ValueError("not the shape of a graph") from error
        if not graph._makes_sense():
            raise ValueError("not the shape of a graph")
        return graph

    def _makes_sense(self) -> bool:
        return (
            type(self.layers) is int
            and 0 <= self.layers <= MOST_LAYERS
            and type(self.parallel) is bool
            and self.granularity in get_args(Granularity)
            and all(type(layer) is int and 0 <= layer < self.layers for layer in self.whole)
            and sorted(set(self.whole)) == list(self.whole)
        )

    def _parts(self, layer: int) -> tuple[str, ...]:
        """What reads for a layer's attention block."""
        return _TOGETHER if self.granularity == "blocks" or layer in self.whole else _APART

    def attention_readers(self, layer: int) -> range:
        """The places in `readers` of what reads for a layer's attention block; its MLP's is the one after them."""
        first = self.readers.index(f"a{layer}<{self._parts(layer)[0]}>")
        return range(first, first + len(self._parts(layer)))

    def mlp_reader(self, layer: int) -> int:
        """The place of a layer's MLP in `readers`."""
        return self.attention_readers(layer).stop

    def attention_writer(self, layer: int) -> int:
        """The place of a layer's attention block in `writers`; its MLP's is the one after it."""
        return self.writers.index(f"a{layer}")

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Names of the writers in the order they write: `input`, `a0`, `m0`, `a1`, ..."""
        return ("input", *(name for layer in range(self.layers) for name in (f"a{layer}", f"m{layer}")))

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers in the order they read: `a0<q>`, `a0<k>`, `a0<v>`, `m0`, ..., `logits`."""
        blocks = ((*(f"a{layer}<{part}>" for part in self._parts(layer)), f"m{layer}") for layer in range(self.layers))
        return (*(name for block in blocks for name in block), "logits")

    @cached_property
    def writers_before(self) -> Int[np.ndarray, " reader"]:
        """How many of `writers` have written when each reader reads."""
        before = [
            count
            for layer in range(self.layers)
            for count in (*(1 + 2 * layer,) * len(self._parts(layer)), 1 + 2 * layer + (not self.parallel))
        ]
        return np.array([*before, 1 + 2 * self.layers])

    @cached_property
    def mask(self) -> Bool[np.ndarray, "writer reader"]:
        """True where an edge exists."""
        return np.arange(len(self.writers))[:, None] < self.writers_before[None, :]

    @cached_property
    def edge_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Writer and reader index of every edge, in canonical order."""
        writer, reader = np.nonzero(self.mask)
        return writer, reader

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names of the edges in canonical order, such as `m2->a5<q>`."""
        return tuple(f"{self.writers[w]}->{self.readers[r]}" for w, r in zip(*self.edge_index, strict=True))

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of reader that there are, in the order of `KINDS`."""
        return tuple(kind for kind in KINDS if kind in {kind_of(reader) for reader in self.readers})

    @property
    def together(self) -> "ResidualGraph":
        """The same model's graph with each attention block as one reader."""
        return graph_of(self.layers, self.parallel, "blocks", self.whole)

    def merge(self, matrix: Shaped[np.ndarray, "*sample writer reader"]) -> Shaped[np.ndarray, "*sample writer block"]:
        """Scores of the edges of `together`: sums over the projections of each attention block."""
        places = {node_of(name): place for place, name in enumerate(self.together.readers)}
        target = [places[node_of(name)] for name in self.readers]
        merged = np.zeros((*matrix.shape[:-1], len(self.together.readers)), matrix.dtype)
        for reader, block in enumerate(target):
            merged[..., block] += matrix[..., reader]
        return merged

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


@lru_cache(maxsize=64)
def graph_of(
    layers: int, parallel: bool = False, granularity: Granularity = "projections", whole: tuple[int, ...] = ()
) -> ResidualGraph:
    """The shared instance for a model's shape."""
    return ResidualGraph(layers, parallel, granularity, whole)


def granularity_of(names: Iterable[str]) -> Granularity:
    """The granularity of a graph with edges or readers of these names, where nothing else says it."""
    return "blocks" if any("<qkv>" in name for name in names) else "projections"


def node_of(reader: str) -> str:
    """The node that a reader belongs to: `a5` for `a5<q>`, itself otherwise."""
    return reader.split("<")[0]


def kind_of(reader: str) -> str:
    """What sort of reader it is, one of `KINDS`."""
    if reader == "logits":
        return "logits"
    return reader.partition("<")[2].rstrip(">") or "mlp"


def layer_of(name: str) -> int | None:
    """The layer of a writer or reader; None for `input` and `logits`."""
    digits = node_of(name)[1:]
    return int(digits) if digits.isdigit() else None


KINDS = ("q", "k", "v", "qkv", "mlp", "logits")
"""The kinds of reader, in the order they are shown."""
