"""Lesson 4: before and after RL."""

import streamlit as st

from dashboard.lessons import frame, grading, live, stored
from dashboard.words import relative_interval
from probing.figures.theme import percent
from probing.metrics import INTENSITY, LOSS


def both_answers() -> None:
    live.problem_box(4)
    if (found := live.answers(live.problem(4), "lesson4")) is not None:
        base, tuned = found.base.answer, found.tuned.answer
        right = {True: "right", False: "wrong", None: "not graded"}
        st.caption(
            f"The base says “{base.text}” ({right[base.is_right]}), the tuned model “{tuned.text}” "
            f"({right[tuned.is_right]}). Bold: where it differs from the base."
        )


def intensity_by_both() -> None:
    found = stored.told()
    if not found:
        st.info(
            "This server has not compared these models yet. Once it has, what each definition says stands here.",
            icon=":material/hourglass_empty:",
        )
        return
    for of in found:
        change = of.compared[INTENSITY.key]
        st.metric(f"Intensity, {of.name}", relative_interval(change), help=INTENSITY.meaning)
    loss = found[0].compared[LOSS.key]
    st.caption(
        f"Over many questions, from base to tuned, with 95 % intervals. Meanwhile the loss changed by "
        f"{percent(loss.relative)}: the model has grown {'surer' if loss.difference < 0 else 'less sure'}."
    )


def question() -> grading.Question | None:
    found = live.outcome(live.problem(4))
    if found is None:
        return None
    asked = grading.first_difference(found.base.answer, found.tuned.answer)
    if asked is None:
        st.info(
            "Here both models say the same. Choose another sum above, and the question appears.", icon=":material/edit:"
        )
    return asked


frame.show(4, {"both answers": both_answers, "intensity by both": intensity_by_both}, question)
