"""Lesson 3: check it by removing it."""

import streamlit as st

from dashboard.lessons import exercises, frame, grading, live
from probing.graph import typeset
from probing.playground import Change, Outcome


def chosen_edge(found: Outcome) -> str:
    """Which of the strongest edges is removed."""
    edges = exercises.ranked(found)
    edge = st.selectbox("Edge to remove", edges, key="removed", bind="query-params", format_func=typeset, width=320)
    return edge or edges[0]


def remove_an_edge() -> None:
    live.problem_box(3)
    found = live.outcome(live.problem(3))
    if found is None:
        return
    edge = chosen_edge(found)
    removed = live.answers(
        live.problem(3), "lesson3", Change("zero", edge)
    )  # fmt: skip
    if removed is not None:
        live.promises(removed, "lesson3")
        st.caption(
            "The margin is that of the token with the frame. Left of the dashed line the model would say another token."
        )


def question() -> grading.Question | None:
    found = live.outcome(live.problem(3))
    if found is None:
        return None
    edges = exercises.ranked(found)
    edge = st.session_state.get("removed")
    edge = edge if edge in edges else edges[0]
    removed = live.outcome(live.problem(3), Change("zero", edge))
    return None if removed is None else grading.kept_promise(removed.base, edge, "base")


frame.show(3, {"remove an edge": remove_an_edge}, question)
