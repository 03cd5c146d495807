"""Intensity: where in the network edges grew stronger or weaker."""

import streamlit as st

from dashboard import data
from dashboard.figures import strips
from dashboard.widgets import chart, metric_card, ready_view, subtitle
from dashboard.words import confound
from probing.metrics import Definition

view = ready_view()
compared = data.compared(*view.keys, Definition())
st.title(f"Intensity: {view.pair.arrow}")
subtitle(view)

cards = st.columns(3)
for column, metric in zip(cards, ("activation_intensity", "loss", "effective_edges"), strict=True):
    with column:
        metric_card(metric, compared[metric])
if caution := confound(compared):
    st.warning(caution, icon=":material/balance:")

st.subheader("Difference by layer and by reader")
st.caption(
    "Tuned minus base, of the mean |score| of the edges that a layer, or a kind of reader, reads through. A small dot "
    "is a question; the large one their mean, with its 95 % interval."
)
layer, kind = st.columns(2)
with layer:
    chart(
        strips.differences(data.breakdown(*view.keys, "layer"), "reading layer"),
        "layers",
        "Differences of intensity by reading layer, one dot for each question, with means and intervals.",
    )
with kind:
    chart(
        strips.differences(data.breakdown(*view.keys, "kind"), "kind of reader"),
        "kinds",
        "Differences of intensity by kind of reader, one dot for each question, with means and intervals.",
    )

st.subheader("Intensity and loss, question by question")
st.caption("A surer model has smaller gradients. If the two clouds lie on one line, intensity follows confidence.")
chart(
    strips.intensity_against_loss(data.per_question(*view.keys, Definition())),
    "loss",
    "Each question's intensity against its loss, for both models.",
)
