"""What is known of the node or edge that a person clicked."""

from typing import Any

import pandas as pd
import streamlit as st

from dashboard.theme import number
from probing.circuits import as_graphml, circuit

_PICKED = "picked"


def remember(event: Any) -> None:
    """Keep the name of what was clicked last; it survives a change of the figure."""
    points = event["selection"]["points"] if event else []
    if points:
        custom = points[0].get("customdata")
        name = custom["0"] if isinstance(custom, dict) else custom[0] if isinstance(custom, list) else custom
        if name:
            st.session_state[_PICKED] = str(name)


def show(table: pd.DataFrame) -> None:
    """The values of the picked node or edge, or how to pick one."""
    nodes = sorted(set(table["writer"]) | set(table["node"]), key=_order)
    names = [*nodes, *table["edge"]]
    picked = st.session_state.get(_PICKED)
    name = st.selectbox(
        "Node or edge",
        names,
        index=names.index(picked) if picked in names else None,
        placeholder="click one, or search here",
    )
    if name is None:
        st.caption("Nodes: `input` is the embedding, `a3` attention and `m3` MLP of layer 3, `logits` the head.")
    elif "->" in name:
        _edge(table[table["edge"] == name].iloc[0])
    else:
        _node(table, name)


def downloads(table: pd.DataFrame, shown: pd.DataFrame, name: str) -> None:
    """The circuit that is shown, and all edges, to take away."""
    st.download_button(
        "These edges as GraphML",
        lambda: as_graphml(circuit(shown)),
        f"{name}.graphml",
        "application/graphml+xml",
        icon=":material/download:",
    )
    st.download_button(
        "All edges as CSV",
        lambda: table.to_csv(index=False),
        f"{name}.csv",
        "text/csv",
        icon=":material/download:",
    )


def _order(name: str) -> tuple[float, str]:
    if name == "input":
        return (-1.0, name)
    return (float("inf"), name) if name == "logits" else (float(name[1:]), name)


def _edge(row: pd.Series) -> None:
    st.markdown(f"**{row['edge']}**")
    rows = [
        {
            "": side,
            "strength": number(row[f"{side}_strength"]),
            "effect": number(row[f"{side}_effect"], signed=True),
            "rank": str(row[f"{side}_rank"]),
        }
        for side in ("base", "tuned")
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True)
    sure = "beyond noise" if row["beyond_noise"] else "within noise"
    st.caption(
        f"Difference of strength {number(row['difference'], signed=True)}, 95 % interval "
        f"{number(row['ci_low'], signed=True)} to {number(row['ci_high'], signed=True)}: {sure}. Strength is the mean "
        "|score| in nats, effect the mean score: what the loss would gain if the edge were removed, to first order."
    )


def _node(table: pd.DataFrame, name: str) -> None:
    st.markdown(f"**{name}**")
    for title, column in (("strongest inputs", "node"), ("strongest outputs", "writer")):
        edges = table[table[column] == name]
        if edges.empty:
            continue
        order = edges[["base_strength", "tuned_strength"]].max(axis=1).sort_values(ascending=False).index[:6]
        st.caption(f"{len(edges)} edges, {title}")
        st.dataframe(
            pd.DataFrame(
                {
                    "edge": edges.loc[order, "edge"],
                    "base": edges.loc[order, "base_strength"].map(number),
                    "tuned": edges.loc[order, "tuned_strength"].map(number),
                }
            ),
            hide_index=True,
        )
