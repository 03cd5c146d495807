"""Timeline: when during training the circuit changed, and whether that tracks what the model can do."""

from functools import partial

import streamlit as st

from dashboard import data, names, training
from dashboard.edge_filter import EdgeFilter, together
from dashboard.view import TEXT_NAMES
from dashboard.widgets import chart, offer_more, ready_view, subtitle
from dashboard.words import as_text
from probing.edge_tables import strongest
from probing.figures import timeline, wiring
from probing.figures.panels import PANELS
from probing.figures.wiring import Pick, Scale

view = ready_view()
st.title(f"Timeline: {as_text(view.pair.arrow)}")
subtitle(view)

of_training = training.of(view)
key = of_training.key
steps = data.steps(key)
wanted = view.pair.steps
if not wanted:
    st.info(
        "This pair has no checkpoints. Where a folder holds some (`step-100`, `checkpoint-200` …), name it as "
        "`checkpoints` of the pair in data/pairs.toml.",
        icon=":material/timeline:",
    )
    st.stop()
if (done := int(steps["up_to_date"].sum())) < len(wanted):
    old = f" by this version of the program, and {len(steps) - done} by an earlier one" if done < len(steps) else ""
    offer_more(
        view, "Compute the timeline",
        f"{done} of {len(wanted)} checkpoints have been compared with the base at this cut{old}.", timeline=True,
    )  # fmt: skip
if len(steps) < 2:
    st.stop()

other = training.beside(view)
views = [of_training] if other is None else [of_training, other]
text = view.method.text
scored = "its own answers" if text == "own" else f"{TEXT_NAMES[text]}, the same for all,"
st.caption(
    f"Every checkpoint answers all questions (accuracy, with its 95 % Wilson interval), and is scored on {scored} "
    "to the questions of the finished pair, whether right or wrong. Bars: the 95 % interval of the difference "
    f"to the base. Dotted: base and tuned{' of ' + as_text(view.pair.title) if other else ''}, but not of the "
    "complexity, which depends on bins that each step shares with the base."
)
series = training.metrics(views)
with st.container(key="wide-metrics"):
    chart(
        partial(timeline.metrics, series, data.compared(key)),
        "timeline",
        "Accuracy and metrics against the training step, with intervals.",
        partial(training.together, series),
    )

tables = {
    int(step): data.edge_table(key, view.graph, side) for step, side in zip(steps["step"], steps["side"], strict=True)
}


@st.fragment
def edge_over_training() -> None:
    """One edge's own way."""
    st.subheader("An edge over training")
    final = data.edge_table(key, view.graph)
    usual = strongest(final, "difference", 1)["edge"].iloc[0]
    edge = names.box("Edge", view.graph, final, "edge", usual, nodes=False) or usual
    trajectories, bands = training.edge(views, edge), training.seed_bands(view, edge)
    with st.container(key="wide-edge"):
        chart(
            partial(timeline.edge, trajectories, training.levels(of_training, edge), bands),
            "edge",
            f"Strength and effect of {edge} against the training step, with intervals.",
            partial(training.together, trajectories),
        )
    st.caption(
        "Bars: 95 % intervals over questions, of the value itself. Dotted: base and tuned. "
        + ("Grey: from the base to models trained like it from other seeds." if bands else "")
    )


@st.fragment
def edges_over_training() -> None:
    """Which edges appear and vanish."""
    st.subheader("Edges that appear and vanish")
    count = st.slider(
        "Among the strongest", 10, 60, 20, key="among", bind="query-params",
        help="Edges that are among so many strongest at some steps and not at others.",
    )  # fmt: skip
    moving = timeline.moving(tables, count)
    if moving.empty:
        st.info(f"The {count} strongest edges are the same at every step.", icon=":material/check:")
        return
    chart(
        partial(timeline.membership, moving, count),
        "moving",
        "Rank of the edges that enter or leave the strongest, at every step.",
        moving.reset_index(),
    )


@partial(st.fragment, run_every=training.PACE if training.is_playing() else None)
def circuit_at_a_step() -> None:
    """The circuit, moved through training."""
    st.subheader("The circuit at a step")
    step = training.step(list(tables))
    count = st.slider("Edges in each panel", 10, 200, 40, key="step_edges", bind="query-params")
    table = tables[step]
    panels = {panel: EdgeFilter(count=count).apply(table, panel) for panel in PANELS}
    with st.container(key="wide"):
        chart(
            partial(wiring.graph,
                panels, view.graph, Scale.of(*tables.values()), Pick(),
                {"tuned": f"Step {step}", "difference": f"Step {step} − base"},
            ),
            "step",
            f"The circuit of the base, of step {step}, and their difference.",
            together(table, panels),
        )  # fmt: skip


edge_over_training()
edges_over_training()
circuit_at_a_step()
