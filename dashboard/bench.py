"""The workbench of the page Play: what is asked, what is picked, what is changed, and what came of it.

All that a person chooses is in the address. A click in a figure chooses in the control that says the same.
"""

from collections.abc import Iterable
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from dashboard import names, playing
from dashboard.edge_filter import EdgeFilter, together
from dashboard.panels import usual
from dashboard.service import public
from dashboard.widgets import clicked
from dashboard.words import as_text, listed
from probing.errors import PersonError
from probing.figures import answers
from probing.figures.panels import PANELS
from probing.figures.theme import COLOURS, number, percent
from probing.graph import ResidualGraph
from probing.pairs import Pair
from probing.playground import Change, Chosen, Experiment, Kind, Outcome, Side
from probing.playground.experiment import LONGEST_QUESTION, MOST_CHANGES

_TOKEN, _CHANGES, _TARGET = "token", "changes", "target"

SYMBOLS: dict[Kind, str] = {"zero": "x-thin", "mean": "square-open", "swap": "diamond-open"}
"""What stands in the graph on what is changed."""

_NATS = "Margin: the token's logit less that of the likeliest other one, in nats; below zero the model says the other."


# -- what is asked -----------------------------------------------------------------------------------------------------


def question(question_set: str) -> str:
    """The problem that is typed, with some to begin with."""
    key = _asked_in(question_set)
    problem = st.text_input(
        "A problem for both models", playing.examples(question_set)[0], max_chars=LONGEST_QUESTION, key=key,
        bind="query-params", on_change=_forget_token, help="Press Enter to ask. A sum ends with “=”.",
    )  # fmt: skip
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        for what, example in playing.EXAMPLES.get(question_set, {}).items():
            st.button(what, key=f"example-{example}", on_click=_take, args=(key, example), help=as_text(example))
    return problem


def _asked_in(question_set: str) -> str:
    """Each question set has problems of its own, and a name for them in the address."""
    return "ask" if question_set == "addition" else f"ask-{question_set}"


def _take(key: str, problem: str) -> None:
    st.session_state[key] = problem
    _forget_token()


def _forget_token() -> None:
    """Of another answer, look at where the models part again."""
    st.session_state[_TOKEN] = None


def token() -> int | None:
    """The place that is chosen, from 0; None for where the models' answers part."""
    chosen = st.number_input(
        "Token", 1, None, None, 1, key=_TOKEN, bind="query-params", placeholder="where they part",
        help="Which token of the answers is looked at, the same as a click on it. Empty: the first that differs.",
    )  # fmt: skip
    return None if chosen is None else int(chosen) - 1


def _next(chosen: Chosen) -> str:
    """The likeliest token besides the chosen one."""
    return next(token for token, _ in chosen.likeliest if token != chosen.token)


def choose_token(chart: str) -> None:
    """Look at the token that was clicked in a chart."""
    if (said := clicked(st.session_state[chart]["selection"]["points"])) is not None:
        st.session_state[_TOKEN] = int(said) + 1


# -- what is changed ---------------------------------------------------------------------------------------------------


def changes(graph: ResidualGraph) -> tuple[Change, ...]:
    """What is changed in both models, each with a cross to undo it."""
    target = st.session_state.get(_TARGET)
    offered = [playing.said(Change(kind, target)) for kind in playing.VERBS] if target else []
    chosen = st.multiselect(
        "Changes in both models", list(dict.fromkeys([*st.session_state.get(_CHANGES, ()), *offered])), key=_CHANGES,
        bind="query-params", accept_new_options=True, max_selections=MOST_CHANGES, placeholder="none so far",
        help="Each ✕ undoes one. They can be typed: remove a0->m0, average m3, swap a0.",
    )  # fmt: skip
    made, unknown = playing.known(chosen, graph)
    if unknown:
        st.warning(
            f"Left out, as this graph has nothing of that name to change: {as_text(listed(unknown))}.",
            icon=":material/link_off:",
        )
    return tuple(dict.fromkeys(made))


