"""Compare: which pair, what changed, how sure, by which definition; and all pairs side by side."""

from functools import partial

import streamlit as st

from dashboard import beside, data, definitions, leaderboard, tables
from dashboard.pattern import FOUND, headline, subject
from dashboard.widgets import beside_published, chart, metric_card, ready_view, subtitle
from dashboard.words import as_text
from probing.figures import strips
from probing.figures.theme import percent
from probing.metrics import LOSS, METRICS, PATTERN

view = ready_view()
told = definitions.told(view)
questions = data.per_question(view.key)
paper = view.published(view.pair, view.at)
asked = view.counts["selected"]

st.title(as_text(view.pair.arrow))
subtitle(view)
st.caption(f":material/menu_book: {FOUND}")
st.markdown(headline(subject(view.pair), told))

left, *cards = st.columns([0.8, 1.25, 1.25, 1.25])
with left, st.container(border=True, height="stretch"):
    st.metric(
        "Accuracy",
        " → ".join(percent(of, signed=False) for of in view.comparison.accuracies),
        help="Share of all questions answered correctly, decoding greedily.",
    )
    tables.cohorts(view)
    metric_card(told[0], LOSS.key, asked)
for column, metric in zip(cards, PATTERN, strict=True):
    with column, st.container(border=True, height="stretch"):
        metric_card(told[0], metric, asked, beside_published(view, metric, paper[0]) if paper else None)
        chart(
            partial(strips.paired, questions, metric, height=190),
            f"paired-{metric}",
            f"{METRICS[metric].name} of each question in the base and in the tuned model, joined by a line.",
            questions[["question_id", f"{metric}_base", f"{metric}_tuned"]],
        )

st.subheader("Confidence taken out")
definitions.show(view, told, beside.chosen(view))

st.subheader("All pairs at all cuts")
st.caption(
    "Whether each goes with the paper's pattern. A likelihood, which falls as a model grows sure, is never said to go "
    "against it. ↑ ↓: beyond question noise, as the 95 % interval over questions excludes zero. ↑↑ ↓↓: beyond the seed "
    "band too. Controls stand last. Click a column to sort, a pair to open it."
)
leaderboard.show(view)

with st.expander("All metrics of this pair"):
    tables.all_metrics(told[0], asked)
