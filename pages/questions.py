"""Questions: what was asked and answered, which tokens were scored, and each question's own circuit."""

from functools import partial

import streamlit as st

from dashboard import data, question
from dashboard.edge_filter import PANELS, EdgeFilter
from dashboard.figures import circuit, tokens
from dashboard.figures.circuit import Pick
from dashboard.widgets import chart, offer_more, ready_view, subtitle
from dashboard.words import as_text

view = ready_view()
st.title(f"Questions: {as_text(view.pair.arrow)}")
subtitle(view)

name = question.table(view)
row = question.row_of(view, name)

st.subheader(f"Question {as_text(name)}")
question.texts(view, row)

if row["reason"] is not None:
    st.info(f"This question was not scored: {question.why_not(row)}.", icon=":material/filter_alt_off:")
    st.stop()

st.subheader("Token by token")
resolved = [data.positions(run, name) for run in view.keys]
if any(scores is None for scores in resolved):
    offer_more(
        view, "Compute token by token", "Scores at every position are computed on demand, and kept.", question=name
    )
else:
    element = question.element(view.graph)
    labels = question.fed_tokens(view, row)
    values = [question.contribution(view.graph, scores, element) for scores in resolved]
    chart(
        partial(tokens.contributions, labels, values, int(row["prompt_length"])),
        "tokens",
        f"What each position contributes to the score of {element}, in base and tuned.",
        lambda: question.numbers(labels, values),
    )
    st.caption(
        "Of an edge, its score at each position; of a node, what it writes there, summed over all its readers (of the "
        "head, what it reads). The bars add up to the score. The line ends the prompt."
    )

st.subheader("Its own circuit")
edges = data.question_circuit(*view.keys, name)
count = st.slider("Edges in each panel", 10, min(200, len(edges)), 40, key="own_edges", bind="query-params")
chosen = EdgeFilter(count=count)
with st.container(key="wide"):
    chart(
        partial(circuit.graph, edges, view.graph.layers, chosen, list(PANELS), Pick()),
        "question-graph",
        "The circuit of this question alone, in base, tuned and their difference.",
        lambda: question.own_numbers(chosen.shown(edges, list(PANELS))),
    )
st.caption(
    "Width: |score| of this question. One question says nothing of noise, so all differences are grey and dotted."
)
