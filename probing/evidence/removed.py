"""What really happens without edges of one run's model, on the run's questions.

It is found out in several ways: a run by the method `exact` has all edges, a `Check` some, and a `OneEdge` those that a
person asked for. All of them are of one *ground* (`keys.ground_key`): the same model, samples and reference. By which
method a run estimates effects is no part of it, so what was found for one is there for all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from probing.jobs.keys import exact_key, ground_key
from probing.jobs.tasks import Check, OneEdge
from probing.method import Loss
from probing.store import Store
from probing.store.records import EvaluationRow


@dataclass(frozen=True)
class Source:
    """Effects of some edges on a loss, over some questions."""

    ids: tuple[str, ...]
    edges: tuple[str, ...]
    effects: Float[np.ndarray, "sample edge"]
    """Of the loss without the edge minus the loss, in nats per scored token."""
    place: dict[str, int] = field(init=False, repr=False)
    """Of each edge."""

    def __post_init__(self) -> None:
        """Find places."""
        object.__setattr__(self, "place", {edge: number for number, edge in enumerate(self.edges)})


@dataclass(frozen=True)
class Removed:
    """All that is known; of an edge that several sources have, the one with the most questions speaks."""

    sources: tuple[Source, ...]
    """Those with the most questions first."""

    def of(self, edge: str) -> tuple[tuple[str, ...], Float[np.ndarray, " sample"]] | None:
        """The questions, and the effects of an edge on them; None if it was never removed."""
        for source in self.sources:
            if (place := source.place.get(edge)) is not None:
                return source.ids, source.effects[:, place]
        return None

    def grouped(
        self, edges: Iterable[str]
    ) -> Iterator[tuple[tuple[str, ...], list[str], Float[np.ndarray, "sample edge"]]]:
        """Those of some edges that are known, with their questions: a group for each source that speaks."""
        left = list(dict.fromkeys(edges))
        for source in self.sources:
            mine = [edge for edge in left if edge in source.place]
            if mine:
                yield source.ids, mine, source.effects[:, [source.place[edge] for edge in mine]]
                left = [edge for edge in left if edge not in source.place]

    def whole(self, edges: Sequence[str]) -> Source | None:
        """The source with the most questions that has all of these edges, if there is one."""
        return next((source for source in self.sources if all(edge in source.place for edge in edges)), None)


def removed(store: Store, run: str, loss: Loss) -> Removed:
    """What is known of the edges of a run's model, on a loss.

    Raises:
        StoreError: there is no such run.
    """
    settings = store.runs.settings(run)
    found = []
    exact = exact_key(settings, loss)
    if store.runs.finished(exact):
        scores = store.runs.scores(exact)
        found.append(Source(scores.ids, scores.graph.edges, scores.edges))
    ground = ground_key(settings)
    table = store.evaluations.table()
    table = table[table["kind"].isin([Check.kind, OneEdge.kind]) & table["finished"].notna()]
    for row in map(EvaluationRow.of, table.drop_duplicates("evaluation_key").to_dict("records")):
        if row.settings.get("ground") != ground:
            continue
        measured = store.evaluations.values(row.evaluation_key)
        if loss in measured.values:
            found.append(Source(measured.ids, measured.units, measured.values[loss].T))
    return Removed(tuple(sorted(found, key=lambda source: -len(source.ids))))
