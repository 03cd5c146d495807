"""Compare: which pair, what changed, how sure; and all pairs side by side."""

import streamlit as st

from dashboard import data, tables
from dashboard.figures import strips
from dashboard.theme import percent
from dashboard.widgets import chart, metric_card, ready_view, subtitle
from dashboard.words import PATTERN_METRICS, TERMS, confound, headline
from probing.metrics import Definition

view = ready_view()
compared = data.compared(*view.keys, Definition())

st.title(view.pair.arrow)
subtitle(view)
st.markdown(headline(view.pair.algorithm, compared))

left, *cards = st.columns([1, 1.25, 1.25, 1.25])
with left, st.container(border=True, height="stretch"):
    st.metric(
        "Accuracy",
        f"{percent(view.row['base_accuracy'], signed=False)} → {percent(view.row['tuned_accuracy'], signed=False)}",
        help="Share of all questions answered correctly, decoding greedily.",
    )
    tables.cohorts(view)
for column, metric in zip(cards, PATTERN_METRICS, strict=True):
    with column:
        metric_card(metric, compared[metric])

if caution := confound(compared):
    st.warning(caution, icon=":material/balance:")

st.subheader("Question by question")
questions = data.per_question(*view.keys, Definition())
for column, metric in zip(st.columns(4), (*PATTERN_METRICS, "loss"), strict=True):
    with column:
        chart(
            strips.paired(questions, metric),
            f"paired-{metric}",
            f"{TERMS[metric].name} of each question in the base and in the tuned model, joined by a line.",
        )

st.subheader("All pairs")
st.caption(
    "The paper's pattern for online RL is intensity up, complexity up, kurtosis down. Intervals are over questions, "
    "not over training runs: the control with another seed shows what retraining alone changes."
)
tables.all_pairs(view)

with st.expander("All metrics of this pair"):
    tables.all_metrics(compared)
