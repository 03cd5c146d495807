"""Distributions: how large the scores are, how they spread, and how questions differ."""

from dataclasses import replace
from functools import partial

import streamlit as st

from dashboard import data, definitions
from dashboard.widgets import chart, metric_card, ready_view, subtitle
from dashboard.words import as_text, bins_verdict
from probing.figures import diversity, histograms, spread, strips
from probing.metrics import (
    COMPLEXITY,
    DIVERSITY,
    EFFECTIVE_EDGES,
    GINI,
    KURTOSIS,
    METRICS,
    TOP,
    Definition,
    interval_of,
)

# Where the histogram's bins may end, in |scores| of the two models.
RANGES = {f"{TOP} × mean": Definition(), "largest": Definition(histogram_max="observed")}


def chosen_range() -> Definition:
    """The control of where the bins end, for both parts of the page that have bins."""
    chosen = st.segmented_control(
        "Bins end at", list(RANGES), default=next(iter(RANGES)), required=True, key="range", bind="query-params",
        help="The mean |score| settles as questions are added. The largest, which the paper's values suggest, grows "
        "with them: intervals are then ones for the bins at hand.",
    )  # fmt: skip
    return RANGES[chosen or next(iter(RANGES))]


view = ready_view()
asked = view.counts["selected"]
own = definitions.own(view)
st.title(f"Distributions: {as_text(view.pair.arrow)}")
subtitle(view)

size, curves, bins_tab, by_question, between = st.tabs(
    ["Size", "Concentration", "Bins", "By question", "Diversity"], key="part", bind="query-params"
)

if size.open:
    with size:
        settings = st.columns([2, 1.2, 0.8, 0.8], vertical_alignment="bottom")
        with settings[0]:
            bins = st.slider(
                "Bins", 10, 500, 100, step=10, key="bins", bind="query-params",
                help="Bins of equal width, shared by both models; the last has all that is above. The entropy "
                "depends on them.",
            )  # fmt: skip
        with settings[1]:
            definition = replace(chosen_range(), bins=bins)
        with settings[2]:
            log_counts = st.toggle("Log counts", True, key="logy", bind="query-params")
        with settings[3]:
            log_size = st.toggle(
                "Log |score|", False, key="logx", bind="query-params", help="Bins of equal ratio, drawn only."
            )
        compared = data.compared_under(*view.keys, definition, (COMPLEXITY.key, KURTOSIS.key))
        plot, cards = st.columns([3, 1], gap="medium")
        with plot:
            base, tuned = data.pair_scores(*view.keys)
            chart(
                partial(histograms.of_sizes, base, tuned, definition, log_counts, log_size),
                "sizes",
                "Histogram of the absolute scores of both models on shared bins.",
            )
        with cards:
            for metric, comparison in compared.items():
                with st.container(border=True):
                    metric_card(own, metric, asked, f"Interval of {interval_of(metric, definition)}.", comparison)

if curves.open:
    with curves:
        st.caption(
            "Left: the share of scores up to a size. Right: the share of all strength that the strongest edges hold; "
            "the further the curve bends away from the diagonal, the more concentrated the circuit."
        )
        cumulative, lorenz = st.columns(2, gap="medium")
        with cumulative:
            chart(
                partial(spread.cumulative, *data.pair_scores(*view.keys)),
                "cumulative",
                "Cumulative distribution of the absolute scores of both models.",
            )
        with lorenz:
            edges = data.edge_table(view.key, view.graph)
            chart(partial(spread.lorenz, edges), "lorenz", "Lorenz curves of edge strength for both models.")
        for column, metric in zip(st.columns(2, gap="medium"), (EFFECTIVE_EDGES.key, GINI.key), strict=True):
            with column, st.container(border=True):
                metric_card(own, metric, asked)

if bins_tab.open:
    with bins_tab:
        definition = chosen_range()
        by_bins = data.complexity_by_bins(*view.keys, definition)
        st.markdown(bins_verdict(by_bins))
        chart(
            partial(spread.complexity, by_bins),
            "bins",
            "Information complexity of both models against the number of bins, with intervals of the difference.",
        )
        st.caption(
            "The paper does not publish its number of bins. Bars: the 95 % interval of the difference, which is one of "
            f"{interval_of(COMPLEXITY.key, definition)}."
        )

if by_question.open:
    with by_question:
        questions = data.per_question(view.key)
        available = [metric for metric in METRICS if f"{metric}_base" in questions]
        metric = st.selectbox(
            "Metric", available, index=available.index(KURTOSIS.key),
            format_func=lambda m: METRICS[m].name, key="metric", bind="query-params",
        )  # fmt: skip
        st.caption(METRICS[metric].meaning)
        values = questions[["question_id", f"{metric}_base", f"{metric}_tuned"]]
        over, each = st.columns([2, 1], gap="medium")
        with over:
            chart(
                partial(histograms.of_questions, questions, metric),
                "questions",
                f"Histogram over questions of {METRICS[metric].label}, for both models.",
                values,
            )
        with each:
            chart(
                partial(strips.paired, questions, metric, 340),
                "each-question",
                f"{METRICS[metric].name} of each question in both models, joined by a line.",
                values,
            )

if between.open:
    with between:
        card, _ = st.columns([1, 2])
        with card, st.container(border=True):
            metric_card(own, DIVERSITY.key, asked)
        st.caption(
            "How alike two questions' edge scores are, for every two questions; the diversity is one minus the mean "
            "off the diagonal. Both maps have the same order, by the base's mean correlation, and the same scale."
        )
        ids = data.pair_scores(*view.keys)[0].ids
        chart(
            partial(diversity.maps, *data.correlation_maps(*view.keys), ids),
            "correlations",
            "Correlation between every two questions' edge scores, for both models.",
        )
