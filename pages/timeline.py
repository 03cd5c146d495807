"""Timeline: when during training the circuit changed, and whether that tracks what the model can do."""

from functools import partial

import streamlit as st

from dashboard import data
from dashboard.edge_filter import EdgeFilter, together
from dashboard.figures import timeline, wiring
from dashboard.figures.wiring import Pick, Scale
from dashboard.panels import PANELS
from dashboard.view import same, trained
from dashboard.widgets import chart, offer_more, ready_view, subtitle
from dashboard.words import as_text

view = ready_view()
st.title(f"Timeline: {as_text(view.pair.arrow)}")
subtitle(view)

key = trained(same(view)).comparison_key
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

st.caption(
    "Every checkpoint answers all questions (accuracy, with its 95 % Wilson interval), and is scored on its own "
    "answers to the questions of the finished pair, whether right or wrong. Bars: the 95 % interval of the difference "
    "to the base. Dotted: base and tuned."
)
series = timeline.series(steps, {side: data.compared(key, side) for side in steps["side"]})
with st.container(key="wide-metrics"):
    chart(
        partial(timeline.metrics, series, data.compared(key)),
        "timeline",
        "Accuracy and metrics against the training step, with intervals.",
        series,
    )


tables = {
    int(step): data.edge_table(key, view.graph, side) for step, side in zip(steps["step"], steps["side"], strict=True)
}


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


@st.fragment
def circuit_at_a_step() -> None:
    """The circuit, moved through training."""
    st.subheader("The circuit at a step")
    slide, amount = st.columns([2, 1], gap="medium")
    with slide:
        step = st.select_slider("Training step", list(tables), max(tables), key="step", bind="query-params")
    with amount:
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


edges_over_training()
circuit_at_a_step()
