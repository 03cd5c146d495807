"""What can be asked of a store, wherever it runs: one protocol for each of its parts.

A method that is to be called from other processes is named here: `sharing` makes the calls of another process from
these names and the owner answers no others. The classes of the same names, without `Queries`, say what each does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.graph import ResidualGraph
from probing.rollouts import Answer, Selected
from probing.scores import Scores
from probing.store.records import JobRow, Measurements, Subject
from probing.store.spool import Spool
from probing.summary import Summary


class ConnectionQueries(Protocol):
    """The file as a whole."""

    def verify(self) -> None: ...
    def snapshot(self) -> Path: ...
    def revision(self) -> tuple[int, int, int]: ...
    def memory(self) -> int: ...


class BatchesQueries(Protocol):
    """What waits to be taken in."""

    def ingest(self) -> int: ...


class QueueQueries(Protocol):
    """Jobs, and the workers that they are lent to."""

    def submit(self, spec: dict[str, Any], requested_by: str | None = None) -> int: ...
    def claim(self, worker: str, job_id: int | None = None) -> tuple[int, dict[str, Any]] | None: ...
    def release(self, worker: str | None = None) -> None: ...
    def bury(self, pid: int) -> None: ...
    def report(self, job_id: int, worker: str, stage: str, done: int, total: int) -> bool: ...
    def greet(self, worker: str) -> None: ...
    def silent_for(self, pid: int) -> float: ...
    def end(self, job_id: int, status: str, message: str = "", worker: str | None = None) -> None: ...
    def jobs(self) -> pd.DataFrame: ...
    def job(self, job_id: int) -> JobRow: ...


class RolloutsQueries(Protocol):
    """Answers."""

    def start(
        self, key: str, model: str, identity: str, question_set: str, settings: dict[str, Any], questions: int
    ) -> None: ...
    def finish(self, key: str, provenance: dict[str, Any], seconds: float) -> None: ...
    def finished(self, key: str) -> bool: ...
    def answered(self, key: str) -> set[str]: ...
    def answers(self, key: str) -> list[Answer]: ...
    def texts(self, key: str) -> dict[str, str]: ...


class ComparisonsQueries(Protocol):
    """Selections, and the runs that they are made of."""

    def save(
        self,
        key: str,
        pair: str,
        question_set: str,
        rollouts: tuple[str, str],
        settings: dict[str, Any],
        selected: Selected | None,
        warning: str | None = None,
        failure: str | None = None,
    ) -> None: ...
    def saved(self, key: str) -> bool: ...
    def link(self, key: str, runs: Mapping[str, str]) -> dict[str, str]: ...
    def runs(self, key: str) -> dict[str, str]: ...
    def settled(self, request_key: str, steps: Sequence[str] = ()) -> bool: ...
    def table(self) -> pd.DataFrame: ...
    def questions(self, key: str, question_id: str | None = None) -> pd.DataFrame: ...
    def steps(self, key: str) -> pd.DataFrame: ...


class RunsQueries(Protocol):
    """Scores."""

    def start(
        self,
        key: str,
        model: str,
        identity: str,
        graph: ResidualGraph,
        samples: int,
        batch_size: int,
        settings: dict[str, Any],
    ) -> int: ...
    def finish(self, key: str, provenance: dict[str, Any], seconds: float) -> None: ...
    def finished(self, key: str) -> bool: ...
    def scored(self, key: str) -> set[str]: ...
    def table(self) -> pd.DataFrame: ...
    def scores(self, key: str) -> Scores: ...
    def save_positions(self, key: str, question_id: str, scores: Float[np.ndarray, "position edge"]) -> None: ...
    def positions(self, key: str, question_id: str) -> Float[np.ndarray, "position edge"] | None: ...


class SummariesQueries(Protocol):
    """What pages show of a comparison at once."""

    def save(self, comparison_key: str, side: str, summary: Summary) -> None: ...
    def saved(self, comparison_key: str, side: str) -> bool: ...
    def metrics(self) -> pd.DataFrame: ...
    def questions(self, comparison_key: str, side: str = "tuned") -> pd.DataFrame: ...
    def edges(self, comparison_key: str, side: str = "tuned") -> pd.DataFrame: ...


class EvaluationsQueries(Protocol):
    """What was measured beside scores."""

    def start(
        self,
        key: str,
        kind: str,
        subject: Subject,
        settings: dict[str, Any],
        units: Sequence[str],
        ids: Sequence[str],
    ) -> None: ...
    def link(self, key: str, subject: Subject) -> None: ...
    def finish(self, key: str, provenance: dict[str, Any], seconds: float) -> None: ...
    def finished(self, key: str) -> bool: ...
    def measured(self, key: str) -> set[str]: ...
    def values(self, key: str) -> Measurements: ...
    def table(self) -> pd.DataFrame: ...


class Store(Protocol):
    """An open store: in this process, in another, or a snapshot that is only read."""

    path: Path
    read_only: bool
    spool: Spool
    file: ConnectionQueries
    batches: BatchesQueries
    queue: QueueQueries
    rollouts: RolloutsQueries
    comparisons: ComparisonsQueries
    runs: RunsQueries
    summaries: SummariesQueries
    evaluations: EvaluationsQueries

    def close(self) -> None:
        """Give the store up."""


PARTS: dict[str, type] = {n: part for n, part in get_type_hints(Store).items() if part.__name__.endswith("Queries")}
"""The protocol of each part of a store that others may call."""

QUERIES = {part: frozenset(n for n in vars(protocol) if not n.startswith("_")) for part, protocol in PARTS.items()}
"""The names of what the owner of a store answers, by the part that has them."""
