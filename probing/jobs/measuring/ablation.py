"""Edges that are really removed, one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from probing.ablation import effects_by_loss
from probing.attribution import Attributor, References, find_references
from probing.errors import TaskError
from probing.graph import ResidualGraph
from probing.jobs.bench import Bench
from probing.jobs.measuring.stage import Ground, Measuring, OnSamples, Units, Values
from probing.jobs.stages import Say
from probing.jobs.tasks.ablation import Check
from probing.jobs.tasks.edge import SCORE, OneEdge
from probing.method import Loss, told_together
from probing.scoring import attribute
from probing.sequences import Sample

AT_ONCE = 32
"""Edges between two looks at whether the job should go on."""


@dataclass(frozen=True)
class Removing(OnSamples):
    """What is lost without each of some edges, by the loss and reference of a method."""

    number: Mapping[str, int]
    """Of each edge in the graph, by its name."""

    def lay_out(self, bench: Bench) -> Units:
        """The edges."""
        return self.units(self.number, AT_ONCE)

    def measure(self, units: Sequence[str], bench: Bench, say: Say) -> Values:
        """Remove some edges."""
        attributor, references = self.ready(bench, say)
        edges = [self.number[unit] for unit in units]
        return _removed(attributor, self.samples, references, edges, self.method.loss, say)


@dataclass(frozen=True)
class RemovingHeads(OnSamples):
    """What is lost without an edge of blocks, and without each edge between heads that it is made of."""

    edge: str
    graph: ResidualGraph
    """Of the run."""

    def lay_out(self, bench: Bench) -> Units:
        """The edge and its parts, which the model's heads say.

        Raises:
            TaskError: it is between no heads that can be told apart.
        """
        names = tuple(self._number(bench))
        if len(names) < 2:
            raise TaskError(f"The edge '{self.edge}' is between no heads that can be told apart.", "Choose another.")
        return self.units(names, len(names))

    def measure(self, units: Sequence[str], bench: Bench, say: Say) -> Values:
        """Remove them, and score them too."""
        attributor, number = self._divided(bench), self._number(bench)
        method = replace(self.method, granularity="heads")
        references = find_references(attributor, method.reference, self.samples, progress=lambda done: say())
        edges = [number[unit] for unit in units]
        found = _removed(attributor, self.samples, references, edges, method.loss, say)
        if method.path == "exact":
            return found | {SCORE: found[method.loss]}
        estimates = attribute(attributor, self.samples, None, lambda done: say(), method)
        return found | {SCORE: estimates.edges[:, edges].T}

    def _divided(self, bench: Bench) -> Attributor:
        return bench.kept("heads", lambda: Attributor(bench.load(self.wanted)[0].model, "heads"))

    def _number(self, bench: Bench) -> dict[str, int]:
        graph = self._divided(bench).graph
        parts = graph.parts_of([self.graph.number(self.edge)], self.graph.granularity)
        return dict(zip(graph.names(parts), parts.tolist(), strict=True))


def prepare(check: Check, ground: Ground) -> Removing:
    """The edges of a side's run, on its samples."""
    scores = ground.scores(check.side)
    wanted = set(check.drawn(scores.ids))
    samples = tuple(sample for sample in ground.samples(check.side) if sample.id in wanted)
    number = {scores.graph.edges[edge]: edge for edge in check.edges(scores)}
    return Removing(ground.key, ground.wanted(check.side), samples, ground.plan.spec.method, number)


def prepare_one(task: OneEdge, ground: Ground) -> Measuring:
    """An edge, or those between heads that it is made of.

    Raises:
        TaskError: the graph has no such edge.
    """
    graph, samples = ground.scores(task.side).graph, ground.samples(task.side)
    try:
        whole = graph.number(task.edge)
    except ValueError:
        raise TaskError(f"The model's graph has no edge '{task.edge}'.", "Choose one that the page lists.") from None
    how = ground.key, ground.wanted(task.side), samples, ground.plan.spec.method
    return Removing(*how, {task.edge: whole}) if task.parts == "whole" else RemovingHeads(*how, task.edge, graph)


def _removed(
    attributor: Attributor, samples: Sequence[Sample], references: References, edges: Sequence[int], loss: Loss,
    say: Say,
) -> Values:  # fmt: skip
    losses = told_together(loss)
    found = effects_by_loss(attributor, samples, edges, losses, references, progress=lambda done: say())
    return {name: values.T.astype(np.float32) for name, values in zip(losses, found, strict=True)}
