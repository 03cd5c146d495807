"""A box in which to choose a block, a node or an edge, or to type its name, however many a graph has."""

from functools import lru_cache
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.words import as_text
from probing.edge_tables import strongest_of_both
from probing.graph import ResidualGraph, is_edge

_LISTED = 5000
"""Edges up to which all are listed; those of a larger graph are found by their names."""


_SUGGESTED = 200
"""Edges of such a graph that are listed: the strongest."""

_OF_NODE = 25
"""And of the node that is chosen, in each direction."""


def box(
    label: str,
    graph: ResidualGraph,
    edges: pd.DataFrame,
    key: str,
    usual: str | None = None,
    nodes: bool = True,
    **options: Any,
) -> str | None:
    """The name that is chosen, at first `usual`; None if it is none of this graph's (or is one of its `nodes` where
    those are not wanted), which is then said.

    `edges` is the whole edge table.
    """
    listed = list(_nodes(graph)) if nodes else []
    chosen = st.session_state.get(key, usual)
    listed += graph.edges if graph.size <= _LISTED else suggested(graph, edges, chosen)
    listed += [name for name in dict.fromkeys((usual, chosen)) if name is not None and name not in listed]
    index = None if usual is None else listed.index(usual)
    name = st.selectbox(
        label, listed, index=index, key=key, bind="query-params", accept_new_options=True, **options
    )  # fmt: skip
    if name is None or (graph.knows(name) and (nodes or is_edge(name))):
        return name
    none = "Nothing" if nodes else "No edge"
    st.warning(
        f"{none} in this graph is called “{as_text(name)}”. Its edges have names like `{_example(graph)}`.",
        icon=":material/search_off:",
    )
    return None


def suggested(graph: ResidualGraph, edges: pd.DataFrame, chosen: str | None) -> list[str]:
    """The strongest edges, and those of the chosen node before them."""
    found = [strongest_of_both(edges, _SUGGESTED)]
    if chosen in graph.block_of:
        found[:0] = [strongest_of_both(edges.iloc[of], _OF_NODE) for of in (graph.into(chosen), graph.out_of(chosen))]
    return list(dict.fromkeys(edge for some in found for edge in some["edge"]))


@lru_cache(maxsize=16)
def _nodes(graph: ResidualGraph) -> tuple[str, ...]:
    """Every block, followed by its parts."""
    return tuple(dict.fromkeys(name for block, parts in graph.nodes.items() for name in (block, *parts)))


def _example(graph: ResidualGraph) -> str:
    """The name of an edge in the middle."""
    return graph.names([graph.size // 2])[0]
