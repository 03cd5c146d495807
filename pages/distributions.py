"""Distributions: how large the scores are, how they spread, and how questions differ."""

import streamlit as st

from dashboard import data
from dashboard.figures import histograms
from dashboard.widgets import chart, metric_card, ready_view, subtitle
from dashboard.words import TERMS

view = ready_view()
st.title(f"Distributions: {view.pair.arrow}")
subtitle(view)

st.subheader("Size of the scores")
settings = st.columns([2, 1, 1], vertical_alignment="bottom")
with settings[0]:
    bins = st.slider(
        "Bins",
        10,
        500,
        100,
        step=10,
        key="bins",
        bind="query-params",
        help="Equal-width bins from 0 to the largest |score| of the two models. The entropy depends on them.",
    )
with settings[1]:
    log_counts = st.toggle("Log counts", True, key="logy", bind="query-params")
with settings[2]:
    log_size = st.toggle("Log |score|", False, key="logx", bind="query-params", help="Bins of equal ratio, drawn only.")
definition = data.definition(bins)
compared = data.compared(*view.keys, definition)
plot, cards = st.columns([3, 1], gap="medium")
with plot:
    base, tuned = data.pair_scores(*view.keys)
    chart(
        histograms.sizes(base, tuned, definition, log_counts, log_size),
        "sizes",
        "Histogram of the absolute scores of both models on shared bins.",
    )
with cards:
    metric_card("information_complexity", compared["information_complexity"])
    metric_card("distribution_kurtosis", compared["distribution_kurtosis"])

st.subheader("From question to question")
questions = data.per_question(*view.keys, definition)
available = [metric for metric in TERMS if f"{metric}_base" in questions]
metric = st.selectbox(
    "Metric",
    available,
    index=available.index("information_complexity"),
    format_func=lambda m: TERMS[m].name,
    key="metric",
    bind="query-params",
)
st.caption(TERMS[metric].meaning)
chart(
    histograms.of_questions(questions, metric),
    "questions",
    f"Histogram over questions of {TERMS[metric].name.lower()}, for both models.",
)
