"""What really happens without edges of one run's model, on the run's questions.

It is found out in several ways: a run by the method `exact` has all edges, a `Check` some, and a `OneEdge` those that a
person asked for. All of them are of one *ground* (`keys.ground_key`): the same model, samples and reference. By which
method a run estimates effects is no part of it, so what was found for one is there for all.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from probing.jobs.keys import exact_key, ground_key
from probing.jobs.tasks import Check, OneEdge, Task
from probing.method import Loss
from probing.store import Store
from probing.store.records import Measurements

Read = Callable[[str], Measurements]
"""Gives what a finished evaluation found, by its key."""


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
    keys: tuple[str, ...] = ()
    """Of the runs and evaluations that they come from: as these never change, what is made of them can be kept."""

    @property
    def nbytes(self) -> int:
        """Of the effects."""
        return sum(source.effects.nbytes for source in self.sources)

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


def removed(store: Store, run: str, loss: Loss, read: Read | None = None) -> Removed:
    """What is known of the edges of a run's model, on a loss; `read` may keep what evaluations found.

    Raises:
        StoreError: there is no such run.
    """
    settings, found = store.runs.settings(run), []
    exact = exact_key(settings, loss)
    if store.runs.finished(exact):
        scores = store.runs.scores(exact)
        found.append((exact, Source(scores.ids, scores.graph.edges, scores.edges)))
    found += _measured(store, ground_key(settings), loss, read or store.evaluations.values)
    return _best_first(found)


def removed_everywhere(
    store: Store, runs: Sequence[str], edge: str, loss: Loss, read: Read | None = None
) -> dict[str, Removed]:
    """What is known of one edge, by run: of all of them at once, and of no other edge.

    Raises:
        StoreError: there is no such run.
    """
    settings = {run: store.runs.settings(run) for run in runs}
    exact = {run: exact_key(of_run, loss) for run, of_run in settings.items()}
    effects, found = store.runs.of_edge([*exact.values()], edge), {}
    for run, key in exact.items():
        if key in effects:
            values = np.array([*effects[key].values()])[:, None]
            found[run] = _best_first([(key, Source(tuple(effects[key]), (edge,), values))])
        else:
            ground = ground_key(settings[run])
            found[run] = _best_first(_measured(store, ground, loss, read or store.evaluations.values))
    return found


def _measured(store: Store, ground: str, loss: Loss, read: Read) -> Iterator[tuple[str, Source]]:
    """What finished evaluations of a ground found of a loss, by their keys: those that this version makes so."""
    for task in (Check, OneEdge):
        for key in _made_with(store, task, {"ground": ground}):
            measured = read(key)
            if loss in measured.values:
                yield key, Source(measured.ids, measured.units, measured.values[loss].T)


def made_with(
    store: Store, task: type[Task], settings: Mapping[str, str]
) -> Iterator[tuple[dict[str, Any], Measurements]]:
    """All settings of each finished evaluation that has some of them, as this version makes it, and what it found."""
    for key in _made_with(store, task, settings):
        yield store.evaluations.settings(key), store.evaluations.values(key)


def _made_with(store: Store, task: type[Task], settings: Mapping[str, str]) -> list[str]:
    return store.evaluations.made_with([task.kind], {**settings, "version": str(task.version)})


def _best_first(found: Iterable[tuple[str, Source]]) -> Removed:
    """Sources over the same questions become one."""
    keys: list[str] = []
    of_questions: dict[tuple[str, ...], list[Source]] = {}
    for key, source in found:
        keys.append(key)
        of_questions.setdefault(source.ids, []).append(source)
    sources = sorted(map(_together, of_questions.values()), key=lambda source: -len(source.ids))
    return Removed(tuple(sources), tuple(keys))


def _together(sources: Sequence[Source]) -> Source:
    if len(sources) == 1:
        return sources[0]
    edges = [edge for source in sources for edge in source.edges]
    places = {edge: place for place, edge in reversed([*enumerate(edges)])}  # of an edge, the first
    effects = np.concatenate([source.effects for source in sources], axis=1)[:, [*places.values()]]
    return Source(sources[0].ids, tuple(places), effects)
