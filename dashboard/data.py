"""What the pages ask for, kept between reruns.

Finished runs never change, so what is derived from them is kept by their keys, and what their summary says by its
version too. Lists of what there is are kept until the store changes. Arrays are shared by all sessions and must not be
written to; of a table everybody gets their own.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.keeping import Keeper
from dashboard.service import store
from probing import edge_tables, evidence, metrics
from probing.figures.cells import cells as cells_of
from probing.figures.cells import folds
from probing.graph import ResidualGraph
from probing.jobs.plan import step_of_side
from probing.jobs.tasks import OneEdge
from probing.method import Loss
from probing.metrics import METRICS, Comparison, Definition
from probing.scores import Scores
from probing.serving import ANSWERED_BY
from probing.store.records import ComparisonRow, EvaluationRow, JobRow, Measurements, RunRow

P = ParamSpec("P")
T = TypeVar("T")


@st.cache_resource(show_spinner=False)
def _keeper() -> Keeper:
    return Keeper()


def _kept(entries: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep the last used things that a function makes, as long as all such things together are not too large."""

    def keep(make: Callable[P, T]) -> Callable[P, T]:
        @wraps(make)
        def kept(*args: P.args, **kwargs: P.kwargs) -> T:
            key = (args, tuple(kwargs.items()))
            return _keeper().get(make.__name__, key, lambda: make(*args, **kwargs), entries)

        return kept

    return keep


