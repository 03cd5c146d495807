"""Scores of one question, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass

from probing.jobs.bench import Bench
from probing.jobs.plan import Wanted
from probing.jobs.stages.stage import Emit, Say, Stage
from probing.method import Method
from probing.sequences import Sample
from probing.store.spool import PositionBatch


@dataclass(frozen=True)
class Resolving(Stage[None]):
    """The scores of one question's sample at every position; its one item is the question."""

    key: str
    """Of the run."""
    wanted: Wanted
    samples: tuple[Sample, ...]
    """Of the run: a mean is over all of them."""
    method: Method

    def lay_out(self, bench: Bench) -> None:
        """There is nothing to be told."""

    def do(self, items: Sequence[str], bench: Bench, say: Say, emit: Emit) -> None:
        """Score it."""
        attributor, _ = bench.load(self.wanted)
        references = bench.references(self.wanted, self.method.reference, self.samples, say)
        for sample in self.samples:
            if sample.id in items:
                emit(PositionBatch(self.key, sample.id, attributor.score_positions(sample, self.method, references)))