def target(graph: ResidualGraph, edges: pd.DataFrame) -> str | None:
    """The node or edge that is picked, and what can be done to it."""
    name = names.box(
        "Node or edge", graph, edges, _TARGET, placeholder="click one, or search here",
        help="`input` is the embedding, `a3` attention and `m3` MLP of layer 3; an edge is called `a3->m4`.",
    )  # fmt: skip
    if name is None:
        return None
    if not playing.can_change(name, graph):
        st.caption(f"`{name}` writes nothing that could be changed. Pick what flows into it.")
        return name
    with st.container(horizontal=True, gap="small"):
        for kind, label, icon, what in _BUTTONS:
            st.button(label, key=f"do-{kind}", icon=icon, on_click=_change, args=(kind, name), help=what)
    return name


_BUTTONS: tuple[tuple[Kind, str, str, str], ...] = (
    ("zero", "Remove", ":material/content_cut:", "Nothing flows through it."),
    ("mean", "Remove (mean)", ":material/horizontal_rule:", "What it carries on average flows through it."),
    ("swap", "Swap with the other model's", ":material/swap_horiz:", "The other model's flows through it."),
)  # fmt: skip


def pick_target(chart: str) -> None:
    """Pick what was clicked in a chart."""
    if (said := clicked(st.session_state[chart]["selection"]["points"])) is not None:
        st.session_state[_TARGET] = said


def _change(kind: Kind, name: str) -> None:
    """Make a change, in place of another one of the same thing, which is let go: the whole circuit shows again."""
    others = [text for text in st.session_state.get(_CHANGES, ()) if text.partition(" ")[2] != name]
    st.session_state[_CHANGES] = [*others, playing.said(Change(kind, name))]
    st.session_state[_TARGET] = None


def marks(changes: Iterable[Change]) -> dict[str, str]:
    """The symbol that stands on each thing that is changed."""
    return {change.name: SYMBOLS[change.kind] for change in changes}


def circuits(edges: pd.DataFrame, changes: Iterable[Change]) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """The edges of each panel that is asked for, the strongest and those that are changed; and all of them together."""
    which, count = st.columns([1.4, 1], gap="medium", vertical_alignment="bottom")
    with which:
        side = st.segmented_control(
            "Panels", [_BOTH, *PANELS], default=usual(st.context.headers, _BOTH, "tuned"), required=True, key="models",
            bind="query-params", label_visibility="collapsed",
        )  # fmt: skip
    with count:
        most = st.slider("Edges in each", 5, min(100, len(edges)), 25, key="most", bind="query-params")
    changed = edges["edge"].isin([change.name for change in changes])
    strongest = {name: EdgeFilter(count=most).apply(edges, name) for name in (PANELS if side != _BOTH else COLOURS)}
    panels = {
        name: pd.concat([of, edges[changed & ~edges["edge"].isin(of["edge"])]])
        for name, of in strongest.items()
        if side in (_BOTH, name)
    }
    return panels, together(edges, panels)


_BOTH = "base and tuned"


# -- what came of it ---------------------------------------------------------------------------------------------------


def say(error: PersonError) -> None:
    """What cannot be done, where its result would stand."""
    st.warning(as_text(public(str(error))), icon=":material/hourglass_top:")


def spoken(outcome: Outcome) -> str:
    """The answers, for people who cannot see the cells."""
    return "Answers token by token. " + " ".join(f"{name}: {said.text}." for _, name, said, _ in answers.rows(outcome))


def heading(outcome: Outcome) -> str:
    """Which token is looked at, by its place and what each model says there."""
    last = max(len(side.answer.tokens) for side in (outcome.base, outcome.tuned)) - 1
    base, tuned = (as_text(answers.shown(side.chosen.token)) for side in (outcome.base, outcome.tuned))
    said = f"“{base}” in both" if base == tuned else f"“{base}” in base, “{tuned}” in tuned"
    return f"What carries token {min(outcome.token, last) + 1}: {said}"


