"""TransformerLens's names for what writes and what reads, and the edges of its attribution patching.

An activation of TransformerLens has a name, and a place for each head where it is one of heads. What a writer writes is
the activation at its hook; an edge's score against zero is minus that, times the gradient at the reader's hook, summed
over positions and width, and over heads where a reader is of all of them. docs/exchange.md has the table, and what was
measured. It holds for weights as they are in the checkpoint, as `TransformerBridge.boot_transformers` has them. An
output projection's bias has no hook: its parameter's name stands for it. Where a block's output goes through a norm of
its own (Gemma 2), `hook_result` is before that norm, and heads of ours have no hook.

TransformerLens 4 scores edges itself: `attribution_patch(..., EdgeAttributionConfig(granularity="edge"))` gives
`edge_scores`, a dictionary of (writer, reader), each a `Node` of a kind, layer, head and position. Its score is
(clean − corrupt) · gradient of the metric in the corrupt run. Ours against a counterpart (`--reference patch`) is the
same number where its `corrupt` is our text, its `clean` our counterpart and its metric our loss. Source:
TransformerLens 4.3, `tools/analysis/attribution_patching.py`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd

from probing.errors import CircuitError
from probing.exchange.circuit_file import CircuitFile
from probing.exchange.edge_lists import graph_of_edges, numbers_of
from probing.exchange.frames import circuit_of_rows, column, numbers_in
from probing.exchange.shares import Shares
from probing.graph import BIAS, Reader, ResidualGraph, Writer, edge_name


@dataclass(frozen=True)
class Hook:
    """An activation of TransformerLens, or one head of it."""

    name: str
    head: int | None = None


def writer_hooks(graph: ResidualGraph) -> dict[str, Hook]:
    """Where TransformerLens has what each writer writes, by the writer's name and in the graph's order."""
    return {writer.name: _written_at(writer) for writer in graph.writer_records}


def reader_hooks(graph: ResidualGraph) -> dict[str, Hook]:
    """Where TransformerLens has what each reader reads, by the reader's name and in the graph's order."""
    return {reader.name: _read_at(reader, graph.layers) for reader in graph.reader_records}


def writer_at(graph: ResidualGraph, name: str, head: int | None = None) -> str:
    """The writer whose hook it is, by any of TransformerLens's names for it.

    Raises:
        CircuitError: there is none.
    """
    return _found({hook: writer for writer, hook in writer_hooks(graph).items()}, name, head, "writes")


def reader_at(graph: ResidualGraph, name: str, head: int | None = None) -> str:
    """The reader whose hook it is, by any of TransformerLens's names for it.

    Raises:
        CircuitError: there is none.
    """
    return _found({hook: reader for reader, hook in reader_hooks(graph).items()}, name, head, "reads")


def _written_at(writer: Writer) -> Hook:
    if writer.layer is None:
        return Hook("blocks.0.hook_resid_pre")
    block = f"blocks.{writer.layer}"
    if not writer.attention:
        return Hook(f"{block}.hook_mlp_out")
    if writer.part == BIAS:
        return Hook(f"{block}.attn.b_O")
    return Hook(f"{block}.attn.hook_result", writer.head) if writer.part else Hook(f"{block}.hook_attn_out")


def _read_at(reader: Reader, layers: int) -> Hook:
    if reader.layer is None:
        return Hook(f"blocks.{layers - 1}.hook_resid_post")
    block = f"blocks.{reader.layer}"
    if not reader.attention:
        return Hook(f"{block}.hook_mlp_in")
    if reader.kind == "qkv":
        return Hook(f"{block}.hook_attn_in")
    return Hook(f"{block}.hook_{reader.kind}_input", int(reader.part[1:]) if reader.part else None)


_OTHER_NAMES = {
    r"hook_embed": "blocks.0.hook_resid_pre",
    r"(blocks\.\d+\.)attn\.(hook_[qkv]_input|hook_attn_in)": r"\1\2",
    r"(blocks\.\d+\.attn\.)hook_z": r"\1hook_result",
    r"(blocks\.\d+\.)attn\.hook_out": r"\1hook_attn_out",
    r"(blocks\.\d+\.)mlp\.hook_out": r"\1hook_mlp_out",
}
"""What TransformerLens also calls the same, and the name that is used here; a head is the same head at `hook_z`."""


def _found(named: Mapping[Hook, str], name: str, head: int | None, does: str) -> str:
    said = name
    for pattern, ours in _OTHER_NAMES.items():
        if other := re.fullmatch(pattern, name):
            said = other.expand(ours)
    hook = Hook(said, head)
    if hook not in named:
        of = "" if head is None else f" of head {head}"
        raise CircuitError(
            f"Nothing in this graph {does} at '{name[:60]}'{of}.", "writer_hooks and reader_hooks say all."
        )
    return named[hook]


# -- edges by the names of hooks ---------------------------------------------------------------------------------------


def to_hook_frame(circuit: CircuitFile) -> pd.DataFrame:
    """A circuit as one row for each edge, in canonical order: `sender_hook`, `sender_head`, `receiver_hook`,
    `receiver_head` (whole numbers, missing where the hook has no heads or all count), `score` and `in_circuit`."""
    graph = circuit.graph
    places = zip(("sender", "receiver"), (writer_hooks(graph), reader_hooks(graph)), graph.edge_index, strict=True)
    frame = pd.DataFrame()
    for end, hooks, place in places:
        all_of_them = list(hooks.values())
        frame[f"{end}_hook"] = [all_of_them[number].name for number in place]
        frame[f"{end}_head"] = pd.array([all_of_them[number].head for number in place], dtype="Int64")
    return frame.assign(score=circuit.scores, in_circuit=circuit.inside)


def from_hook_frame(frame: pd.DataFrame, graph: ResidualGraph) -> CircuitFile:
    """The circuit in rows as `to_hook_frame` makes them, in any order; none is in it without `in_circuit`.

    Raises:
        CircuitError: a column is missing, nothing of the graph is at a hook, or an edge is missing, twice there or
            without a finite score; the first is named.
    """
    ends = []
    for end, at in (("sender", writer_at), ("receiver", reader_at)):
        told = numbers_in(frame, f"{end}_head")
        if np.isinf(told).any() or (told % 1 > 0).any():
            raise CircuitError(f"The column '{end}_head' has something else than whole numbers.", "Give whole numbers.")
        heads = [None if np.isnan(head) else int(head) for head in told]
        keys = list(zip(map(str, column(frame, f"{end}_hook")), heads, strict=True))
        named = {key: at(graph, *key) for key in dict.fromkeys(keys)}
        ends.append([named[key] for key in keys])
    return circuit_of_rows(frame, graph, numbers_of(graph, [edge_name(*both) for both in zip(*ends, strict=True)]))


# -- the edges of its attribution patching -----------------------------------------------------------------------------


class Node(Protocol):
    """TransformerLens's `tools.analysis.Node`, which is what its edges join."""

    @property
    def kind(self) -> str:
        """`embed`, `attn_head_out` or `mlp_out` of what writes; `q_input`, …, `mlp_in` or `logits` of what reads."""

    @property
    def position(self) -> int:
        """The token."""

    @property
    def layer(self) -> int | None:
        """None for `embed`; of `logits` the last one."""

    @property
    def head(self) -> int | None:
        """None for what is no head's."""


