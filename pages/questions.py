"""Questions: what was asked and answered, which tokens were scored, and each question's own circuit."""

from functools import partial

import streamlit as st

from dashboard import data, transcript
from dashboard.edge_filter import EdgeFilter, together
from dashboard.widgets import chart, offer_more, ready_view, subtitle
from dashboard.words import as_text
from probing.figures import tokens, wiring
from probing.figures.panels import PANELS
from probing.figures.wiring import Pick, Scale

view = ready_view()
st.title(f"Questions: {as_text(view.pair.arrow)}")
subtitle(view)

name = transcript.table(view)
if name is None:
    st.stop()
row = transcript.row_of(view, name)

st.subheader(f"Question {as_text(name)}")
transcript.texts(view, row)

if row["reason"] is not None:
    st.info(f"This question was not scored: {transcript.why_not(row)}.", icon=":material/filter_alt_off:")
    st.stop()

edges = data.question_circuit(*view.keys, name)

st.subheader("Token by token")
resolved = [data.positions(run, name) for run in view.keys]
if view.method.path == "exact":
    st.caption("What really happens without an edge is not known token by token. Choose an estimate under Rules.")
elif any(scores is None for scores in resolved):
    offer_more(
        view, "Compute token by token", "Scores at every position are computed on demand, and kept.", question=name
    )
else:
    element = transcript.element(view.graph, edges)
    labels = transcript.fed_tokens(view, row)
    values = [transcript.contribution(view.graph, scores, element) for scores in resolved]
    chart(
        partial(tokens.contributions, labels, values, int(row["prompt_length"])),
        "tokens",
        f"What each position contributes to the score of {element}, in base and tuned.",
        lambda: transcript.numbers(labels, values),
    )
    st.caption(
        "Of an edge, its score at each position; of a node, what it writes there, summed over all its readers (or what "
        "it reads, where it writes nothing). The bars add up to the score. The line ends the prompt. "
        + transcript.beyond_the_prompt(view, row)
    )

st.subheader("Its own circuit")
count = st.slider("Edges in each panel", 10, min(200, len(edges)), 40, key="own_edges", bind="query-params")
panels = {panel: EdgeFilter(count=count).apply(edges, panel) for panel in PANELS}
with st.container(key="wide"):
    chart(
        partial(wiring.graph, panels, view.graph, Scale.of(edges, what="|score|", tested=False), Pick()),
        "question-graph",
        "The circuit of this question alone, in base, tuned and their difference.",
        lambda: transcript.own_numbers(together(edges, panels)),
    )
st.caption(
    "Width: |score| of this question. One question cannot say that an edge changed, so all differences are grey and "
    "dotted."
)
transcript.link(edges)
