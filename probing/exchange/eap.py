"""The JSON of EAP-IG (github.com/hannamw/EAP-IG), which is also what MIB's circuit track takes.

It has `cfg` (`n_layers`, `n_heads`, `parallel_attn_mlp`, `d_model`), `nodes` and `edges`: all that `cfg` implies and no
others, or EAP-IG does not read it. Its nodes are attention heads and MLPs, as many heads in every layer, and every head
has keys and values of its own. So, of a graph of heads:

- What is one edge here and several there (the keys of a group; a block whose heads cannot be told apart) is given to
  each of those in equal shares. Their sum is our score again, and where a share's order decides (the strongest so many
  edges), it is the mean of what the heads' own scores would be: no head of a group can be told from another.
- A head that other layers have and this one has not scores zero.
- What an output projection's bias writes is no node there. Those edges stand in `left_out`, beside `edges`.

Graphs of blocks have no heads; their file has each block as its only one, `a5` as `a5.h0`.

What is in no graph of EAP-IG's stands beside and is ignored there: `left_out`, `graph` (the whole shape), and
`EDGE_VALUES` with each edge. So a file that is written here comes back with nothing lost.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Int

from probing.edge_tables import EDGE_VALUES
from probing.errors import CircuitError
from probing.exchange.circuit_file import CircuitFile
from probing.exchange.shares import Shares
from probing.graph import Heads, Reader, ResidualGraph, Writer, edge_name, graph_of


@dataclass(frozen=True)
class Layout:
    """How EAP-IG has a graph of ours."""

    graph: ResidualGraph

    @cached_property
    def theirs(self) -> ResidualGraph:
        """The graph whose edges EAP-IG's are, one to one and in the same order."""
        return self.graph.ungrouped() if self.graph.granularity == "heads" else self.graph

    @cached_property
    def shares(self) -> Shares:
        """How our edges are divided among theirs."""
        return Shares(self.graph, self.theirs)

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of what writes there, in order."""
        return tuple(_headed(writer).name for writer in self.theirs.writer_records)

    def edges(self) -> Iterator[list[str]]:
        """Names of their edges, writer by writer."""
        readers = [_headed(reader).name for reader in self.theirs.reader_records]
        for writer, first in zip(self.nodes, self.theirs.first_readers, strict=True):
            yield [edge_name(writer, reader) for reader in readers[first:]]


One = TypeVar("One", Writer, Reader)


def _headed(one: One) -> One:
    """A writer or reader with an attention block as its only head: `a5<q>` as `a5.h0<q>`."""
    return replace(one, part=one.part or "h0") if one.attention else one


# -- writing -----------------------------------------------------------------------------------------------------------


def as_eap_json(circuit: CircuitFile) -> str:
    """The JSON of EAP-IG: every edge with its score and whether it is in the circuit."""
    return "".join(eap_json(circuit))


def eap_json(circuit: CircuitFile) -> Iterator[str]:
    """The same in pieces, of which a large graph has thousands."""
    layout = Layout(circuit.graph)
    theirs, owner, left_out = layout.theirs, layout.shares.owner, layout.shares.left_out
    cfg = {
        "n_layers": theirs.layers, "n_heads": layout.shares.heads, "parallel_attn_mlp": theirs.parallel,
        "d_model": circuit.width,
    }  # fmt: skip
    yield f'{{"cfg": {json.dumps(cfg)}, "nodes": {json.dumps(_nodes(layout, circuit))}, "edges": {{'
    records, start = _Records(circuit, layout), 0
    for number, names in enumerate(layout.edges()):
        part = records.of(names, owner[start : start + len(names)])
        yield (", " if number else "") + json.dumps(part)[1:-1]
        start += len(names)
    left = records.of(circuit.graph.names(left_out), left_out)
    yield f'}}, "graph": {json.dumps(circuit.graph.as_text())}, "left_out": {json.dumps(left)}}}'


@dataclass(frozen=True)
class _Records:
    """What stands in the file with each edge."""

    circuit: CircuitFile
    layout: Layout

    def of(self, names: list[str], numbers: Int[np.ndarray, " some"]) -> dict[str, dict[str, Any]]:
        """The records of some of their edges, given the numbers of ours that they are part of."""
        there = numbers >= 0
        scores = np.where(there, self.circuit.scores[numbers] / np.maximum(self.layout.shares.parts[numbers], 1), 0.0)
        inside = there & self.circuit.inside[numbers]
        records = zip(names, scores.tolist(), inside.tolist(), self._beside(numbers), strict=True)
        return {name: {"score": score, "in_graph": inside, **beside} for name, score, inside, beside in records}

    def _beside(self, numbers: Int[np.ndarray, " some"]) -> Iterable[dict[str, float | None]]:
        if self.circuit.values is None:
            return ({} for _ in numbers)
        rows = self.circuit.values.to_numpy(float)[numbers].tolist()
        finite = ([value if np.isfinite(value) else None for value in row] for row in rows)
        return (dict(zip(EDGE_VALUES, row, strict=True)) for row in finite)


def _nodes(layout: Layout, circuit: CircuitFile) -> dict[str, dict[str, bool]]:
    """Every node, and whether an edge of the circuit leaves or enters it."""
    there = np.flatnonzero(layout.shares.spread(circuit.inside))
    writer, reader = layout.theirs.edge_index
    leaves = {layout.nodes[place] for place in np.unique(writer[there])}
    enters = {_headed(layout.theirs.reader_records[place]).node for place in np.unique(reader[there])}
    touched = {*leaves, *enters, "logits"}
    return {name: {"in_graph": name in touched} for name in (*layout.nodes, "logits")}


# -- reading -----------------------------------------------------------------------------------------------------------

_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading something else raises."""