One = TypeVar("One")


def from_edge_scores(edge_scores: Mapping[tuple[Node, Node], float]) -> CircuitFile:
    """What `attribution_patch` of TransformerLens found, summed over positions; no edge is in the circuit.

    The graph is that of the edges; `within` puts it into a model's own, which may have biases, whose difference from a
    counterpart is zero.

    Raises:
        CircuitError: nodes are of kinds that are not known, or there is not every edge at every position once.
    """
    names, scores, positions = [], [], set()
    for (writer, reader), score in edge_scores.items():
        if writer.position != reader.position:
            raise CircuitError("An edge joins two positions.", "Give the edge_scores of attribution_patch.")
        names.append(edge_name(_their_writer(writer), _their_reader(reader)))
        scores.append(float(score))
        positions.add(writer.position)
    graph = graph_of_edges(names)
    numbers, found = numbers_of(graph, names), np.array(scores)
    count = np.bincount(numbers, minlength=graph.size)
    if (count != len(positions)).any():
        short = graph.names([int(np.argmax(count != len(positions)))])[0]
        raise CircuitError(f"The edge '{short}' is not at all {len(positions)} positions.", "Give all edge_scores.")
    if not np.isfinite(found).all():
        strange = names[int(np.argmin(np.isfinite(found)))]
        raise CircuitError(f"The edge '{strange}' has no finite score.", "Score it again.")
    return CircuitFile(graph, np.bincount(numbers, found, graph.size), np.zeros(graph.size, bool))


