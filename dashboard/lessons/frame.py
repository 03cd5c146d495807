"""The frame of a lesson: its text with the figures in their places, its question, the way on, and what was answered."""

from collections.abc import Callable, Mapping
from zlib import crc32

import streamlit as st

from dashboard.lessons.grading import Choice, Question, Verdict
from dashboard.lessons.texts import lessons

_ANSWERED = "lessons_answered"
"""In the session: the lessons whose question was answered right."""


def show(number: int, figures: Mapping[str, Callable[[], None]], question: Callable[[], Question | None]) -> None:
    """A whole lesson. `figures` are drawn where the text names them; a question that depends on models that cannot be
    asked now is None."""
    lesson = lessons()[number - 1]
    with st.container(key="lesson"):
        st.title(lesson.title)
        progress = st.empty()
        for text, figure in lesson.pieces:
            st.markdown(text)
            if figure is not None:
                with st.container(border=True):
                    figures[figure]()
        if (asked := question()) is not None:
            _ask(number, asked)
        _ways(number)
    count, right = len(lessons()), sorted(answered())
    said = f" · answered right: {', '.join(map(str, right))}" if right else ""
    progress.progress(number / count, f"Lesson {number} of {count}{said}")


def answered() -> set[int]:
    """The lessons whose question was answered right in this session."""
    return st.session_state.setdefault(_ANSWERED, set())


def tell(number: int, verdict: Verdict) -> None:
    """Say what became of an answer, and remember it if it is right."""
    if verdict.is_right:
        answered().add(number)
        st.success(f"Right. {verdict.why}", icon=":material/check:")
    else:
        st.info(f"Not yet. {verdict.why}", icon=":material/lightbulb:")


def _ask(number: int, asked: Question) -> None:
    """The question; what is said to an answer appears at once."""
    key = f"answer{number}-{crc32(asked.text.encode())}"
    if isinstance(asked, Choice):
        given = st.radio(
            asked.text, range(len(asked.options)), index=None, key=key,
            format_func=lambda option: asked.options[option].text,
        )  # fmt: skip
    else:
        given = st.number_input(asked.text, 0, 200, None, key=key, placeholder="a whole number", width=420)
    if given is not None:
        tell(number, asked.grade(int(given)))


def _ways(number: int) -> None:
    """Links to the lessons before and after."""
    before, after = st.columns(2)
    if number > 1:
        lesson = lessons()[number - 2]
        before.page_link(lesson.page, label=f"{lesson.number}. {lesson.title}", icon=":material/arrow_back:")
    if number < len(lessons()):
        lesson = lessons()[number]
        after.page_link(lesson.page, label=f"{lesson.number}. {lesson.title}", icon=":material/arrow_forward:")
    else:
        after.page_link(
            "../pages/circuits.py", label="Go on with many questions: Circuits", icon=":material/arrow_forward:"
        )
