"""The shared selection: pair, question set, cohort and cut, in the sidebar and in the URL of every page."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import streamlit as st

from dashboard import data
from probing.pairs import Pair, load_registry
from probing.rollouts import ALPHAS, COHORTS, Selection

COHORT_NAMES = {
    "both_correct": "both correct",
    "both_wrong": "both wrong",
    "base_only": "only the base correct",
    "tuned_only": "only the tuned correct",
}

State = Literal["ready", "impossible", "computing", "failed", "absent"]


@dataclass(frozen=True)
class View:
    """What the person looks at, and what the store has of it."""

    pair: Pair
    question_set: str
    cohort: str
    alpha: float
    state: State
    row: dict[str, Any]
    """The comparison, as `Database.comparisons` gives it; empty unless ready or impossible."""
    job: dict[str, Any]
    """The newest job that would make it; empty if there is none."""

    @property
    def keys(self) -> tuple[str, str]:
        """The runs of base and tuned."""
        return self.row["base_run"], self.row["tuned_run"]

    @property
    def counts(self) -> dict[str, int]:
        """Questions in each cohort and at each stage of the selection."""
        return json.loads(self.row["counts"])


def controls() -> None:
    """Draw the shared controls; each is bound to the URL."""
    registry = load_registry()
    pairs = registry.pairs
    name = st.selectbox(
        "Pair",
        list(pairs),
        format_func=lambda n: pairs[n].title,
        key="pair",
        bind="query-params",
        help="The model before and after tuning.",
    )
    pair = pairs[name or next(iter(pairs))]
    st.selectbox(
        "Questions",
        list(pair.questions),
        format_func=lambda n: registry.questions[n].title,
        key="questions",
        bind="query-params",
        help="What both models were asked.",
    )
    st.selectbox(
        "Cohort",
        list(COHORTS),
        format_func=COHORT_NAMES.__getitem__,
        key="cohort",
        bind="query-params",
        help="Which questions: by who answered them correctly. The paper uses those that both solve.",
    )
    st.segmented_control(
        "Cut α",
        list(ALPHAS),
        default=Selection().alpha,
        required=True,
        format_func=lambda a: f"{a:g}",
        key="alpha",
        bind="query-params",
        help="The share of the mean answer length that is scored: the first α·T̄ tokens of each answer.",
    )


def current() -> View:
    """The view that the shared controls describe."""
    registry = load_registry()
    pair = registry.pairs.get(st.session_state.get("pair") or "", next(iter(registry.pairs.values())))
    question_set = st.session_state.get("questions") or pair.questions[0]
    cohort = st.session_state.get("cohort") or Selection().cohort
    alpha = st.session_state.get("alpha") or Selection().alpha
    row = _matching(data.comparisons(), pair.name, question_set, cohort, alpha)
    job = {} if row.get("base_run") or row.get("failure") else _job(pair.name, question_set, cohort, alpha)
    return View(pair, question_set, cohort, alpha, _state(row, job), row, job)


def _matching(table: pd.DataFrame, pair: str, question_set: str, cohort: str, alpha: float) -> dict[str, Any]:
    chosen = table[
        (table["pair"] == pair)
        & (table["question_set"] == question_set)
        & (table["cohort"] == cohort)
        & (table["alpha"] == alpha)
    ]
    chosen = chosen[(chosen["base_run"].notna() & chosen["tuned_run"].notna()) | chosen["failure"].notna()]
    return {str(k): v for k, v in chosen.iloc[0].to_dict().items() if v == v} if len(chosen) else {}


def _job(pair: str, question_set: str, cohort: str, alpha: float) -> dict[str, Any]:
    for job in data.jobs().to_dict("records"):
        spec = json.loads(job["spec"])
        same = (spec["pair"], spec["questions"], spec["selection"]["cohort"]) == (pair, question_set, cohort)
        if same and alpha in spec["alphas"]:
            return {str(k): v for k, v in job.items()}
    return {}


def _state(row: dict[str, Any], job: dict[str, Any]) -> State:
    if row.get("failure"):
        return "impossible"
    if row:
        return "ready"
    if job.get("status") in ("queued", "running"):
        return "computing"
    return "failed" if job.get("status") == "failed" else "absent"
