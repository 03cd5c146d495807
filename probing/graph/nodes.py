"""Writers, readers and edges, and the only place that makes names of them and reads names.

A writer is the embedding (`input`), an attention block (`a3`) or one head of it (`a3.h2`), what its output projection
adds whatever the heads say (`a3.bias`), or an MLP (`m3`). A reader is what q, k or v are made of (`a3<q>`; of one head
`a3.h2<q>`; of a group of heads that share keys and values `a3.g1<k>`), an attention block as one (`a3<qkv>`), an MLP,
or the head of the model (`logits`). An edge is `m2->a5<q>`.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["q", "k", "v", "qkv", "mlp", "logits"]

KINDS: tuple[Kind, ...] = ("q", "k", "v", "qkv", "mlp", "logits")
"""The kinds of reader, in the order they are shown."""

INPUT, LOGITS = "input", "logits"

BIAS = "bias"
"""The part of an attention block that writes what no head does."""

_ARROW = "->"
_PARTS = r"(?:\.(?P<part>h\d+|g\d+|bias))?"
_WRITER = re.compile(rf"(?P<block>input|[am]\d+){_PARTS}", re.ASCII)
_READER = re.compile(rf"(?P<block>logits|[am]\d+){_PARTS}(?:<(?P<kind>q|k|v|qkv)>)?", re.ASCII)


class _Named:
    """What stands in a block, or is one of its parts."""

    block: str
    part: str

    @property
    def layer(self) -> int | None:
        """The layer; None for `input` and `logits`."""
        return layer_of(self.block)

    @property
    def node(self) -> str:
        """The block, or that part of it which writes and reads on its own: `a5`, `a5.h3`, `a5.g1`, `m3`."""
        return f"{self.block}.{self.part}" if self.part else self.block

    @property
    def attention(self) -> bool:
        """Whether it is an attention block, or part of one."""
        return self.block.startswith("a")

    @property
    def head(self) -> int | None:
        """Which head of its block it is; None for all else."""
        return int(self.part[1:]) if self.part.startswith("h") else None


@dataclass(frozen=True)
class Writer(_Named):
    """What adds to the residual stream."""

    block: str
    """`input`, `a3` or `m3`."""
    part: str = ""
    """`h2` or `bias` of an attention block; empty for the block itself."""

    @property
    def name(self) -> str:
        """As in the module's docstring."""
        return self.node

    @staticmethod
    def of(name: str) -> "Writer":
        """The writer of that name.

        Raises:
            ValueError: none could have it.
        """
        return _writer(name)


@dataclass(frozen=True)
class Reader(_Named):
    """What reads the residual stream."""

    block: str
    """`a3`, `m3` or `logits`."""
    kind: Kind
    part: str = ""
    """`h2` or `g1` of an attention block; empty where its heads read as one."""

    @property
    def name(self) -> str:
        """As in the module's docstring."""
        return f"{self.node}<{self.kind}>" if self.attention else self.node

    @staticmethod
    def of(name: str) -> "Reader":
        """The reader of that name.

        Raises:
            ValueError: none could have it.
        """
        return _reader(name)


@dataclass(frozen=True)
class Edge:
    """From a writer to a reader that comes after it."""

    writer: Writer
    reader: Reader

    @property
    def name(self) -> str:
        """Both names, with an arrow between."""
        return edge_name(self.writer.name, self.reader.name)

    @staticmethod
    def of(name: str) -> "Edge":
        """The edge of that name.

        Raises:
            ValueError: none could have it.
        """
        writer, _, reader = name.partition(_ARROW)
        return Edge(_writer(writer), _reader(reader))


def edge_name(writer: str, reader: str) -> str:
    """The name of the edge between a writer and a reader of these names."""
    return f"{writer}{_ARROW}{reader}"


def is_edge(name: str) -> bool:
    """Whether a name is one of an edge, where it may also be one of a node."""
    return _ARROW in name


def typeset(name: str) -> str:
    """An edge's name as it is shown where nobody types it."""
    return name.replace(_ARROW, "→")


def layer_of(block: str) -> int | None:
    """The layer of a block; None for `input` and `logits`."""
    digits = block[1:]
    return int(digits) if digits.isdigit() else None


@lru_cache(maxsize=1 << 14)
def _writer(name: str) -> Writer:
    found = _WRITER.fullmatch(name)
    if found is None or (found["part"] and not found["block"].startswith("a")) or (found["part"] or "")[:1] == "g":
        raise ValueError(f"no writer is called '{name}'")
    return Writer(found["block"], found["part"] or "")


@lru_cache(maxsize=1 << 14)
def _reader(name: str) -> Reader:
    found = _READER.fullmatch(name)
    if found is None or found["block"].startswith("a") != bool(found["kind"]) or found["part"] == BIAS:
        raise ValueError(f"no reader is called '{name}'")
    for kind in KINDS:
        if found["kind"] == kind:
            return Reader(found["block"], kind, found["part"] or "")
    if found["part"]:
        raise ValueError(f"no reader is called '{name}'")
    return Reader(found["block"], "logits" if found["block"] == LOGITS else "mlp")
