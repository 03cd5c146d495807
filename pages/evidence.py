"""Evidence: whether estimates predict what really happens, circuits stand by themselves, and rankings hold."""

import streamlit as st

from dashboard import evidence
from dashboard.widgets import ready_view, subtitle
from dashboard.words import as_text

SECTIONS = {
    "Audit": evidence.audit,
    "Methods": evidence.methods,
    "Circuit": evidence.circuit,
    "Stability": evidence.stability,
}

view = ready_view()
st.title(f"Evidence: {as_text(view.pair.arrow)}")
subtitle(view)

tabs = st.tabs(list(SECTIONS), key="evidence", bind="query-params")
for tab, section in zip(tabs, SECTIONS.values(), strict=True):
    if tab.open:
        with tab:
            section(view)
