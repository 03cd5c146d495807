"""Start: what this is, a picture of the data that moves, and the ways in."""

import streamlit as st

from dashboard import front, site

words, image = st.columns([1, 1.15], gap="large", vertical_alignment="center")
with words:
    st.title("RL Circuit Explorer")
    st.markdown(f"#### {site.SAYS}")
    front.doors()
with image:
    front.picture()
