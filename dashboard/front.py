"""The front page's parts: a picture of the data that moves, and the ways in."""

from base64 import b64encode
from html import escape

import streamlit as st

from dashboard import data, site
from dashboard.view import PAPER, current, rules
from dashboard.widgets import say_why
from dashboard.words import as_text
from probing.figures import moving
from probing.jobs.plan import step_of_side
from probing.pairs import Pair, load_registry
from probing.rollouts import DEFAULT_CUT, Criteria
from probing.store.records import ComparisonRow


def _shown() -> tuple[Pair, ComparisonRow] | None:
    """What the picture is of: the first pair whose training was followed, else the first that was compared."""
    default, pairs = Criteria(), load_registry().pairs
    newest: dict[str, ComparisonRow] = {}
    for row in data.comparison_rows():
        usual = (row.cohort, row.at, rules(row)) == (default.cohort, DEFAULT_CUT, PAPER)
        if row.ready and usual and row.pair in pairs:
            newest.setdefault(row.pair, row)
    found = [(pair, newest[name]) for name, pair in pairs.items() if name in newest]
    followed = [shown for shown in found if len(data.steps(shown[1].comparison_key)) > 1]
    return next(iter(followed or found), None)


def picture() -> None:
    """A circuit that moves through the training, or what there is of one."""
    shown = _shown()
    if shown is None:
        say_why(current())
        return
    pair, row = shown
    moments = _moments(row, tuple(data.steps(row.comparison_key)["side"]))
    assert row.graph is not None
    dark, alt = st.context.theme.type == "dark", escape(moving.in_words(moments))
    for kind, moves in {"moving": st.session_state.get("moves", True), "still": False}.items():
        source = _as_source(moving.circuit(row.graph, moments, dark, moves))
        st.html(f'<img class="circuit {kind}" src="{source}" alt="{alt}">')
    st.caption(
        f"{as_text(pair.arrow)}: the strongest edges of a small language model while {as_text(pair.algorithm)} trains "
        "it. A line's width is the edge's share of all strength; orange has grown since the base, blue has shrunk."
    )
    st.toggle("Move", value=True, key="moves")


def _moments(row: ComparisonRow, sides: tuple[str, ...]) -> moving.Moments:
    """Every step that was compared, or the tuned model alone."""
    assert row.graph is not None
    steps = {f"step {step_of_side(side)}": side for side in sides if step_of_side(side)} or {"tuned": "tuned"}
    return moving.Moments.of(
        {label: data.edge_table(row.comparison_key, row.graph, side) for label, side in steps.items()}
    )


def _as_source(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def doors() -> None:
    """The ways in."""
    for door in site.DOORS:
        with st.container(border=True):
            st.page_link(door.to.script, label=f"**{door.label}**", icon=door.to.icon)
            st.caption(door.about)
