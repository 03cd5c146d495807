"""What is picked in the graph or the matrix, and what is known of it."""

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import checking, data, everywhere, names, widgets
from dashboard.view import View
from dashboard.widgets import chart
from dashboard.words import ARROWS
from probing.edge_tables import strongest_of_both
from probing.figures import strips
from probing.figures.theme import between, number
from probing.figures.wiring import Pick
from probing.graph import ResidualGraph, is_edge
from probing.words import changed

_KEY = "pick"

_HELP = "Nodes: `input` is the embedding, `a3` attention and `m3` MLP of layer 3, `logits` the head."
_OF_HEADS = (
    " `a3.h2` is head 2 of `a3`, `a3.g1` the keys and values that a group of its heads shares. Any edge can be found "
    "by its whole name, such as `m2->a3.h2<q>`."
)


remember = partial(widgets.remember, _KEY)
"""Pick what was clicked in a chart, which it is given."""


_OF_NODE = 6
"""Edges into and out of a node that are shown, the strongest."""


def picker(graph: ResidualGraph, table: pd.DataFrame) -> Pick:
    """The search box and the switch for paths; both in the URL."""
    name = names.box(
        "Node or edge", graph, table, _KEY, placeholder="click one, or search here",
        help=_HELP + (_OF_HEADS if graph.granularity == "heads" else ""),
    )  # fmt: skip
    trace = st.toggle(
        "Trace paths", key="trace", bind="query-params", disabled=name is None,
        help="Highlight every path through it, among the edges shown.",
    )  # fmt: skip
    return Pick(name, trace)


def show(view: View, table: pd.DataFrame, pick: Pick) -> None:
    """The values of the picked edge, or of a node's strongest edges in a table."""
    if pick.name is None:
        st.caption("Click a node, or the middle of an edge, for its values.")
    elif is_edge(pick.name):
        estimates = data.edge_table(view.key, view.graph)
        _edge(view, estimates.iloc[view.graph.number(pick.name)])
    else:
        _node(view.graph, table, pick.name)


def _edge(view: View, row: pd.Series) -> None:
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
    flipped = f" Its effect changed its sign (q = {row['effect_q']:.2g})." if row["flipped"] else ""
    st.caption(
        f"Difference of strength {number(row['difference'], signed=True)}, 95 % interval "
        f"over questions {between(row['ci_low'], row['ci_high'])}; "
        f"{changed(row['q'])}.{flipped}",
        help="Strength is the mean |score| in nats, effect the mean score: what the loss would gain if the edge were "
        "removed, to first order.",
    )
    checking.show(view, row["edge"])
    base, tuned = data.edge_by_question(*view.keys, (row["edge"],))
    chart(
        partial(strips.pairs, base[:, 0], tuned[:, 0], data.pair_scores(*view.keys)[0].ids, "score (nats)", 220),
        "picked",
        f"Score of {row['edge']} for each question, in the base and in the tuned model, joined by a line.",
    )
    everywhere.switch()


def _node(graph: ResidualGraph, table: pd.DataFrame, name: str) -> None:
    st.markdown(f"**{name}**")
    for title, numbers in (("strongest inputs", graph.into(name)), ("strongest outputs", graph.out_of(name))):
        if not len(numbers):
            continue
        edges = table[table["edge"].isin(graph.names(numbers))]
        st.caption(f"{len(edges)} edges, {title}", help="An arrow: it changed, q at most 0.05 over all edges.")
        rows = strongest_of_both(edges, _OF_NODE)
        st.dataframe(
            pd.DataFrame(
                {
                    "edge": rows["edge"],
                    "base": rows["base_strength"].map(number),
                    "tuned": [
                        f"{ARROWS[int(np.sign(d)) if moved else 0]} {number(strength)}"
                        for strength, d, moved in zip(
                            rows["tuned_strength"], rows["difference"], rows["changed"], strict=True
                        )
                    ],
                }
            ),
            hide_index=True,
        )
