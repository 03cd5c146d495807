"""One edge really removed, because somebody asks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from probing.graph import ResidualGraph, is_edge
from probing.jobs.keys import ground_key
from probing.jobs.tasks.task import BOTH, Case, Cost, Side, Task
from probing.metrics import Definition, Estimate, edge_means
from probing.store import Store
from probing.store.records import EvaluationRow
from probing.words import with_interval

SCORE = "score"
"""The measure of what the run's method says of an edge of heads, which the run itself does not have."""

Parts = Literal["whole", "heads"]

_HEADS = 64
"""Heads of a large attention block, for a forecast."""


@dataclass(frozen=True)
class OneEdge(Task):
    """An edge of one side's run removed, or each of the edges between heads that it is made of, alone.

    Units are the names of the edges, measures those of `Check`; of heads there is also `SCORE`.
    """

    kind = "edge"
    version = 2

    side: Side = "tuned"
    edge: str = "input->logits"
    parts: Parts = "whole"

    def __post_init__(self) -> None:
        """Refuse what makes no sense, in a sentence."""
        fine = self.side in BOTH and self.parts in get_args(Parts) and is_edge(self.edge)
        self.refuse_unless(fine, f"a side, base or tuned, an edge, and {' or '.join(get_args(Parts))}")

    @property
    def words(self) -> str:
        """The edge."""
        of = "the heads of " if self.parts == "heads" else ""
        return f"{of}{self.edge} of {self.side} really removed"

    def settings(self, case: Case) -> dict[str, Any]:
        """The run and the edge."""
        of = {"run": case.runs[self.side], "ground": ground_key(case.samples[self.side])}
        return {**of, "edge": self.edge, "parts": self.parts}

    def cost(self, graph: ResidualGraph, questions: int) -> Cost:
        """A pass for each edge and question, and one with all."""
        return Cost(passes=(2 if self.parts == "whole" else _HEADS**2) * questions)

    @staticmethod
    def lines(store: Store, evaluations: Sequence[EvaluationRow]) -> Iterator[str]:
        """A table with a row for each edge."""
        yield "Single edges really removed: what the loss gains, in nats per token, with 95 % intervals over questions."
        yield ""
        yield "| α | model | edge | questions | estimate | effect |"
        yield "|---" * 6 + "|"
        for row in evaluations:
            scores, found = store.runs.scores(row.settings["run"]), store.evaluations.values(row.evaluation_key)
            effects = found.values[scores.method.loss].T
            estimates = found.values[SCORE].T if SCORE in found.values else scores.of(found.ids, found.units)
            ends = np.transpose(edge_means(effects.astype(np.float64), Definition()))
            for unit, estimate, of_unit in zip(found.units, estimates.mean(0), ends.tolist(), strict=True):
                effect = with_interval(Estimate(*of_unit), "+.3g")
                yield f"| {row.cuts_listed} | {row.side} | {unit} | {len(found.ids)} | {estimate:+.3g} | {effect} |"
