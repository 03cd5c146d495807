"""The exercises of the last lesson: problems that have a solution, what may be tried, and hints.

The page has the models do what a reader proposes. A problem is given only if one of the proposals is known to be right
and another to be wrong; the hints come from the same models.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from dashboard import playing
from dashboard.lessons import frame, grading, live
from dashboard.lessons.grading import Verdict
from dashboard.lessons.several import questions
from dashboard.words import listed
from probing.errors import PersonError
from probing.graph import typeset
from probing.playground import Change, Experiment, Kind, Outcome, Said, Side

_LESSON = 6

_RANKED = 8
"""Edges that are listed."""

_TRIES = 40
"""Problems that are looked at for one that fits."""


_LOOKED_AT = 4
"""Proposals that are tried with each of these."""


@dataclass(frozen=True)
class Exercise:
    """What is searched for, and how it is checked."""

    name: str
    kind: Kind
    fits: Callable[[Outcome], bool]
    """Whether a problem may be one, by what both models say to it."""
    proposals: Callable[[Outcome], list[str]]
    grade: Callable[[Side, str], Verdict]
    label: str
    hint: str
    """The first; the others are made from the solutions."""
    look: Callable[[Said], int] = lambda said: 0
    """At which token of the base's answer."""

    def does(self, question: str, *proposals: str) -> Outcome:
        """What both models make of a question under a proposal, or as they are."""
        whole = playing.ask(Experiment(live.PAIR, question))
        changes = tuple(Change(self.kind, proposal) for proposal in proposals)
        return playing.ask(Experiment(live.PAIR, question, changes, self.look(whole.base.answer)))

    def is_right(self, question: str, proposal: str) -> bool:
        """Whether a proposal is a solution."""
        changed = self.does(question, proposal).base.changed
        return changed is not None and changed.is_right is True

    def has_solution(self, question: str) -> bool:
        """Whether some proposal is right, and some is wrong, as a few tell from both ends of the list."""
        proposals = self.proposals(self.does(question))
        from_both_ends = [one for pair in zip(reversed(proposals), proposals, strict=True) for one in pair]
        seen = set()
        for proposal in from_both_ends[:_LOOKED_AT]:
            seen.add(self.is_right(question, proposal))
            if len(seen) == 2:
                return True
        return False

    def problem(self, seed: int) -> str:
        """A problem that has a solution, the same for the same seed.

        Raises:
            PersonError: the models cannot be asked.
        """
        for question in _drawn(seed):
            if self.fits(playing.ask(Experiment(live.PAIR, question))) and self.has_solution(question):
                return question
        raise PersonError("No problem was found that fits.", "Ask for another.")


def _drawn(seed: int) -> Iterator[str]:
    yield from random.Random(seed).sample(questions(), _TRIES)


def ranked(found: Outcome) -> list[str]:
    """The edges that the base's estimate ranks highest among those that help."""
    return found.graph.names(np.argsort(-found.base.scores)[:_RANKED])


def blocks(found: Outcome) -> list[str]:
    """All blocks that write, but the input, which is the same in both models' texts."""
    return list(dict.fromkeys(writer.block for writer in found.graph.writer_records))[1:]


EDGE = Exercise(
    "edge",
    "zero",
    lambda found: found.base.answer.is_right is True,
    ranked,
    grading.not_needed,
    "An edge to remove",
    "A model that is sure of a token can lose some of its margin and still say it. The estimate ranks by how much is "
    "lost, not by whether anything changes. The lower ranks are a good place to begin.",
    live.hardest,
)

BLOCK = Exercise(
    "block",
    "swap",
    lambda found: found.base.answer.is_right is False and found.tuned.answer.is_right is True,
    blocks,
    grading.enough,
    "A block of the tuned model to put into the base",
    "A block near the end speaks almost directly to the output, and what the tuned model's writes there may have the "
    "answer in it. What an early block writes has to be understood by all blocks that follow.",
)


def show(exercise: Exercise) -> None:
    """An exercise: a problem, a box for a proposal, what becomes of it, hints, and another problem."""
    seed = st.session_state.setdefault(f"seed-{exercise.name}", 1)
    key = f"{exercise.name}-{seed}"
    with st.spinner("Looking for a problem that has a solution"):
        question = live.tried(partial(exercise.problem, seed))
    if question is not None:
        live.tried(partial(_try, exercise, question, key))
    with st.container(horizontal=True):
        if question is not None and (given := _given(key)) < len(_HINTS):
            st.button(
                f"Hint {given + 1} of {len(_HINTS)}", key=f"hint-{key}", on_click=_more, args=(key,),
                icon=":material/lightbulb:",
            )  # fmt: skip
        st.button(
            "Another problem", key=f"next-{key}", on_click=_next, args=(exercise.name,), icon=":material/casino:"
        )  # fmt: skip


def _next(name: str) -> None:
    st.session_state[f"seed-{name}"] += 1


def _try(exercise: Exercise, question: str, key: str) -> None:
    before = exercise.does(question)
    proposals = exercise.proposals(before)
    said = before.base.answer
    st.markdown(f"The problem is `{question}`, and the base says `{said.text}`, which is {_verdict(said.is_right)}.")
    chosen = st.selectbox(
        exercise.label, proposals, index=None, key=f"try-{key}", placeholder="choose one", width=420,
        format_func=lambda name: f"{proposals.index(name) + 1}. {typeset(name)}",
    )  # fmt: skip
    if chosen is not None:
        after = exercise.does(question, chosen)
        live.strips(after, f"try-{key}")
        frame.tell(_LESSON, exercise.grade(after.base, chosen))
    _hints(exercise, question, proposals, key)


def _verdict(is_right: bool | None) -> str:
    return "right" if is_right else "wrong"


def _hints(exercise: Exercise, question: str, proposals: Sequence[str], key: str) -> None:
    """As many hints as were asked for, one after the other."""
    for number, hint in enumerate(_HINTS[: _given(key)], start=1):
        st.caption(f"Hint {number}: {hint(exercise, question, proposals)}")


def _in_words(exercise: Exercise, question: str, proposals: Sequence[str]) -> str:
    return exercise.hint


def _one_of_three(exercise: Exercise, question: str, proposals: Sequence[str]) -> str:
    solutions = _solutions(exercise, question, proposals)
    near = {solutions[0], *[name for name in proposals if name not in solutions][:2]}
    return f"One of these will do: {_names([name for name in proposals if name in near])}."


def _all_that_do(exercise: Exercise, question: str, proposals: Sequence[str]) -> str:
    return f"This will do: {_names(_solutions(exercise, question, proposals))}."


_HINTS = (_in_words, _one_of_three, _all_that_do)


def _solutions(exercise: Exercise, question: str, proposals: Sequence[str]) -> list[str]:
    return [name for name in proposals if exercise.is_right(question, name)]


def _names(names: Sequence[str]) -> str:
    return listed([f"`{typeset(name)}`" for name in names])


def _given(key: str) -> int:
    """How many hints were asked for."""
    return st.session_state.get(f"hints-{key}", 0)


def _more(key: str) -> None:
    st.session_state[f"hints-{key}"] = _given(key) + 1
