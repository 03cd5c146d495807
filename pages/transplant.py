"""Transplant: what each part of one model does in the other, alone and together, and in other pairs."""

from functools import partial

import streamlit as st

from dashboard import roles, runs, transplants
from dashboard.view import current
from dashboard.widgets import chart
from dashboard.words import as_text
from probing.figures import transplants as figures
from probing.pairs import load_registry
from probing.transplant.account import sentence

view, registry = current(), load_registry()
pair, questions = view.pair, registry.question_set(view.question_set)
st.title(f"Transplant: {as_text(pair.arrow)}")

what, granularity = transplants.kind(pair, questions.name)
found = transplants.made(pair.name, questions.name, what, granularity)
if (missing := transplants.missing(found, pair, questions.name, granularity)) is not None:
    transplants.offer(missing, view.row.graph if view.row is not None else None)
    if roles.person() is not None and st.button("What would it take?", icon=":material/schedule:"):
        runs.show_forecast(missing)
if found is None:
    st.stop()

transplants.subtitle(found, pair, questions.title)
measure = transplants.measured_by(found)
account = found.account(measure)
assert account is not None
alike = transplants.side_by_side(registry, pair, questions.name, what, granularity)
st.markdown(" ".join([sentence(account), *transplants.controls(registry, alike, account)]))

graph, panel = st.columns([2.9, 1], gap="medium")
with panel:
    picked = transplants.picker(found)
    transplants.show(found, picked, transplants.nodes_of(picked))
with graph, st.container(key="wide-lanes"):
    chart(
        partial(figures.lanes, found.by(measure), measure, account.sign, picked),
        "lanes",
        "What each part changes in its host: attention in the left lane, MLPs in the right one, layers from bottom to "
        "top.",
        found.alone,
        on_select=partial(transplants.remember, "chart-lanes"),
        selection_mode="points",
    )
st.caption(
    "A dot is what one part of the other model changes in its host, with its 95 % interval over questions. Orange: "
    "towards the tuned model. Blue: towards the base. Grey: within question noise. Right answers are given anew; the "
    "loss is on the tuned model's answers, which both models read. These intervals are of one part each; the sentence "
    "above takes into account that the largest of many is large by chance too."
)

if what == "weights":
    st.subheader("One after the other")
    with st.container(key="wide-cumulative"):
        chart(
            partial(figures.cumulative, found.together, measure),
            "cumulative",
            "Parts of one model added to the other until all are there, in the order of depth and of single effects.",
            found.together,
        )

if len(alike) > 1:
    st.subheader("Other pairs")
    way = transplants.direction(found)
    st.caption(
        f"Parts {figures.TITLES[way]}, on one scale. A ring: what changes most, beyond question noise with all parts "
        "looked at." + transplants.other_bases(registry, pair, alike)
    )
    with st.container(key="wide-pairs"):
        chart(
            partial(figures.side_by_side, *transplants.columns(registry, alike, way, measure), measure),
            "pairs",
            "What each part changes in its host, for every pair.",
        )
