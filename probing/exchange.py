"""Circuits as files: GraphML for graph programs, and the JSON of EAP-IG; both are read back.

The JSON holds every edge with its values, so nothing is lost; GraphML holds the edges of the circuit.

EAP-IG (github.com/hannamw/EAP-IG) writes `cfg`, `nodes` and `edges`, and its nodes are attention heads and MLPs. Here
a block's attention is one node; it is written as that block's only head, `a5` as `a5.h0`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pandas as pd

from probing.edge_tables import EDGE_VALUES
from probing.errors import CircuitError
from probing.graph import Granularity, ResidualGraph, edge_name, graph_of


def as_graphml(graph: nx.MultiDiGraph) -> str:
    """The circuit as GraphML, which networkx, Gephi and others read."""
    return "\n".join(nx.generate_graphml(graph))


def read_graphml(text: bytes) -> frozenset[str]:
    """The names of the edges in what `as_graphml` wrote.

    Raises:
        CircuitError: it is not such a file.
    """
    try:
        content = text.decode("utf-8")
        if "<!" in re.sub(r"<!--.*?-->", "", content, flags=re.DOTALL):
            raise ValueError("declarations, with which a small file can grow without bound")
        names = frozenset(_edge_names(ElementTree.fromstring(content)))
    except (*_UNREADABLE, ElementTree.ParseError) as error:
        raise CircuitError("This is not a circuit in GraphML.", "Export one from Circuits.") from error
    if not names:
        raise CircuitError("This GraphML has no edges.", "Export a circuit from Circuits.")
    return names


def _edge_names(root: ElementTree.Element) -> Iterator[str]:
    """Each edge's name, from its data `writer` and `reader`; other programs drop the types of keys, and rename ids."""

    def children(parent: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
        return [child for child in parent if child.tag.rpartition("}")[2] == tag]

    keys = {key.get("id"): key for key in children(root, "key")}
    defaults = {key.get("attr.name"): default.text for key in keys.values() for default in children(key, "default")}
    for graph in children(root, "graph"):
        for edge in children(graph, "edge"):
            own = {keys[data.get("key")].get("attr.name"): data.text for data in children(edge, "data")}
            values = defaults | own
            yield edge_name(values["writer"] or "", values["reader"] or "")


def _headed(name: str) -> str:
    """A node's or edge's name with each attention block as its head 0: `a2->a5<q>` is `a2.h0->a5.h0<q>`."""
    return re.sub(r"\ba(\d+)", r"a\1.h0", name)


def as_eap_json(graph: ResidualGraph, table: pd.DataFrame, shown: set[str], width: int = 0) -> str:
    """The JSON of EAP-IG: every edge with its score (the tuned model's effect) and whether it is in the circuit.

    What EAP-IG has no place for (`EDGE_VALUES`, and `graph`, the whole shape) stands beside it and is ignored there.
    """
    members = table[table["edge"].isin(shown)]
    inside = {"logits", *members["writer"], *members["node"]}
    edges = {
        _headed(row["edge"]): {
            "score": row["tuned_effect"],
            "in_graph": row["edge"] in shown,
            **{name: row[name] if np.isfinite(row[name]) else None for name in EDGE_VALUES},
        }
        for row in table.to_dict("records")
    }
    content = {
        "cfg": {"n_layers": graph.layers, "n_heads": 1, "parallel_attn_mlp": graph.parallel, "d_model": width},
        "nodes": {_headed(name): {"in_graph": name in inside} for name in (*graph.writers, "logits")},
        "edges": edges,
        "graph": graph.as_text(),
    }
    return json.dumps(content)


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading something else raises."""


@dataclass(frozen=True)
class CircuitFile:
    """What a circuit's JSON holds: the graph, each edge's values, and the edges that are in the circuit."""

    graph: ResidualGraph
    table: pd.DataFrame
    """Columns `edge`, `score`, `in_graph`, and `EDGE_VALUES` where the file has them."""

    @property
    def members(self) -> set[str]:
        """The edges in the circuit."""
        return set(self.table.loc[self.table["in_graph"], "edge"])


def _graph_in(content: dict[str, Any]) -> ResidualGraph:
    """The graph of a file: as it says itself, or as EAP-IG's `cfg` describes it."""
    cfg, names = content["cfg"], content["edges"]
    if "graph" in content:
        graph = ResidualGraph.from_text(content["graph"])
    else:
        granularity: Granularity = "blocks" if any("<qkv>" in name for name in names) else "projections"
        graph = graph_of(int(cfg["n_layers"]), bool(cfg["parallel_attn_mlp"]), granularity)
    if not 0 <= graph.layers <= max(16, len(names) ** 0.5):
        raise ValueError("a graph that would have far more edges than the file")
    return graph


def read_eap_json(text: str | bytes) -> CircuitFile:
    """Read what `as_eap_json` or EAP-IG's `Graph.to_json` wrote.

    The heads of a block are merged: its edge is in the circuit if one of theirs is, and its score is their sum.

    Raises:
        CircuitError: it is not such a file, or its edges are not those of the graph that it describes.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        graph = _graph_in(content)
        rows: dict[str, dict[str, Any]] = {}
        for name, value in content["edges"].items():
            edge = re.sub(r"\.h\d+", "", name)
            row = rows.setdefault(edge, {"edge": edge, "score": 0.0, "in_graph": False})
            score = float(value["score"])
            if not np.isfinite(score):
                raise CircuitError(f"The file's edge '{name[:60]}' has no finite score.", "Score that circuit again.")
            row["score"] += score
            row["in_graph"] |= bool(value["in_graph"])
            row |= {k: np.nan if value[k] is None else float(value[k]) for k in EDGE_VALUES if k in value}
    except _UNREADABLE as error:
        raise CircuitError("This is not a circuit in EAP-IG's JSON format.", "Export one from Circuits.") from error
    unknown = sorted(set(rows) ^ set(graph.edges))
    if unknown:
        raise CircuitError(
            f"The file's edges are not those of a model with {graph.layers} layers: '{unknown[0]}' differs.",
            "Its cfg and its edges must fit together.",
        )
    return CircuitFile(graph, pd.DataFrame([rows[edge] for edge in graph.edges]))
