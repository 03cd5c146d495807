"""Circuits to take away as GraphML or EAP-IG's JSON, and to bring back."""

import pandas as pd
import streamlit as st

from dashboard.service import is_hosted
from dashboard.view import View
from dashboard.words import as_text
from probing.edge_tables import circuit
from probing.errors import CircuitError
from probing.exchange import CircuitFile, as_eap_json, as_graphml, read_eap_json, read_graphml
from probing.graph import ResidualGraph

_KEY = "circuit-file"

_FEW = 40_000
"""Edges of EAP-IG's, at most, beside which a file has both models' values: 500 bytes each, and 20 MB come back."""

_MOST = 2_000_000
"""Edges of EAP-IG's, at most, of which a page makes a file: 140 MB."""


def members(graph: ResidualGraph) -> frozenset[str] | None:
    """The edges of the circuit that was brought, to which the page is then limited; None without one."""
    upload = st.session_state.get(_KEY)
    if upload is None:
        return None
    try:
        brought = members_in(upload.file_id, upload.getvalue(), graph)
    except CircuitError as error:
        st.error(as_text(str(error)), icon=":material/error:")
        return None
    st.info(
        f"Only the {len(brought)} edges of the circuit in {as_text(upload.name)} are shown. Close the file to see all.",
        icon=":material/filter_alt:",
    )
    return brought


@st.cache_resource(max_entries=4, show_spinner=False)
def members_in(file_id: str, _content: bytes, graph: ResidualGraph) -> frozenset[str]:
    """The edges of this graph that a circuit in either kind of file has, itself or in finer parts.

    Raises:
        CircuitError: it is no such file, or is of another graph.
    """
    if not _content.lstrip().startswith(b"<"):
        return frozenset(read_eap_json(_content).within(graph).members)
    members = set()
    for name in read_graphml(_content):
        try:
            members.add(graph.holding(name))
        except ValueError as error:
            raise CircuitError(f"This pair has no edge '{name[:60]}'.", "Choose the pair that it came from.") from error
    return frozenset(graph.names(sorted(members)))


def downloads(view: View, table: pd.DataFrame, shown: pd.DataFrame) -> None:
    """The shown circuit as a file, and a place to bring one back."""
    name = f"{view.pair.name}-{str(view.at).replace(' ', '-')}"
    whole = len(table) == view.graph.size
    edges, size = set(shown["edge"]), view.graph.ungrouped().size
    with st.popover("Circuit as a file", icon=":material/account_tree:"):
        st.download_button(
            "GraphML",
            lambda: as_graphml(circuit(table[table["edge"].isin(edges)])),
            f"{name}.graphml",
            "application/graphml+xml",
            icon=":material/download:",
            on_click="ignore",
            help="For networkx, Gephi, yEd and others.",
        )
        st.download_button(
            "EAP-IG JSON",
            lambda: as_eap_json(CircuitFile.shown(view.graph, table, edges, beside=size <= _FEW)),
            f"{name}.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
            disabled=size > _MOST or not whole,
            help=_what_is_in(size) if whole else "It has every edge, and here only some are known.",
        )
        if not is_hosted():
            st.file_uploader(
                "Show only the edges of a circuit in EAP-IG's JSON or GraphML",
                type=["json", "graphml"],
                key=_KEY,
                max_upload_size=20,
            )


def _what_is_in(size: int) -> str:
    """What EAP-IG's JSON of so many edges has."""
    if size > _MOST:
        return f"With {size:,} edges it would be too large for a page: export a run, and use `probing convert`."
    beside = "" if size <= _FEW else " Both models' values are left out, or it would be too large."
    return f"Every edge with its score and whether it is shown; EAP-IG reads it.{beside}"
