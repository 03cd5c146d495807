"""Lesson 2: an edge, and what its score means."""

from functools import partial

import streamlit as st

from dashboard.lessons import frame, grading, live
from dashboard.widgets import chart
from probing.figures import lessons
from probing.figures.answers import shown
from probing.figures.theme import percent

MOST = 12
"""Edges that are drawn."""


def how_many() -> None:
    if (found := live.outcome(live.problem(2))) is not None:
        graph = found.graph
        st.markdown(
            f"These models have {graph.layers} layers, so {len(graph.writers)} writers and {len(graph.readers)} "
            f"readers, and {graph.size} edges."
        )


def the_strongest() -> None:
    live.problem_box(2)
    if (found := live.picked(2)) is not None:
        chosen = found.base.chosen
        chart(
            partial(lessons.arcs, found.graph, found.base.scores, "base", MOST),
            "arcs",
            f"The {MOST} strongest edges of the base for the chosen token, as arcs over the blocks.",
        )
        st.caption(
            f"The base says “{shown(chosen.token)}” with a probability of "
            f"{percent(chosen.probability, signed=False)} and a margin of {chosen.margin:.2f} nats. The "
            f"{MOST} strongest edges; hover the top of an arc for its name."
        )


def question() -> grading.Question | None:
    found = live.outcome(live.problem(2))
    return (
        None if found is None else grading.most_helpful(found.graph, found.base.scores, shown(found.base.chosen.token))
    )


frame.show(2, {"how many edges there are": how_many, "the strongest edges": the_strongest}, question)
