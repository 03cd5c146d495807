"""The same asked with several questions: intensity of each, and of their difference an interval."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import streamlit as st
from jaxtyping import Float

from dashboard.lessons import live
from probing.method import Method
from probing.metrics import INTENSITY, Comparison, Definition, compare
from probing.pairs import load_registry
from probing.playground import Side
from probing.questions import load_questions
from probing.scores import Scores


@cache
def questions() -> tuple[str, ...]:
    """The pair's question set."""
    registry = load_registry()
    return tuple(one.text for one in load_questions(registry.questions[registry.pairs[live.PAIR].questions[0]]))


@dataclass(frozen=True)
class Several:
    """What some questions say together."""

    asked: tuple[str, ...]
    base: Float[np.ndarray, " question"]
    """Of each question, the intensity in the base, of the token of which it is least sure."""
    tuned: Float[np.ndarray, " question"]
    change: Comparison
    """Of the mean over questions."""


def of(count: int) -> Several:
    """The first so many questions.

    Raises:
        PersonError: the models cannot be asked.
    """
    return _of(questions()[:count])


@st.cache_resource(max_entries=32, show_spinner="Asking both models")
def _of(asked: tuple[str, ...]) -> Several:
    found = [live.at_hardest(question) for question in asked]
    graph = found[0].graph

    def scores(sides: list[Side]) -> Scores:
        losses = np.array([-np.log(side.chosen.probability) for side in sides])
        edges = np.stack([side.scores for side in sides])
        return Scores(graph, asked, edges, losses, method=Method(path="norm-exact", loss="margin"))

    base, tuned = scores([one.base for one in found]), scores([one.tuned for one in found])
    definition = Definition(resamples=2000)
    change = compare(base, tuned, definition, (INTENSITY.key,))[INTENSITY.key]
    of_base, of_tuned = (INTENSITY.of_questions(side, definition, 0.0) for side in (base, tuned))
    return Several(asked, of_base, of_tuned, change)
