"""GraphML, which graph programs read and write: the edges of a circuit, and no others."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import networkx as nx

from probing.errors import CircuitError
from probing.graph import edge_name


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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ElementTree.ParseError) as error:
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
