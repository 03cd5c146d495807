"""Lesson 1: the residual stream."""

from functools import partial

import streamlit as st

from dashboard.lessons import frame, grading, live
from dashboard.widgets import chart
from probing.figures import lessons
from probing.figures.theme import percent


def the_models_answer() -> None:
    live.problem_box(1)
    if (found := live.answers(live.problem(1), "lesson1")) is not None:
        st.caption(
            f"The base says “{found.base.answer.text}”, the tuned model “{found.tuned.answer.text}”. The fuller the "
            "colour of a token, the likelier it was; the frame marks the token of which the base was least sure."
        )


def what_each_part_says() -> None:
    if (found := live.picked(1)) is not None:
        chart(
            partial(lessons.written, found.graph, {"base": found.base.scores, "tuned": found.tuned.scores}),
            "written",
            "What each part of the stream says to the last reader, in both models.",
        )
        st.caption(
            f"The base would lead with “{found.base.chosen.token}”, whose probability is "
            f"{percent(found.base.chosen.probability, signed=False)}; the tuned model with "
            f"“{found.tuned.chosen.token}”, at {percent(found.tuned.chosen.probability, signed=False)}."
        )


def question() -> grading.Question | None:
    found = live.outcome(live.problem(1))
    return None if found is None else grading.writers_before(found.graph, found.graph.layers // 2)


frame.show(
    1,
    {"the models answer": the_models_answer, "what each part says to the output": what_each_part_says},
    question,
)
