"""What the store says of one comparison, one run, one evaluation or one job, as values that have a type.

Lists of them are tables, for those who filter them; `of` makes a row of such a table one of these.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.cuts import Cut, as_one, cut_of
from probing.graph import ResidualGraph

ACTIVE = ("queued", "running")
"""The states of a job that has not ended."""


@dataclass(frozen=True)
class JobRow:
    """A job: what it was asked to do, and what has become of it."""

    job_id: int
    spec: dict[str, Any]
    status: str
    stage: str
    done: int
    total: int
    message: str
    attempts: int
    """How often in a row its worker has died at the same batch."""
    created: datetime
    started: datetime | None
    finished: datetime | None
    stage_started: datetime | None
    died_at: str | None
    requested_by: str | None
    urgent: bool
    """Whether somebody waits for it."""
    numerics: dict[str, Any] | None
    """On what it is computed, and in which dtypes, once a worker has found out."""
    workers: tuple[str, ...]
    """Who is at it."""

    @staticmethod
    def of(row: Mapping[Any, Any]) -> "JobRow":
        """A row of `Queue.jobs`."""
        workers = row["workers"] if isinstance(row["workers"], np.ndarray | list) else ()
        return _made(JobRow, {**row, "workers": tuple(workers)}, "spec", "numerics")

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ACTIVE

    def turn(self) -> tuple[bool, bool, int]:
        """By which jobs that have not ended are sorted as they are done."""
        return self.status != "running", not self.urgent, self.job_id


@dataclass(frozen=True)
class ComparisonRow:
    """A comparison: what it is of, and what there is of it."""

    comparison_key: str
    pair: str
    question_set: str
    cohort: str
    at: Cut
    settings: dict[str, Any]
    """All that decides it."""
    rollout_settings: dict[str, Any]
    """All that decided the base's answers."""
    created: datetime
    base_rollout: str
    tuned_rollout: str
    ready: bool
    up_to_date: bool
    base_accuracy: float
    tuned_accuracy: float
    failure: str | None
    """Why nothing was selected."""
    warning: str | None
    cut: int | None
    """To how many tokens its cut came."""
    mean_length: float | None
    counts: dict[str, int] | None
    """Questions in each cohort and at each stage of the selection."""
    base_run: str | None
    tuned_run: str | None
    graph: ResidualGraph | None

    @property
    def accuracies(self) -> tuple[float, float]:
        """The shares of right answers of base and tuned."""
        return self.base_accuracy, self.tuned_accuracy

    @staticmethod
    def of(row: Mapping[Any, Any]) -> "ComparisonRow":
        """A row of `Comparisons.table`."""
        graph = row["graph"]
        graph = ResidualGraph.from_text(graph) if isinstance(graph, str) else None
        return _made(ComparisonRow, {**row, **_at(row), "graph": graph}, "settings", "rollout_settings", "counts")


@dataclass(frozen=True)
class SameTokens:
    """Comparisons that are alike but for how their cuts are given, and score the same tokens: one row, one point."""

    rows: tuple[ComparisonRow, ...]
    """In the order of their cuts."""

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The cuts that come to the same."""
        return tuple(row.at for row in self.rows)

    @property
    def words(self) -> str:
        """All cuts, and to how many tokens they come: `0.03, 0.1: first token`."""
        return as_one(self.cuts, self.rows[0].cut)

    @property
    def heading(self) -> str:
        """The same where no heading says what it is: `α 0.03, 0.1: first token`."""
        return as_one(self.cuts, self.rows[0].cut, "α ")

    def row(self, at: Cut) -> ComparisonRow:
        """The comparison that stands for all: that of a cut in view, if it is one of them."""
        return next((row for row in self.rows if row.at == at), self.rows[0])


def same_tokens(comparisons: Iterable[ComparisonRow]) -> list[SameTokens]:
    """Comparisons that are alike, those together that score the same tokens, in the order of their cuts.

    A run's key says which model was scored on which questions, cut after how many tokens, and how: comparisons of a
    pair that have the same runs differ in nothing but how their cuts are given. One without runs is like no other.
    """
    found: dict[tuple[str, ...], list[ComparisonRow]] = {}
    for row in sorted(comparisons, key=lambda row: row.at):
        runs = (row.base_run, row.tuned_run) if row.base_run and row.tuned_run else (row.comparison_key,)
        found.setdefault((row.pair, *runs), []).append(row)
    return [SameTokens(tuple(rows)) for rows in found.values()]


@dataclass(frozen=True)
class RunRow:
    """A run, as a side of one of the comparisons that it serves."""

    run_key: str
    pair: str
    side: str
    model: str
    question_set: str
    cohort: str
    at: Cut
    samples: int
    scored: int
    """How many of its samples are there."""
    graph: str
    identity: str
    settings: dict[str, Any]
    created: datetime
    provenance: dict[str, Any] | None
    seconds: float | None
    finished: datetime | None

    @staticmethod
    def of(row: Mapping[Any, Any]) -> "RunRow":
        """A row of `Runs.table`."""
        return _made(RunRow, {**row, **_at(row)}, "settings", "provenance")


@dataclass(frozen=True)
class Subject:
    """What an evaluation is of: a side of a comparison, a comparison, or a pair as a whole."""

    pair: str
    question_set: str
    comparison_key: str | None = None
    side: str | None = None


@dataclass(frozen=True)
class Measurements:
    """What there is of an evaluation."""

    ids: tuple[str, ...]
    """What each unit's values are over: questions."""
    units: tuple[str, ...]
    """The units that are there, in the evaluation's order."""
    values: dict[str, Float[np.ndarray, "unit id"]]
    """By measure; NaN where a unit lacks it."""


@dataclass(frozen=True)
class EvaluationRow:
    """An evaluation, as one of one of its subjects."""

    evaluation_key: str
    kind: str
    pair: str
    question_set: str
    comparison_key: str | None
    side: str | None
    cohort: str | None
    cuts: tuple[Cut, ...]
    """The cut of its comparison, none where it is of a pair; several where they score the same tokens."""
    units: int
    measured: int
    """How many of its units are there."""
    questions: int
    settings: dict[str, Any]
    created: datetime
    provenance: dict[str, Any] | None
    seconds: float | None
    finished: datetime | None

    @property
    def cuts_listed(self) -> str:
        """Its cuts, as a table has them."""
        return ", ".join(map(str, self.cuts))

    @staticmethod
    def of(row: Mapping[Any, Any]) -> "EvaluationRow":
        """A row of `Evaluations.table`."""
        return _made(EvaluationRow, {**row, "cuts": tuple(filter(None, _at(row).values()))}, "settings", "provenance")


Row = TypeVar("Row", JobRow, ComparisonRow, RunRow, EvaluationRow)


def _at(row: Mapping[Any, Any]) -> dict[str, Cut | None]:
    """The cut that the columns of a row hold."""
    return {"at": cut_of(row["alpha"], row["tokens"])}


def _made(kind: type[Row], row: Mapping[Any, Any], *texts: str) -> Row:
    """A record of a row's values, of which some are JSON; what is missing is None."""
    values = {field.name: row[field.name] for field in fields(kind)}
    there = {name: v for name, v in values.items() if not (pd.api.types.is_scalar(v) and pd.isna(v))}
    found: dict[str, Any] = {**dict.fromkeys(values), **there}
    found |= {name: json.loads(there[name]) for name in texts if name in there}
    return kind(**found)
