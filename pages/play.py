"""Play: ask both models something, look at a token of their answers, and change what happens inside."""

from functools import partial

import streamlit as st

from dashboard import bench, playing
from dashboard.view import current_choice
from dashboard.widgets import chart
from dashboard.words import as_text
from probing.errors import PersonError
from probing.figures import answers, wiring
from probing.playground import Experiment

choice = current_choice()
pair, questions = choice.pair, choice.question_set
st.title(f"Play: {as_text(pair.arrow)}")
st.caption(
    "Both models answer, token by token. Pick a token, and see which edges inside carry it; take an edge away, and see "
    "what they say then."
)
playing.stop_unless_open(pair)


@st.fragment
def experiment() -> None:
    """All that hangs on what is asked; drawn anew without the rest of the page."""
    question = bench.question(questions)
    strip = st.container()
    likeliest, looked_at = st.columns([2.2, 1], gap="medium")
    carries = st.container()
    graphs, panel = st.columns([2.2, 1], gap="medium")
    try:
        graph = playing.graph_of(pair, questions)
        with looked_at:
            token = bench.token()
        with panel:
            picking = st.container()
            changes = bench.changes(graph)
        asked = Experiment(pair.name, question, changes, token)
        outcome = playing.ask(asked)
    except PersonError as error:
        with strip:
            bench.say(error)
        return

    with strip:
        chart(
            partial(answers.strip, outcome),
            "strip",
            bench.spoken(outcome),
            partial(playing.tokens, outcome),
            on_select=partial(bench.choose_token, "chart-strip"),
            selection_mode="points",
        )
        st.caption(
            "The fuller a cell's colour, the surer its model. Bold: not what the base says there, or under changes not "
            "what the model said without. Click a cell to look at that token."
        )
    with likeliest:
        chart(
            partial(answers.likeliest, outcome),
            "likeliest",
            "What each model might say at the chosen place, with probabilities.",
            partial(playing.candidates, outcome),
        )
        st.caption("What each model might say there. Pale: with nothing changed. Full: under the changes.")
    with looked_at:
        bench.looked_at(outcome)

    with carries:
        st.subheader(bench.heading(outcome))
        st.caption(
            "A node is a part of the model; an edge is what one part writes and another reads. The thicker it is, the "
            "more of the margin hangs on it: it speaks for the token or, dotted, against it. Click a node, or the "
            "middle of an edge, to change it."
        )
    edges = playing.edge_table(outcome)
    with picking:
        target = bench.target(graph, edges)
    with panel:
        bench.results(outcome)
        bench.share(pair, questions, asked)
    with graphs:
        panels, shown = bench.circuits(edges, changes)
        scale = wiring.Scale.of(edges, what="|change of the margin|", dotted="against the token", tested=False)
        pick = wiring.Pick(target)
        with st.container(key="wide-play" if len(panels) > 1 else "narrow-play"):
            chart(
                partial(wiring.graph, panels, graph, scale, pick, marked=bench.marks(changes)),
                "wires",
                "Graph of the residual stream; layers from bottom to top, attention on the left, MLPs on the right.",
                shown,
                on_select=partial(bench.pick_target, "chart-wires"),
                selection_mode="points",
            )
        st.caption(
            "Width: the estimate of what removing the edge takes from the margin, on one scale. Red: ✕ removed, □ its "
            "mean, ◇ swapped. One question has no intervals: this is about this token, and no finding about the models."
        )


experiment()
