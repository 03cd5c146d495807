"""Evidence: whether estimates predict what really happens, circuits stand by themselves, and rankings hold."""

import streamlit as st

from dashboard import evidence
from dashboard.widgets import ready_view, subtitle
from dashboard.words import as_text

view = ready_view()
st.title(f"Evidence: {as_text(view.pair.arrow)}")
subtitle(view)

audit, methods, circuit, stability = st.tabs(
    ["Audit", "Methods", "Circuit", "Stability"], key="evidence", bind="query-params"
)
if audit.open:
    with audit:
        evidence.audit(view)
if methods.open:
    with methods:
        evidence.methods(view)
if circuit.open:
    with circuit:
        evidence.circuit(view)
if stability.open:
    with stability:
        evidence.stability(view)
