"""What surrounds every page: navigation, the sidebar with the shared selection, and the state of the queue."""

import logging
from pathlib import Path

import streamlit as st

from dashboard import glossary, view
from dashboard.service import public
from dashboard.site import COMPARE, FRONT, SECTIONS
from dashboard.widgets import queue_status
from dashboard.words import as_text
from probing.errors import PersonError

log = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"

st.set_page_config(page_title="RL Circuit Explorer", page_icon=str(ASSETS / "icon.svg"), layout="wide")
st.html(ASSETS / "style.css")
glossary.mark_everywhere()

pages = {
    entry: st.Page(
        entry.script, title=entry.title, icon=entry.icon, default=entry is FRONT,
        visibility="visible" if entry.listed else "hidden",
    )
    for entries in SECTIONS.values()
    for entry in entries
}  # fmt: skip
page = st.navigation({name: [pages[entry] for entry in entries] for name, entries in SECTIONS.items()}, expanded=True)
entry = next(entry for entry, made in pages.items() if made.url_path == page.url_path)
if entry is FRONT and view.is_asked_for():
    st.switch_page(COMPARE.script, query_params=st.query_params.to_dict())  # which was at this address once
try:
    with st.sidebar:
        if entry.of_a_pair:
            st.markdown("### RL Circuit Explorer")
            view.controls()
        queue_status()
    page.run()
except PersonError as error:
    log.warning("%s", error)
    st.error(as_text(public(str(error))), icon=":material/error:")
