"""What the pages ask for, kept between reruns.

Finished runs never change, so what is derived from them is cached by their keys; lists of what there is are kept for a
moment only.
"""

from dataclasses import replace

import pandas as pd
import streamlit as st

from dashboard.service import store
from probing import circuits, metrics
from probing.metrics import Comparison, Definition
from probing.scores import Scores

_MOMENT = 2.0
"""Seconds for which lists of comparisons and jobs are kept."""


@st.cache_data(ttl=_MOMENT, max_entries=1, show_spinner=False)
def comparisons() -> pd.DataFrame:
    """Every comparison in the store."""
    return store().comparisons()


@st.cache_data(ttl=_MOMENT, max_entries=1, show_spinner=False)
def jobs() -> pd.DataFrame:
    """Every job, the newest first."""
    return store().jobs()


@st.cache_resource(max_entries=32, show_spinner=False)
def pair_scores(base_run: str, tuned_run: str) -> tuple[Scores, Scores]:
    """The scores of both runs, their samples in the same order; shared, so not to be written to."""
    base, tuned = store().scores(base_run), store().scores(tuned_run)
    return base, metrics.align(base, tuned)


@st.cache_data(max_entries=256, show_spinner=False)
def compared(base_run: str, tuned_run: str, definition: Definition) -> dict[str, Comparison]:
    """Every metric of a comparison."""
    return metrics.compare(*pair_scores(base_run, tuned_run), definition)


@st.cache_data(max_entries=64, show_spinner=False)
def edge_table(base_run: str, tuned_run: str) -> pd.DataFrame:
    """Every edge of a comparison."""
    return circuits.edge_table(*pair_scores(base_run, tuned_run), Definition(resamples=2000))


@st.cache_data(max_entries=64, show_spinner=False)
def per_question(base_run: str, tuned_run: str, definition: Definition) -> pd.DataFrame:
    """Each question's own value of every metric, in columns `METRIC_base` and `METRIC_tuned`."""
    base, tuned = pair_scores(base_run, tuned_run)
    top = metrics.histogram_top(base, tuned, definition)
    table = pd.DataFrame({"question_id": base.ids})
    for side, scores in (("base", base), ("tuned", tuned)):
        for metric, values in metrics.per_question(scores, definition, top).items():
            table[f"{metric}_{side}"] = values
    return table


@st.cache_data(max_entries=64, show_spinner=False)
def breakdown(base_run: str, tuned_run: str, by: str) -> circuits.Breakdown:
    """Intensity of the edges by `layer`, `kind` or `reader`."""
    function = {"layer": circuits.by_layer, "kind": circuits.by_kind, "reader": circuits.by_layer_and_kind}[by]
    return function(*pair_scores(base_run, tuned_run), Definition())


@st.cache_data(max_entries=64, show_spinner=False)
def provenance(base_run: str, tuned_run: str) -> pd.DataFrame:
    """Both runs' rows, base first."""
    runs = store().runs().set_index("run_key")
    return runs.loc[[base_run, tuned_run]].reset_index()


def definition(bins: int) -> Definition:
    """The definition in force with that many bins."""
    return replace(Definition(), bins=bins)
