"""Add a pair: two models of one's own, looked at as they are typed, with what comparing them would take."""

import streamlit as st

from dashboard import adding, roles
from dashboard.service import public
from dashboard.words import as_text

st.title("Add a pair")
st.caption(
    "Two models, one tuned from the other, and what both are asked. The pair is saved in a file beside the store, and "
    "the sidebar offers it at once. No weights are loaded here."
)

roles.sign_in()

if not adding.may_add():
    st.info("On this server only its admin may add pairs.", icon=":material/lock:")
    st.stop()

if said := st.session_state.pop("add_said", None):
    st.error(as_text(public(said)), icon=":material/error:")

draft = adding.form()
ready = draft.is_complete and not draft.refused
with st.container(horizontal=True):
    asked = st.button("What would it take?", icon=":material/schedule:", disabled=not ready)
    st.button("Add it", icon=":material/add:", disabled=not ready, on_click=adding.save, args=(draft,))
if asked:
    adding.show_forecast(draft)

adding.own_ones()
