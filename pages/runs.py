"""Runs: queue a comparison, see what it would take, how far each job is, and what became of it."""

import streamlit as st

from dashboard import roles, runs

st.title("Runs")
st.caption("A worker computes one job after the other. What has been computed is kept, and never computed twice.")

roles.sign_in()

if roles.person() is not None:
    runs.renewal()
    st.subheader("Queue a comparison")
    spec = runs.form()
    if runs.may_be_asked(spec):
        with st.container(horizontal=True):
            asked = st.button("What would it take?", icon=":material/schedule:")
            queued = st.button("Queue it", type="primary", icon=":material/play_arrow:")
        if asked:
            runs.show_forecast(spec)
        if queued:
            runs.queue(spec)

st.subheader("Jobs")
runs.active_jobs()
job = runs.finished_jobs()
if job is not None:
    runs.details(job)