def read_eap_json(text: str | bytes) -> CircuitFile:
    """Read what `as_eap_json` or EAP-IG's `Graph.to_json` wrote.

    An edge of ours that is several of theirs has their sum, and is in the circuit if one of them is.

    Raises:
        CircuitError: it is not such a file, or its edges are not those of the graph that it describes.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        layout = Layout(_graph_in(content))
        _check_names(layout, content["edges"])
        left = content.get("left_out", {})
        records = [content["edges"][name] for names in layout.edges() for name in names]
        records += [left[name] for name in layout.graph.names(layout.shares.left_out)]
        return _circuit(layout, records, content["cfg"].get("d_model"))
    except _UNREADABLE as error:
        raise CircuitError("This is not a circuit in EAP-IG's JSON format.", "Export one from Circuits.") from error


def _graph_in(content: dict[str, Any]) -> ResidualGraph:
    """The graph of a file: as it says itself, or as EAP-IG's `cfg` describes it."""
    cfg, edges = content["cfg"], content["edges"]
    if "graph" in content:
        graph = ResidualGraph.from_text(content["graph"])
        heads = max((one.queries for one in graph.heads if one), default=1)
    else:
        heads = int(cfg["n_heads"]) if "n_heads" in cfg else 1
        graph = graph_of(int(cfg["n_layers"]), bool(cfg["parallel_attn_mlp"]))
    if graph.layers < 0 or heads < 1 or graph.layers * (heads + 1) >= len(edges):
        raise ValueError("a graph that would have far more edges than the file")
    if "graph" in content:
        return graph
    blocks = graph.at("blocks")
    if next(Layout(blocks).edges())[0] in edges:  # as earlier versions wrote it
        return blocks
    return graph_of(graph.layers, graph.parallel, "heads", (), (Heads(heads, heads),) * graph.layers)


def _check_names(layout: Layout, edges: dict[str, Any]) -> None:
    """Raise a CircuitError unless the edges are the graph's."""
    missing = (name for names in layout.edges() for name in names if name not in edges)
    strange = next(missing, None)
    if strange is None and len(edges) > layout.theirs.size:
        strange = min(set(edges).difference(*layout.edges()))
    if strange is not None:
        raise CircuitError(
            f"The file's edges are not those of a model with {layout.graph.layers} layers and "
            f"{layout.shares.heads} heads in each: '{strange[:60]}' differs.",
            "Its cfg and its edges must fit together.",
        )


def _circuit(layout: Layout, records: list[dict[str, Any]], width: Any) -> CircuitFile:
    """What the file says of their edges and of those left out, put together."""
    shares = layout.shares
    cut = len(shares.owner)
    scores = np.array([float(record["score"]) for record in records])
    inside = np.array([bool(record["in_graph"]) for record in records], bool)
    if not np.isfinite(scores).all():
        place = int(np.flatnonzero(~np.isfinite(scores))[0])
        names = [name for part in layout.edges() for name in part] + layout.graph.names(shares.left_out)
        raise CircuitError(f"The file's edge '{names[place][:60]}' has no finite score.", "Score that circuit again.")
    whole = CircuitFile(
        layout.graph,
        shares.join(scores[:cut], scores[cut:]),
        shares.join(inside[:cut], inside[cut:]) > 0,
        width=width if type(width) is int and width > 0 else 0,
    )
    if not all(EDGE_VALUES[0] in record for record in records):
        return whole
    owner = np.concatenate([shares.owner, shares.left_out])
    there = owner >= 0
    values = np.full((layout.graph.size, len(EDGE_VALUES)), np.nan)
    # Files of earlier versions have no p and q, and what is infinite or unknown is null.
    rows = [[np.nan if record.get(name) is None else float(record[name]) for name in EDGE_VALUES] for record in records]
    values[owner[there]] = np.array(rows)[there]
    table = pd.DataFrame(values, columns=list(EDGE_VALUES))
    return replace(whole, values=table)