def to_edge_scores(circuit: CircuitFile, positions: int, node: Callable[..., One]) -> dict[tuple[One, One], float]:
    """Every edge as TransformerLens has it, at each of so many positions, which share its score equally.

    `node` is TransformerLens's `tools.analysis.Node`. Keys and values of a group are shared by its heads (`shares`);
    biases are no nodes there and are left out.
    """
    shares = Shares.of_heads(circuit.graph)
    score = shares.split(circuit.scores / positions)
    return {edge: float(score[number]) for number, edge in _their_edges(shares, positions, node)}


def to_circuit_edges(circuit: CircuitFile, positions: int, node: Callable[..., One]) -> list[tuple[One, One]]:
    """The circuit's edges alone, at each of so many positions: what TransformerLens's `faithfulness` takes."""
    shares = Shares.of_heads(circuit.graph)
    inside = shares.spread(circuit.inside)
    return [edge for number, edge in _their_edges(shares, positions, node) if inside[number]]


def _their_edges(shares: Shares, positions: int, node: Callable[..., One]) -> Iterator[tuple[int, tuple[One, One]]]:
    """The number of each of their edges, and its nodes, position by position."""
    graph = shares.theirs
    for position in range(positions):
        writers = [node(**_as_writer(writer), position=position) for writer in graph.writer_records]
        readers = [node(**_as_reader(reader, graph.layers), position=position) for reader in graph.reader_records]
        for number, (writer, reader) in enumerate(zip(*graph.edge_index, strict=True)):
            yield number, (writers[writer], readers[reader])


def _as_writer(writer: Writer) -> dict[str, str | int | None]:
    if writer.layer is None:
        return {"kind": "embed"}
    if not writer.attention:
        return {"kind": "mlp_out", "layer": writer.layer}
    return {"kind": "attn_head_out", "layer": writer.layer, "head": writer.head}


def _as_reader(reader: Reader, layers: int) -> dict[str, str | int | None]:
    if reader.layer is None:
        return {"kind": "logits", "layer": layers - 1}
    if not reader.attention:
        return {"kind": "mlp_in", "layer": reader.layer}
    return {"kind": f"{reader.kind}_input", "layer": reader.layer, "head": reader.head}


def _their_writer(node: Node) -> str:
    names = {"embed": "input", "attn_head_out": f"a{node.layer}.h{node.head}", "mlp_out": f"m{node.layer}"}
    return _known(names, node)


def _their_reader(node: Node) -> str:
    names = {f"{kind}_input": f"a{node.layer}.h{node.head}<{kind}>" for kind in "qkv"}
    return _known(names | {"mlp_in": f"m{node.layer}", "logits": "logits"}, node)


def _known(names: dict[str, str], node: Node) -> str:
    if node.kind not in names:
        raise CircuitError(
            f"A node of kind '{str(node.kind)[:40]}' is at the wrong end.", "Edges go from writer to reader."
        )
    return names[node.kind]
