"""Lesson 5: is it real? Seeds, questions, confidence."""

from functools import partial

import streamlit as st

from dashboard import seeds
from dashboard.lessons import frame, grading, live, several, stored
from dashboard.widgets import chart
from dashboard.words import relative_interval
from probing.figures import strips
from probing.figures.theme import between, number
from probing.metrics import INTENSITY, Comparison

USUAL = 6
"""Questions that are asked at first."""


def several_questions() -> None:
    count = st.slider("Questions", 3, 12, USUAL, key="count", bind="query-params")
    if (found := live.tried(partial(several.of, count))) is None:
        return
    change = found.change
    chart(
        partial(strips.pairs, found.base, found.tuned, found.asked, "nats", 260),
        "several",
        "The intensity of several questions in the base and in the tuned model, joined by a line.",
    )
    st.caption(
        f"Intensity by the margin, of the token of which the base is least sure. Each line is a question. The mean "
        f"moved by {number(change.difference, signed=True)} nats; its 95 % interval is "
        f"{between(change.ci_low, change.ci_high)}."
    )


def beside_the_band() -> None:
    change, band = known()
    if change is None:
        st.info(
            "This server has not compared these models by the margin yet. Once it has, the change and what other seeds "
            "do stand here.",
            icon=":material/hourglass_empty:",
        )
        return
    st.metric("Intensity, by the margin", relative_interval(change), help=INTENSITY.meaning)
    if band is None:
        st.caption("What other seeds do has not been computed on this server yet.")
    else:
        st.caption(f"{seeds.beside(band, change)} {seeds.about(band)}")


def known() -> tuple[Comparison | None, seeds.Band | None]:
    """What the store says of intensity by the margin, and of the seed band."""
    found = [of for of in stored.told() if of.method.loss == "margin"]
    return (found[0].compared[INTENSITY.key], found[0].bands.get(INTENSITY.key)) if found else (None, None)


def question() -> grading.Question | None:
    change, band = known()
    if change is not None:
        return grading.what_may_be_said(change, band)
    found = live.tried(partial(several.of, st.session_state.get("count", USUAL)))
    return None if found is None else grading.what_may_be_said(found.change, None)


frame.show(5, {"several questions": several_questions, "beside the seed band": beside_the_band}, question)
