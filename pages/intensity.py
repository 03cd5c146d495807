"""Intensity: where in the network edges grew stronger or weaker, at which cuts, and whether confidence explains it."""

from functools import partial

import numpy as np
import streamlit as st

from dashboard import checking, data, definitions, tables
from dashboard.pattern import headline, subject
from dashboard.seeds import of_groups
from dashboard.view import alike
from dashboard.widgets import chart, metric_card, ready_view, subtitle
from dashboard.words import as_text, by_head
from probing.figures import layers, strips
from probing.metrics import EFFECTIVE_EDGES, INTENSITY, LOSS, METRICS

SAME_TWICE = (
    " Two edges that are a reader's only ones mirror each other, as scores into a reader behind a norm sum to zero: "
    "they are one finding and share a row."
)

view = ready_view()
told = definitions.told(view)
seeds = partial(of_groups, view)
st.title(f"Intensity: {as_text(view.pair.arrow)}")
subtitle(view)
st.markdown(headline(subject(view.pair), told))

cards = st.columns(3)
for column, metric in zip(cards, (INTENSITY.key, LOSS.key, EFFECTIVE_EDGES.key), strict=True):
    with column, st.container(border=True, height="stretch"):
        metric_card(told[0], metric, view.counts["selected"])

where, movers, cuts, confidence = st.tabs(
    ["Where", "Top movers", "Against the cut", "Against the loss"], key="section", bind="query-params"
)

if where.open:
    with where:
        st.caption(
            "Tuned minus base, of the mean |score| of the edges that a layer, or a kind of reader, reads through. "
            "Left: a dot marks a difference whose own interval over questions excludes zero, a ring one beyond the "
            "seed band too. Right: small dots are questions (boxes, where there are many groups), the large one is "
            "their mean with its 95 % interval. Grey bars: by how much models differ that were trained like the base "
            "from other seeds."
        )
        heat, bars = st.columns(2, gap="medium")
        with heat:
            chart(
                partial(
                    layers.by_kind, data.breakdown(*view.keys, "layer and kind"), view.graph, seeds("layer and kind")
                ),
                "layer-kind",
                "Differences of intensity by layer and kind of reader.",
            )
        with bars:
            by = st.segmented_control(
                "By", ["kind", "layer"], default="kind", required=True, key="group", bind="query-params",
                format_func=lambda b: {"kind": "kind of reader", "layer": "reading layer"}[b],
            )  # fmt: skip
            breakdown = data.breakdown(*view.keys, by or "kind")
            chart(
                partial(
                    strips.differences, breakdown, "kind of reader" if by == "kind" else "reading layer",
                    seeds(by or "kind"),
                ),
                "groups",
                "Differences of intensity by group of edges, one dot for each question, with means and intervals.",
                breakdown.as_table,
            )  # fmt: skip
        if any(view.graph.heads):
            st.subheader("Head by head")
            st.caption(by_head(view.graph))
            way = st.segmented_control(
                "Edges", ["into", "out of"], default="into", required=True, key="way", bind="query-params",
                format_func=lambda way: f"{way} heads", label_visibility="collapsed",
            )  # fmt: skip
            many = max(heads.queries for heads in view.graph.heads if heads) > 12
            with st.container(key="wide-heads" if many else "narrow-heads"):
                chart(
                    partial(
                        layers.by_head, data.breakdown(*view.keys, f"{way or 'into'} heads"), view.graph,
                        seeds(f"{way or 'into'} heads"),
                    ),
                    "layer-head",
                    f"Differences of intensity of the edges {way} each head, by layer and head.",
                )  # fmt: skip

if movers.open:
    with movers:
        rows = tables.movers(checking.edges(view))
        base, tuned = data.edge_by_question(*view.keys, tuple(rows["edge"]))
        st.caption(
            "The edges whose strength changed most: small dots are questions, the diamond their mean with its 95 % "
            "interval. All on one side: the questions agree. In the table, an edge opens on Circuits."
            + (SAME_TWICE if rows["mirror"].any() else "")
        )
        chart(
            partial(strips.movers, np.abs(tuned) - np.abs(base), rows, data.pair_scores(*view.keys)[0].ids),
            "movers",
            "Differences of strength of the edges that changed most, a dot for each question, with their means.",
            rows,
        )
        tables.top_movers(view, rows)

if cuts.open:
    with cuts:
        metric = st.selectbox(
            "Metric", list(METRICS), format_func=lambda m: METRICS[m].name, key="cut_metric", bind="query-params",
            help="Intensity, and every other metric, for all cuts of this pair that have been computed.",
        )  # fmt: skip
        rows = tables.over_cuts(alike(view, view.pair.name), metric)
        chart(
            partial(strips.over_cuts, rows, metric),
            "cuts",
            f"{METRICS[metric].name} of both models at every cut.",
            rows,
        )
        st.caption("Bars: the 95 % interval of the difference. Each cut has its own selection of questions.")

if confidence.open:
    with confidence:
        st.caption(
            "A surer model has smaller gradients. If the two clouds lie on one line, intensity follows confidence."
        )
        questions = data.per_question(view.key)
        columns = [f"{m}_{s}" for m in (LOSS.key, INTENSITY.key) for s in ("base", "tuned")]
        chart(
            partial(strips.intensity_against_loss, questions),
            "loss",
            "Each question's intensity against its loss, for both models.",
            questions[["question_id", *columns]],
        )
