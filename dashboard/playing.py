"""What the page Play asks the playground, and what it keeps of the answers.

An experiment is answered once for all visitors. A change is written as a person would say it, `remove a0->m0`, in the
box of changes and in the address alike.
"""

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import get_args
from uuid import uuid4

import pandas as pd
import streamlit as st

from dashboard import roles
from dashboard.service import door, plays
from dashboard.words import as_text, listed
from probing import edge_tables
from probing.graph import ResidualGraph, is_edge
from probing.metrics import Definition
from probing.pairs import Pair, load_registry, own_stamp
from probing.playground import Change, Experiment, Kind, Outcome, PlaygroundError

_KEPT = 400
"""Experiments whose outcomes are kept, those that were asked last."""

EXAMPLES: dict[str, dict[str, str]] = {
    "addition": {
        "the base forgets a carry": "388+243=",
        "both are right": "733+918=",
        "a carry through all digits": "5678+4322=",
    },
    "word-problems": {
        "a word problem": "Ann has 12 apples and buys 7 more. How many apples does Ann have now?",
    },
}
"""Problems of each question set that show something, by what they show; the first is there when the page opens."""

VERBS: dict[Kind, str] = {"zero": "remove", "mean": "average", "swap": "swap"}
"""What a change is called."""


def said(change: Change) -> str:
    """A change as the page and its address write it."""
    return f"{VERBS[change.kind]} {change.name}"


def change_of(text: str) -> Change:
    """The change that is written so.

    Raises:
        PlaygroundError: it is no change.
    """
    verb, _, name = text.strip().partition(" ")
    kind = next((kind for kind in get_args(Kind) if verb == VERBS[kind]), None)
    if kind is None or not name:
        raise PlaygroundError(f"“{text}” is no change.", "One is written remove a0->m0, average m3 or swap a0.")
    return Change(kind, name)


def can_change(name: str, graph: ResidualGraph) -> bool:
    """Whether a graph has something of this name that writes, or an edge."""
    return graph.knows(name) and (is_edge(name) or len(graph.out_of(name)) > 0)


def known(texts: Iterable[str], graph: ResidualGraph) -> tuple[list[Change], list[str]]:
    """The changes among some texts that can be made in a graph, and the texts that are none."""
    changes, unknown = [], []
    for text in texts:
        try:
            change = change_of(text)
        except PlaygroundError:
            change = None
        if change is not None and can_change(change.name, graph):
            changes.append(change)
        else:
            unknown.append(text)
    return changes, unknown


def stop_unless_open(pair: Pair) -> None:
    """End the page with a sentence where nobody, or this visitor, can play with a pair."""
    if not plays():
        st.info("The playground is switched off on this server.", icon=":material/lock:")
    elif pair.is_small or roles.person() is not None:
        return
    else:
        small = [as_text(other.title) for other in load_registry().pairs.values() if other.is_small]
        st.info(
            "This pair is large: only those who may compute here can ask it. "
            f"Choose a small one as Pair: {listed(small)}.",
            icon=":material/lock:",
        )
    st.stop()


def ask(experiment: Experiment) -> Outcome:
    """What both models answer; at once where anybody has asked the same before.

    Raises:
        PersonError: the playground cannot, or is busy.
    """
    waiting: AbstractContextManager[None] = nullcontext()
    if not load_registry().pair(experiment.pair).is_small:  # whose models may still be to load, whoever asked before
        waiting = st.spinner("Asking both models; to load a large pair first takes minutes", show_time=True)
    elif not door().is_warm:
        waiting = st.spinner("Loading both models, some seconds the first time")
    with waiting:
        return _ask(json.dumps(experiment.as_json()), own_stamp(), _visitor())


@st.cache_resource(max_entries=_KEPT, show_spinner=False)
def _ask(experiment: str, registered: tuple[int, int] | None, _who: str) -> Outcome:
    """What is kept of an experiment, until a name may stand for other models."""
    return door().ask(Experiment.from_json(json.loads(experiment)), _who)


def graph_of(pair: Pair, question_set: str) -> ResidualGraph:
    """The graph of both models of a pair; they are asked an example for it.

    Raises:
        PersonError: as `ask`.
    """
    return ask(Experiment(pair.name, examples(question_set)[0])).graph


def examples(question_set: str) -> list[str]:
    """Problems like those of a question set."""
    return list(EXAMPLES.get(question_set, {"": "1+1="}).values())


def _visitor() -> str:
    """A name for whoever looks at the page, for as long as the session lasts."""
    return st.session_state.setdefault("visitor", uuid4().hex)


def edge_table(outcome: Outcome) -> pd.DataFrame:
    """An edge table of the token that is looked at, with a model's edges scored by what removing each takes from its
    margin. Of one token there are no intervals, and nothing is tested."""
    base, tuned = (side.scores[None, :] for side in (outcome.base, outcome.tuned))
    values = edge_tables.paired_values(base, tuned, Definition(resamples=2))
    return edge_tables.edge_table(outcome.graph, values)


def tokens(outcome: Outcome) -> pd.DataFrame:
    """Every token of every answer with its probability."""
    return pd.concat(
        pd.DataFrame(
            {
                "model": name,
                "changed": changed,
                "place": range(1, len(said.tokens) + 1),
                "token": said.tokens,
                "probability": said.probabilities,
            }
        )
        for name, side in (("base", outcome.base), ("tuned", outcome.tuned))
        for changed, said in ((False, side.answer), (True, side.changed))
        if said is not None
    )


def candidates(outcome: Outcome) -> pd.DataFrame:
    """The likeliest tokens at the chosen place, of each model, before and under the changes."""
    return pd.concat(
        pd.DataFrame(chosen.likeliest, columns=["token", "probability"]).assign(model=name, changed=changed)
        for name, side in (("base", outcome.base), ("tuned", outcome.tuned))
        for changed, chosen in ((False, side.chosen), (True, side.without))
        if chosen is not None
    )
