"""What the playground's models say in a lesson, to a problem that its reader may change."""

import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import streamlit as st

from dashboard import playing
from dashboard.glossary import help_for
from dashboard.service import plays, public
from dashboard.widgets import chart
from dashboard.words import as_text
from probing.errors import PersonError
from probing.figures.answers import shown, strip
from probing.figures.lessons import promise
from probing.playground import Change, Experiment, Outcome, Said

Answer = TypeVar("Answer")

PAIR = "grpo"
"""The pair that all lessons are about."""

_OFF = ":material/science_off:"

PROBLEMS = {1: "364+275=", 2: "364+275=", 3: "733+918=", 4: "388+243="}
"""The problem of each lesson that has one, until its reader chooses another."""

_PROBLEM = re.compile(r"\s*(\d{3,5})\s*\+\s*(\d{3,5})\s*=?\s*", re.ASCII)


def problem(lesson: int) -> str:
    """The problem that stands in a lesson's box, as the models have learned to read it."""
    written = st.session_state.get(f"sum{lesson}")
    return as_learned(written) or PROBLEMS[lesson]


def as_learned(written: str | None) -> str | None:
    """A sum as the models were trained on: two numbers of equally many digits, from three to five; else None."""
    found = _PROBLEM.fullmatch(written or "")
    return f"{found[1]}+{found[2]}=" if found and len(found[1]) == len(found[2]) else None


def problem_box(lesson: int) -> None:
    """The box in which the problem stands."""
    st.text_input(
        "Your own sum", PROBLEMS[lesson], max_chars=14, key=f"sum{lesson}", bind="query-params", width=260,
        help="Two numbers with equally many digits, from three to five: these models have learned no others.",
    )  # fmt: skip
    if as_learned(st.session_state[f"sum{lesson}"]) is None:
        st.info(
            f"These models add two numbers of three, four or five digits each, such as {PROBLEMS[lesson]} Until then "
            "that one stands here.",
            icon=":material/edit:",
        )


def tried(ask: Callable[[], Answer]) -> Answer | None:
    """What comes of asking the models; where they cannot be asked, says why."""
    if not plays():
        st.info("There is no live figure here: the playground of this server is switched off.", icon=_OFF)
        return None
    try:
        return ask()
    except PersonError as error:
        st.info(f"There is no live figure here now. {as_text(public(str(error)))}", icon=_OFF)
        return None


def outcome(question: str, *changes: Change, token: int | None = None) -> Outcome | None:
    """What both models make of a question, looked at where the base is least sure unless a token is named; where they
    cannot be asked, says why."""
    if token is None:
        return tried(lambda: at_hardest(question, *changes))
    return tried(lambda: playing.ask(Experiment(PAIR, question, changes, token)))


def at_hardest(question: str, *changes: Change) -> Outcome:
    """What both models make of a question, looked at where the base as it is is least sure.

    Raises:
        PersonError: the models cannot be asked.
    """
    return playing.ask(
        Experiment(PAIR, question, changes, hardest(playing.ask(Experiment(PAIR, question)).base.answer))
    )


def hardest(said: Said) -> int:
    """The token of an answer that was least sure; but for the first of a column, whose zero may be left off."""
    starts = [at == 0 or said.tokens[at - 1] == " " for at in range(len(said.tokens))]
    return int(np.argmin(np.where(starts, 1.0, said.probabilities)))


def answers(question: str, key: str, *changes: Change) -> Outcome | None:
    """Both models' answers, token by token."""
    found = outcome(question, *changes)
    if found is not None:
        strips(found, key)
    return found


def strips(found: Outcome, key: str) -> None:
    """The answers of an outcome, token by token."""
    chart(
        partial(strip, found),
        f"answers-{key}",
        "The answers of both models, token by token; the fuller the colour, the likelier the token.",
        export=False,
    )


def picked(lesson: int) -> Outcome | None:
    """What both models make of a lesson's problem at the token that is picked, below the control that picks it."""
    whole = outcome(problem(lesson))
    return None if whole is None else outcome(problem(lesson), token=_token_picker(lesson, whole.base.answer))


def _token_picker(lesson: int, said: Said) -> int:
    """Which token of an answer is looked at, from 0."""
    chosen = st.segmented_control(
        "Token", range(len(said.tokens)), default=hardest(said), required=True, key=f"token{lesson}",
        format_func=lambda at: f"{at + 1}: {shown(said.tokens[at])}", help=help_for("token"),
    )  # fmt: skip
    return hardest(said) if chosen is None else min(chosen, len(said.tokens) - 1)


def promises(found: Outcome, key: str) -> None:
    """Margins as they are, as promised and as they became under some changes."""
    sides = {
        name: (side.chosen.margin, side.chosen.margin + side.promised, side.without.margin)
        for name, side in (("base", found.base), ("tuned", found.tuned))
        if side.without is not None and side.promised is not None
    }
    chart(
        partial(promise, sides),
        f"promise-{key}",
        "The margin of the chosen token in both models: as it is, as promised, and as it really became.",
        export=False,
    )
