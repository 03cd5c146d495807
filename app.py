"""The door: `streamlit run app.py`."""

import streamlit as st
from starlette.middleware import Middleware

from dashboard.monitoring import CountSessions
from dashboard.security import ROUTES, Security
from dashboard.service import begin, lifespan

begin()
app = st.App(
    "dashboard/shell.py",
    lifespan=lifespan,
    routes=ROUTES,
    middleware=[Middleware(Security), Middleware(CountSessions)],
)
