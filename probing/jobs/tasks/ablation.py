"""A check of scores: some edges really removed, and how far their scores said what happens then."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from probing.graph import ResidualGraph
from probing.jobs.keys import ground_key
from probing.jobs.tasks.task import BOTH, Case, Cost, Side, Task
from probing.metrics import Definition, agreement
from probing.scores import Scores
from probing.store import Store
from probing.store.records import EvaluationRow
from probing.words import of_agreement

DEFINITION = replace(Definition(), resamples=2000)
"""With which the intervals are made: each resample ranks all edges anew."""


@dataclass(frozen=True)
class Check(Task):
    """The `strongest` edges of one side's run and `random` others of it, each removed alone, on the run's questions.

    Units are the names of the edges: the strongest first, by mean |score|, then the others as they were drawn. Measures
    are named by losses, that of the scores among them: each question's loss without the edge minus its loss, in nats
    per scored token.
    """

    kind = "ablation"
    version = 2

    side: Side = "tuned"
    strongest: int = 50
    random: int = 100
    seed: int = 0
    """Of the draws."""
    questions: int = 0
    """How many of the run's are drawn; 0 for all."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, in a sentence."""
        counts = self.strongest, self.random, self.questions
        fine = self.side in BOTH and min(counts) >= 0 and max(counts[:2]) > 0
        self.refuse_unless(fine, "a side, base or tuned, at least one edge, and no fewer than 0 questions")

    @property
    def words(self) -> str:
        """The edges."""
        return f"{self.strongest} strongest and {self.random} random edges of {self.side} really removed"

    def settings(self, case: Case) -> dict[str, Any]:
        """The run, which has its model, samples and method, and which of its edges."""
        which = {"strongest": self.strongest, "random": self.random, "seed": self.seed, "questions": self.questions}
        return {"run": case.runs[self.side], "ground": ground_key(case.samples[self.side]), **which}

    def cost(self, graph: ResidualGraph, questions: int) -> Cost:
        """A pass for each edge and question, and one with all edges: less, since passes go on from the edge's layer."""
        asked = min(self.questions or questions, questions)
        return Cost(passes=(min(self.strongest + self.random, graph.size) + 1) * asked)

    def edges(self, scores: Scores) -> list[int]:
        """The numbers of the edges of a run that are removed."""
        strength = np.abs(scores.edges).mean(0, dtype=np.float64)
        order = np.argsort(-strength, kind="stable")
        rest = np.sort(order[self.strongest :]).tolist()
        drawn = random.Random(self.seed).sample(rest, min(self.random, len(rest)))
        return [*order[: self.strongest].tolist(), *drawn]

    def drawn(self, ids: Sequence[str]) -> list[str]:
        """The questions on which edges are removed, in the order in which they stand."""
        if not 0 < self.questions < len(ids):
            return list(ids)
        chosen = set(random.Random(self.seed).sample(sorted(ids), self.questions))
        return [name for name in ids if name in chosen]

    @staticmethod
    def lines(store: Store, evaluations: Sequence[EvaluationRow]) -> Iterator[str]:
        """A table with a row for the strongest and one for the random edges of each evaluation."""
        yield (
            "Edges really removed, one at a time. Rank: Spearman's correlation of strengths, mean |score| with mean "
            "|effect|; signs: the share of edges whose mean score and mean effect have the same; size: mean |effect| "
            "over mean |score|. With 95 % intervals over questions."
        )
        yield ""
        yield "| α | model | edges | questions | rank | signs | size |"
        yield "|---" * 7 + "|"
        for row in evaluations:
            scores, found = store.runs.scores(row.settings["run"]), store.evaluations.values(row.evaluation_key)
            effects, of_units = found.values[scores.method.loss].T, scores.of(found.ids, found.units)
            first = min(row.settings["strongest"], len(found.units))
            for words, part in (("strongest", slice(0, first)), ("random", slice(first, None))):
                names = found.units[part]
                if names:
                    cells = " | ".join(of_agreement(agreement(of_units[:, part], effects[:, part], DEFINITION)))
                    yield f"| {row.cuts_listed} | {row.side} | {len(names)} {words} | {len(found.ids)} | {cells} |"