def looked_at(outcome: Outcome) -> None:
    """The chosen token of each model, in words."""
    for name, side in (("base", outcome.base), ("tuned", outcome.tuned)):
        chosen = side.chosen
        st.markdown(
            f"**{name}** says “{as_text(answers.shown(chosen.token))}”, {percent(chosen.probability, signed=False)} "
            f"sure: a margin of {number(chosen.margin)} nats over “{as_text(answers.shown(_next(chosen)))}”."
        )
    st.caption("What a margin is", help=_NATS)


def verdict(name: str, side: Side) -> str:
    """What the estimate promised of a model, held against what really happened, in Markdown."""
    after, promised = side.without, side.promised
    assert after is not None and promised is not None and side.changed is not None
    before, real = side.chosen, after.margin - side.chosen.margin
    answer = f"still “{as_text(side.answer.text)}”"
    if side.changed.text != side.answer.text:
        right = {True: ", which is right", False: ", which is wrong", None: ""}[side.changed.is_right]
        answer = f"“{as_text(side.answer.text)}” became “{as_text(side.changed.text)}”{right}"
    return (
        f"**{name}**: the estimate promised {number(promised, signed=True)} nats for “{as_text(before.token)}”; really "
        f"it was {number(real, signed=True)}: {compared(promised, real)}. Its probability went from "
        f"{percent(before.probability, signed=False)} to {percent(after.probability, signed=False)}. Answer: {answer}."
    )


_NOTHING = 0.05
"""Nats that are as good as none."""


def compared(promised: float, real: float) -> str:
    """How a real change stands to a promised one."""
    if max(abs(promised), abs(real)) < _NOTHING:
        return "as good as nothing, as promised"
    if min(abs(promised), abs(real)) < _NOTHING:
        return "next to nothing was promised" if abs(promised) < _NOTHING else "next to nothing came of it"
    if promised * real < 0:
        return "the other way"
    ratio = real / promised
    if 0.8 <= ratio <= 1.25:
        return "about as promised"
    return f"{number(ratio)} times as much" if ratio > 1 else f"{percent(ratio, signed=False)} of it"


def numbers(outcome: Outcome) -> pd.DataFrame:
    """The same as a table, one column for each model."""
    found = {"nats": ["margin before", "margin now", "real change", "promised"]}
    for name, side in (("base", outcome.base), ("tuned", outcome.tuned)):
        before, now = (None if of is None else of.margin for of in (side.chosen, side.without))
        change = None if before is None or now is None else now - before
        found[name] = [number(value, signed=True) for value in (before, now, change, side.promised)]
    return pd.DataFrame(found)


def results(outcome: Outcome) -> None:
    """What the changes did, beside what had been promised."""
    if outcome.base.changed is None:
        return
    for name, side in (("base", outcome.base), ("tuned", outcome.tuned)):
        st.markdown(verdict(name, side))
    st.dataframe(numbers(outcome), hide_index=True)
    st.caption("Promised: the sum of the changes' first-order estimates, norms taken exactly.", help=_NATS)


def share(pair: Pair, question_set: str, experiment: Experiment) -> None:
    """The address that holds all of it."""
    with st.popover("Share", icon=":material/link:", type="tertiary"):
        st.caption("This address holds the whole experiment: the problem, the token and the changes.")
        page = (st.context.url or "").partition("?")[0]
        st.code(f"{page}?{asked(pair, question_set, experiment)}", language=None, wrap_lines=True)


def asked(pair: Pair, question_set: str, experiment: Experiment) -> str:
    """What the address of an experiment asks for."""
    parts = [("pair", pair.title), (_asked_in(question_set), experiment.question)]
    if experiment.token is not None:
        parts.append((_TOKEN, str(experiment.token + 1)))
    return urlencode([*parts, *((_CHANGES, playing.said(change)) for change in experiment.changes)])
