"""Methods: every definition in force, and with what the shown numbers were made."""

import streamlit as st

from dashboard import data, tables
from dashboard.widgets import ready_view, subtitle
from dashboard.words import BIBTEX, CITATION, as_text, section, share_of_zero
from probing.metrics import METRICS, Definition, interval_of

view = ready_view()
st.title(f"Methods: {as_text(view.pair.arrow)}")
subtitle(view)

st.subheader("Edges and scores")
st.markdown(section("Edges and scores"))
st.latex(r"I(O \to H) = -\langle \nabla_H L,\; O \rangle")
st.caption(
    "The comparison in view has such scores."
    + (share_of_zero(view.method) or " Its scores into a reader do not sum to zero, as it was made by another method.")
)

st.subheader("Which questions")
st.markdown(section("Which questions"))

st.subheader("Metrics")
for key, metric in METRICS.items():
    with st.expander(metric.name):
        st.markdown(metric.meaning)
        st.latex(metric.formula)
        st.markdown(f"The interval is one of {interval_of(key, Definition())}.")
tables.parameters(Definition(), view)

for title in (
    "Definitions side by side",
    "Intervals",
    "Four kinds of noise",
    "The seed band",
    "Edges and circuits",
    "Positions and steps",
    "What they cannot say",
):
    st.subheader(title)
    st.markdown(section(title))

st.subheader("How the shown numbers were made")
tables.provenance(data.provenance(*view.keys))

st.subheader("How to cite")
st.markdown(CITATION)
st.code(BIBTEX, language="bibtex")
