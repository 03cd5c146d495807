"""What surrounds every page: navigation, the sidebar with the shared selection, and the state of the queue."""

import logging
from pathlib import Path

import streamlit as st

from dashboard import glossary, view
from dashboard.lessons.texts import lessons
from dashboard.service import public
from dashboard.widgets import queue_status
from dashboard.words import as_text
from probing.errors import PersonError

log = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"

st.set_page_config(page_title="RL Circuit Explorer", page_icon=str(ASSETS / "icon.svg"), layout="wide")
st.html(ASSETS / "style.css")
glossary.mark_everywhere()

page = st.navigation(
    [
        st.Page("../pages/compare.py", title="Compare", icon=":material/compare_arrows:", default=True),
        st.Page("../pages/circuits.py", title="Circuits", icon=":material/account_tree:"),
        st.Page("../pages/play.py", title="Play", icon=":material/science:"),
        st.Page("../pages/distributions.py", title="Distributions", icon=":material/bar_chart:"),
        st.Page("../pages/intensity.py", title="Intensity", icon=":material/bolt:"),
        st.Page("../pages/questions.py", title="Questions", icon=":material/quiz:"),
        st.Page("../pages/timeline.py", title="Timeline", icon=":material/timeline:"),
        st.Page("../pages/evidence.py", title="Evidence", icon=":material/fact_check:"),
        st.Page("../pages/transplant.py", title="Transplant", icon=":material/swap_horiz:"),
        st.Page("../pages/runs.py", title="Runs", icon=":material/queue:"),
        st.Page("../pages/add.py", title="Add a pair", icon=":material/add_circle:"),
        st.Page("../pages/methods.py", title="Methods", icon=":material/menu_book:"),
        *(st.Page(of.page, title=f"{of.number} {of.title}", icon=":material/school:") for of in lessons()),
        st.Page("../pages/glossary.py", title="Glossary", icon=":material/dictionary:"),
    ]
)
try:
    with st.sidebar:
        st.markdown("### RL Circuit Explorer")
        view.controls()
        queue_status()
    page.run()
except PersonError as error:
    log.warning("%s", error)
    st.error(as_text(public(str(error))), icon=":material/error:")