def _table(entries: int) -> Callable[[Callable[P, pd.DataFrame]], Callable[P, pd.DataFrame]]:
    """Keep the columns of the last used tables that a function makes; each call gets a new table of them.

    With a table pandas notes every column that was ever looked at, hundreds of times before it clears up. A table that
    all viewers look at for as long as the server runs would gather tens of kilobytes for each of its columns.
    """

    def keep(make: Callable[P, pd.DataFrame]) -> Callable[P, pd.DataFrame]:
        @_kept(entries)
        @wraps(make)
        def columns(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
            made = make(*args, **kwargs)
            return {str(name): made[name].array for name in made}

        @wraps(make)
        def table(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
            return pd.DataFrame(columns(*args, **kwargs))

        return table

    return keep


# -- lists of what there is --------------------------------------------------------------------------------------------


def comparisons() -> pd.DataFrame:
    """Every comparison in the store."""
    opened, _, results = store().file.revision()
    return _comparisons(opened, results)


@_table(2)
def _comparisons(opened: int, results: int) -> pd.DataFrame:
    return store().comparisons.table()


def comparison_rows() -> list[ComparisonRow]:
    """Every comparison."""
    opened, _, results = store().file.revision()
    return _comparison_rows(opened, results)


@st.cache_resource(max_entries=2, show_spinner=False)
def _comparison_rows(opened: int, results: int) -> list[ComparisonRow]:
    return [ComparisonRow.of(row) for row in _comparisons(opened, results).to_dict("records")]


def evaluation_rows() -> list[EvaluationRow]:
    """Every evaluation, as one of each of its subjects."""
    opened, _, results = store().file.revision()
    return _evaluation_rows(opened, results)


@st.cache_resource(max_entries=2, show_spinner=False)
def _evaluation_rows(opened: int, results: int) -> list[EvaluationRow]:
    return [EvaluationRow.of(row) for row in store().evaluations.table().to_dict("records")]


def jobs() -> pd.DataFrame:
    """Every job, the newest first."""
    opened, changes, _ = store().file.revision()
    return _jobs(opened, changes)


@_table(2)
def _jobs(opened: int, changes: int) -> pd.DataFrame:
    return store().queue.jobs()


def job_rows() -> list[JobRow]:
    """The same, one by one."""
    opened, changes, _ = store().file.revision()
    return _job_rows(opened, changes)


@st.cache_resource(max_entries=2, show_spinner=False)
def _job_rows(opened: int, changes: int) -> list[JobRow]:
    return [JobRow.of(row) for row in _jobs(opened, changes).to_dict("records")]


def steps(comparison: str) -> pd.DataFrame:
    """The training steps that were compared: `step`, `side`, `correct` of `asked` answers, `up_to_date`."""
    opened, _, results = store().file.revision()
    return _steps(opened, results, comparison)


@_table(16)
def _steps(opened: int, results: int, comparison: str) -> pd.DataFrame:
    table = store().comparisons.steps(comparison)
    return table.assign(step=table["side"].map(step_of_side))


def compared(comparison: str, side: str = "tuned") -> dict[str, Comparison]:
    """Every metric of a comparison, under the default definition."""
    return _summary(comparison, side)[1]


def _summary(comparison: str, side: str) -> tuple[int, dict[str, Comparison]]:
    """The version of a comparison's summary (0 if there is none), and its metrics."""
    opened, _, results = store().file.revision()
    return _summaries(opened, results).get((comparison, side), (0, {}))


@st.cache_resource(max_entries=2, show_spinner=False)
def _summaries(opened: int, results: int) -> dict[tuple[str, str], tuple[int, dict[str, Comparison]]]:
    found: dict[tuple[str, str], tuple[int, dict[str, Comparison]]] = {}
    table = store().summaries.metrics()
    for metric in METRICS:
        for row in table[table["metric"] == metric].to_dict("records"):
            _, compared = found.setdefault((row["comparison_key"], row["side"]), (row["version"], {}))
            compared[metric] = _comparison(row)
    return found


def _comparison(row: dict) -> Comparison:
    relative = None if np.isnan(row["relative"]) else row["relative"]
    ends = (row["relative_low"], row["relative_high"])
    if np.isnan(ends).any():  # an earlier version did not resample it
        ends = (-np.inf, np.inf)
    return Comparison(row["base"], row["tuned"], row["difference"], relative, row["ci_low"], row["ci_high"], *ends)


# -- what is derived from finished runs --------------------------------------------------------------------------------


@_kept(16)
def pair_scores(base_run: str, tuned_run: str) -> tuple[Scores, Scores]:
    """The scores of both runs, their samples in the same order."""
    base, tuned = store().runs.scores(base_run), store().runs.scores(tuned_run)
    return base, metrics.align(base, tuned)


@st.cache_resource(max_entries=128, show_spinner=False)
def compared_under(
    base_run: str, tuned_run: str, definition: Definition, wanted: Collection[str]
) -> dict[str, Comparison]:
    """Some metrics of a comparison, under another definition."""
    return metrics.compare(*pair_scores(base_run, tuned_run), definition, wanted)


@st.cache_resource(max_entries=32, show_spinner=False)
def complexity_by_bins(base_run: str, tuned_run: str, definition: Definition) -> dict[int, Comparison]:
    """Information complexity for several numbers of bins."""
    return metrics.complexity_by_bins(*pair_scores(base_run, tuned_run), replace(definition, resamples=2000))


def edge_table(comparison: str, graph: ResidualGraph, side: str = "tuned") -> pd.DataFrame:
    """Every edge of a comparison."""
    return _edge_table(comparison, graph, side, _summary(comparison, side)[0])


@_table(64)
def _edge_table(comparison: str, graph: ResidualGraph, side: str, version: int) -> pd.DataFrame:
    return edge_tables.edge_table(graph, store().summaries.edges(comparison, side))


def per_question(comparison: str, side: str = "tuned") -> pd.DataFrame:
    """Each question's own value of every metric, in columns `METRIC_base` and `METRIC_tuned`."""
    return _per_question(comparison, side, _summary(comparison, side)[0])


@_table(64)
def _per_question(comparison: str, side: str, version: int) -> pd.DataFrame:
    long = store().summaries.questions(comparison, side)
    wide = long.pivot(index="question_id", columns="metric", values=["base", "tuned"])
    wide.columns = [f"{metric}_{who}" for who, metric in wide.columns]
    return wide.reset_index()


@st.cache_resource(max_entries=64, show_spinner=False)
def breakdown(base_run: str, tuned_run: str, by: str) -> edge_tables.Breakdown:
    """Intensity of the edges by what `_BREAKDOWNS` names."""
    return _BREAKDOWNS[by](*pair_scores(base_run, tuned_run), Definition(resamples=2000))


_BREAKDOWNS = {
    "layer": edge_tables.by_layer,
    "kind": edge_tables.by_kind,
    "layer and kind": edge_tables.by_layer_and_kind,
    "into heads": edge_tables.into_heads,
    "out of heads": edge_tables.out_of_heads,
}


@st.cache_resource(max_entries=16, show_spinner=False)
def correlation_maps(base_run: str, tuned_run: str) -> tuple[np.ndarray, np.ndarray]:
    """Each model's correlations between its questions' edge scores, as inter-sample diversity uses them."""
    base, tuned = (metrics.correlations(s, Definition()) for s in pair_scores(base_run, tuned_run))
    return base, tuned


@st.cache_resource(max_entries=64, show_spinner=False)
def edge_by_question(base_run: str, tuned_run: str, edges: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of some edges, [question, edge] for base and tuned, questions in the order of `pair_scores`."""
    base, tuned = pair_scores(base_run, tuned_run)
    numbers = [base.graph.number(edge) for edge in edges]
    return tuple(s.edges[:, numbers] for s in (base, tuned))  # type: ignore[return-value]


@_table(32)
def question_circuit(base_run: str, tuned_run: str, question: str) -> pd.DataFrame:
    """The edge table of a single question."""
    base, tuned = pair_scores(base_run, tuned_run)
    k = base.ids.index(question)
    one, other = (replace(s, ids=(question,), edges=s.edges[k : k + 1], loss=s.loss[k : k + 1]) for s in (base, tuned))
    return edge_tables.edge_table(base.graph, edge_tables.edge_values(one, other, Definition(resamples=2)))


@_table(16)
def questions(comparison: str) -> pd.DataFrame:
    """Every question of a comparison with both answers, without the texts of their tokens."""
    table = store().comparisons.questions(comparison)
    return table[[column for column in table if not column.endswith("_pieces")]].copy()


@st.cache_resource(max_entries=64, show_spinner=False)
def same_text(comparison: str, cut: int) -> float | None:
    """The share of the selected questions whose first tokens, up to the cut, are the same in both answers; None where
    an earlier version did not keep the tokens' texts."""
    table = store().comparisons.questions(comparison)
    chosen = table[table["reason"].isna()]
    both = zip(chosen["base_answer_pieces"], chosen["tuned_answer_pieces"], strict=True)
    if chosen.empty or chosen[["base_answer_pieces", "tuned_answer_pieces"]].isna().to_numpy().any():
        return None
    return float(np.mean([list(base[:cut]) == list(tuned[:cut]) for base, tuned in both]))


def sampled_intensity(base_run: str, tuned_run: str, graph: ResidualGraph, loss: Loss) -> Comparison | None:
    """The real intensity of both models as far as checks of some edges tell it; None if there are none."""
    opened, _, results = store().file.revision()
    return _sampled_intensity(opened, results, base_run, tuned_run, graph, loss)


@st.cache_resource(max_entries=64, show_spinner=False)
def _sampled_intensity(
    opened: int, results: int, base_run: str, tuned_run: str, _graph: ResidualGraph, loss: Loss
) -> Comparison | None:
    return evidence.sampled_intensity(store(), (base_run, tuned_run), loss, _graph, RESAMPLED)


@st.cache_resource(max_entries=64, show_spinner=False)
def question(comparison: str, name: str) -> dict[str, Any]:
    """One question of a comparison, with the texts of both answers' tokens."""
    return {str(k): v for k, v in store().comparisons.questions(comparison, name).iloc[0].to_dict().items()}


def positions(run: str, question: str) -> np.ndarray | None:
    """One question's scores at every position, [position, edge]; None if they have not been computed."""
    opened, _, results = store().file.revision()
    return _positions(opened, results, run, question)


@_kept(16)
def _positions(opened: int, results: int, run: str, question: str) -> np.ndarray | None:
    return store().runs.positions(run, question)


@st.cache_resource(max_entries=64, show_spinner=False)
def provenance(base_run: str, tuned_run: str) -> dict[str, RunRow]:
    """Both runs, by side."""
    runs = {row["run_key"]: RunRow.of(row) for row in store().runs.table().to_dict("records")}
    return {"base": runs[base_run], "tuned": runs[tuned_run]}


@st.cache_resource(max_entries=64, show_spinner=False)
def served(rollout: str) -> dict[str, Any]:
    """What is known of answers that an inference server gave; empty where the model itself did, or a file."""
    made = store().rollouts.provenance(rollout)
    names = list(made)
    return {name: made[name] for name in names[names.index(ANSWERED_BY) :]} if ANSWERED_BY in made else {}


def cells(comparison: str, graph: ResidualGraph, unfolded: frozenset[str]) -> pd.DataFrame:
    """The cells of the matrix of every edge, as `probing.figures.cells` makes them."""
    return _cells(comparison, graph, unfolded if folds(graph) else frozenset(), _summary(comparison, "tuned")[0])


@_table(16)
def _cells(comparison: str, graph: ResidualGraph, unfolded: frozenset[str], version: int) -> pd.DataFrame:
    return cells_of(_edge_table(comparison, graph, "tuned", version), graph, unfolded)


# -- what really happens without edges ---------------------------------------------------------------------------------

RESAMPLED = Definition(resamples=2000)
"""With which the intervals of real effects are made, as every edge that is removed makes some of them anew."""


def removed(run: str, loss: Loss) -> evidence.Removed:
    """What is known of a run's edges that were really removed."""
    opened, _, results = store().file.revision()
    return _removed(opened, results, run, loss)


@_kept(32)
def _removed(opened: int, results: int, run: str, loss: Loss) -> evidence.Removed:
    return evidence.removed(store(), run, loss, _measurements)


def checked(keys: tuple[str, str], side: str, loss: Loss) -> pd.DataFrame:
    """Every edge of a side's run, of both sides' `keys`, held against what is known: see `evidence.checked`."""
    return _checked(keys, side, loss, removed(keys[side == "tuned"], loss).keys)


@_table(32)
def _checked(keys: tuple[str, str], side: str, loss: Loss, known: tuple[str, ...]) -> pd.DataFrame:
    return evidence.checked(pair_scores(*keys)[side == "tuned"], removed(keys[side == "tuned"], loss), RESAMPLED)


def effect_table(keys: tuple[str, str], loss: Loss, graph: ResidualGraph) -> pd.DataFrame:
    """An edge table of what really happens, of the edges that were removed from both models: both sides' `keys`."""
    return _effect_table(keys, loss, graph, tuple(removed(run, loss).keys for run in keys))


@_table(16)
def _effect_table(
    keys: tuple[str, str], loss: Loss, graph: ResidualGraph, known: tuple[tuple[str, ...], ...]
) -> pd.DataFrame:
    base, tuned = (removed(run, loss) for run in keys)
    return edge_tables.edge_table(graph, evidence.in_both(base, tuned, graph, RESAMPLED))


def heads_of_edge(run: str, edge: str) -> Measurements | None:
    """What the edges between heads do that an edge is made of; None if nobody has asked."""
    opened, _, results = store().file.revision()
    key = _heads_of_edge(opened, results, run, edge)
    return None if key is None else _measurements(key)


@st.cache_resource(max_entries=256, show_spinner=False)
def _heads_of_edge(opened: int, results: int, run: str, edge: str) -> str | None:
    wanted = {"run": run, "edge": edge, "parts": "heads", "version": str(OneEdge.version)}
    found = store().evaluations.made_with([OneEdge.kind], wanted)
    return next(iter(found), None)


@_kept(256)
def _measurements(evaluation: str) -> Measurements:
    return store().evaluations.values(evaluation)


def everywhere(runs: tuple[str, ...], edge: str, loss: Loss) -> pd.DataFrame:
    """One edge in many runs: see `evidence.everywhere`."""
    opened, _, results = store().file.revision()
    return _everywhere(opened, results, runs, edge, loss)


@_table(16)
def _everywhere(opened: int, results: int, runs: tuple[str, ...], edge: str, loss: Loss) -> pd.DataFrame:
    return evidence.everywhere(store(), runs, edge, loss, RESAMPLED, _measurements)


def runs_of(comparison: str) -> dict[str, str]:
    """The run of each side and step of a comparison, finished or not."""
    opened, _, results = store().file.revision()
    return _runs_of(opened, results, comparison)


@st.cache_resource(max_entries=256, show_spinner=False)
def _runs_of(opened: int, results: int, comparison: str) -> dict[str, str]:
    return store().comparisons.runs(comparison)
