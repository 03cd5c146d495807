"""The door: `streamlit run app.py`."""

import streamlit as st

from dashboard.service import lifespan

app = st.App("dashboard/shell.py", lifespan=lifespan)
