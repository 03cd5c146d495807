"""How far a run's scores say what really happens: over its strongest edges, and over others taken at random.

The two are told apart because scores of the strongest edges are often the least trustworthy ones, and the strongest are
what people look at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from probing.evidence.checks import checked
from probing.evidence.removed import Removed, made_with
from probing.jobs.tasks import Check
from probing.jobs.tasks.ablation import DEFINITION
from probing.metrics import Agreement, Definition, agreement
from probing.scores import Scores
from probing.store import Store

SMALL = 1000
"""Edges of a graph up to which all are shown where all were removed; of a larger one as many as a check would draw."""

_RANKED = 500_000
"""Edges that are ranked for an interval, in all resamples together."""


@dataclass(frozen=True)
class Audit:
    """A run's scores beside what really happens."""

    table: pd.DataFrame
    """What `checked` says of each edge of the first two groups, the strongest edges first, and its `group`."""
    agreement: Mapping[str, Agreement]
    """Of the strongest edges, the others, and `all` of the graph, as far as they were removed on the same questions."""
    edges: int
    """Of the graph."""
    questions: int
    """On which it rests, at least."""

    @property
    def overall(self) -> Agreement | None:
        """Over all edges of the graph, or the random ones where not all were removed; None where none of these were."""
        return self.agreement.get("all") or self.agreement.get("random")

    def count(self, group: str) -> int:
        """How many edges an agreement is of."""
        return self.edges if group == "all" else int((self.table["group"] == group).sum())

    @property
    def whole(self) -> bool:
        """Whether every edge of the graph was removed."""
        return "all" in self.agreement

    def worst(self, most: int) -> pd.DataFrame:
        """The edges with the largest |estimate| of which it says the wrong sign, or more than is there."""
        wrong = self.table[self.table["verdict"].isin(["opposite", "overestimated"])]
        return wrong.loc[wrong["estimate"].abs().sort_values(ascending=False, kind="stable").index[:most]]


def groups(store: Store, run: str, scores: Scores, known: Removed) -> dict[str, list[str]]:
    """The strongest edges of a run and random others that were really removed, by group; nothing where none were.

    Where all edges of the graph are known, they are those that `Check` would take; of a small graph, all others are
    in the second group. Else they are those of the check of this run that has the most questions.
    """
    names = scores.graph.edges
    if known.whole(names):
        check = Check(random=scores.graph.size) if scores.graph.size <= SMALL else Check()
        chosen = [names[number] for number in check.edges(scores)]
        return {"strongest": chosen[: check.strongest], "random": chosen[check.strongest :]}
    mine = list(made_with(store, Check, {"run": run}))
    if not mine:
        return {}
    settings, found = max(mine, key=lambda one: (len(one[1].ids), len(one[1].units)))
    first = settings["strongest"]
    return {"strongest": list(found.units[:first]), "random": list(found.units[first:])}


def audit(scores: Scores, known: Removed, chosen: Mapping[str, Sequence[str]]) -> Audit | None:
    """A run's scores beside what really happens, given what is known of it and the edges of `groups`; None of none."""
    if not any(chosen.values()):
        return None
    group = {edge: name for name, edges in chosen.items() for edge in edges}
    table = checked(scores, known, Definition(), list(group)).assign(group=list(group.values()))
    held = {name: _agreement(scores, known, edges) for name, edges in {**chosen, "all": scores.graph.edges}.items()}
    there = {name: found for name, found in held.items() if found is not None}
    return Audit(table, there, scores.graph.size, int(table["questions"].min()))


def _agreement(scores: Scores, known: Removed, edges: Sequence[str]) -> Agreement | None:
    """Of some edges, on the questions on which all of them were removed; None where there are none."""
    source = known.whole(edges) if edges else None
    if source is None:
        return None
    effects = source.effects[:, [source.place[edge] for edge in edges]]
    definition = replace(DEFINITION, resamples=int(np.clip(_RANKED // len(edges), 200, DEFINITION.resamples)))
    return agreement(scores.of(source.ids, edges), effects, definition)


def best(audits: Mapping[str, Sequence[Audit]]) -> str | None:
    """Of some methods, whose audits are those of both models, the one whose scores rank edges most as reality does:
    over all edges, or over random ones where not all were removed. None where nothing was."""
    ranks = {name: float(np.mean([_rank(found) for found in both])) for name, both in audits.items() if both}
    ranks = {name: rank for name, rank in ranks.items() if np.isfinite(rank)}
    return max(ranks, key=lambda name: ranks[name], default=None)


def _rank(found: Audit) -> float:
    return found.overall.rank.value if found.overall is not None else np.nan
