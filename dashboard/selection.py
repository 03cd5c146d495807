"""The shared selection: pair, question set, cohort and cut, in the sidebar and in the URL of every page."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import streamlit as st

from dashboard import data
from probing.pairs import Pair, load_registry
from probing.rollouts import ALPHAS, COHORTS, Selection
from probing.store.database import ACTIVE

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

    variants = _variants(current_choice())
    if len(variants) > 1:
        st.selectbox(
            "Selection",
            list(variants),
            key="variant",
            bind="query-params",
            help="Rules by which questions were kept, where they differ from the paper's.",
        )


@dataclass(frozen=True)
class Choice:
    """What the four shared controls say."""

    pair: Pair
    question_set: str
    cohort: str
    alpha: float


def current_choice() -> Choice:
    """The shared controls' values, or their defaults."""
    registry = load_registry()
    state = st.session_state
    pair = registry.pairs.get(state.get("pair") or "", next(iter(registry.pairs.values())))
    default = Selection()
    return Choice(
        pair,
        state.get("questions") or pair.questions[0],
        state.get("cohort") or default.cohort,
        state.get("alpha") or default.alpha,
    )


def current() -> View:
    """The view that the shared controls describe."""
    choice = current_choice()
    row = _chosen_variant(choice)
    job = {} if row else _job(choice)
    if not row and job.get("status") not in ACTIVE:
        data.comparisons.clear()  # it may have been made since the list was kept
        row = _chosen_variant(choice)
    return View(choice.pair, choice.question_set, choice.cohort, choice.alpha, _state(row, job), row, job)


def _chosen_variant(choice: Choice) -> dict[str, Any]:
    variants = _variants(choice)
    chosen = st.session_state.get("variant") or PAPER
    return variants.get(chosen) or next(iter(variants.values()), {})


def _variants(choice: Choice) -> dict[str, dict[str, Any]]:
    """The newest comparison for each set of selection rules, the paper's first."""
    table = data.comparisons()
    found = table[
        (table["pair"] == choice.pair.name)
        & (table["question_set"] == choice.question_set)
        & (table["cohort"] == choice.cohort)
        & (table["alpha"] == choice.alpha)
        & ((table["base_run"].notna() & table["tuned_run"].notna()) | table["failure"].notna())
    ]
    variants: dict[str, dict[str, Any]] = {}
    for row in found.to_dict("records"):
        variants.setdefault(rules(row["settings"]), {str(k): v for k, v in row.items() if v == v and v is not None})
    return dict(sorted(variants.items(), key=lambda item: item[0] != PAPER))


PAPER = "the paper's"
"""What the default rules are called."""


def rules(settings: str) -> str:
    """How the selection of a comparison differs from the default."""
    selection = json.loads(settings)["selection"]
    usual = asdict(Selection(alpha=selection["alpha"], cohort=selection["cohort"]))
    names = {"n": "questions", "mean_length": "T̄ rule", "beta": "β", "gamma": "γ", "delta": "δ"}
    changed = [f"{names.get(k, k)} {selection[k]}" for k in usual if selection[k] != usual[k]]
    return ", ".join(changed) or PAPER


def _job(choice: Choice) -> dict[str, Any]:
    """The newest job that would make the comparison."""
    wanted = (choice.pair.name, choice.question_set, choice.cohort)
    for job in data.jobs().to_dict("records"):
        spec = json.loads(job["spec"])
        same = (spec["pair"], spec["questions"], spec["selection"]["cohort"]) == wanted
        if same and choice.alpha in spec["alphas"]:
            return {str(k): v for k, v in job.items()}
    return {}


def _state(row: dict[str, Any], job: dict[str, Any]) -> State:
    if row.get("failure"):
        return "impossible"
    if row:
        return "ready"
    if job.get("status") in ACTIVE:
        return "computing"
    return "failed" if job.get("status") == "failed" else "absent"
