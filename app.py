"""The door: `streamlit run app.py`."""

import streamlit as st
from starlette.middleware import Middleware

from dashboard.monitoring import CountSessions
from dashboard.security import Security
from dashboard.service import lifespan

app = st.App("dashboard/shell.py", lifespan=lifespan, middleware=[Middleware(Security), Middleware(CountSessions)])
