"""Glossary: every word that the pages use in a sense of their own, in one sentence."""

from itertools import groupby

import streamlit as st

from dashboard import glossary

st.title("Glossary")
st.caption(
    "Where one of these words stands on a page, its sentence appears on hover and on focus; a tap opens it here."
)
for group, terms in groupby(glossary.terms(), key=lambda term: term.group):
    st.header(group)
    for term in terms:
        st.markdown(f"### {term.name}\n\n{term.sentence}")
