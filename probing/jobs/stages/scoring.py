"""Scores of edges."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probing.graph import ResidualGraph
from probing.jobs.bench import Bench
from probing.jobs.plan import Wanted
from probing.jobs.stages.stage import Emit, Say, Stage
from probing.method import Method
from probing.models import vocabulary_digest
from probing.scoring import samples_at_once, score
from probing.sequences import Sample
from probing.store.spool import ScoreBatch


@dataclass(frozen=True)
class ScoringLayout:
    """What is scored, and how many samples at once."""

    graph: ResidualGraph
    at_once: int
    vocabulary: str
    """Digest of the tokenizer's."""


@dataclass(frozen=True)
class Scoring(Stage[ScoringLayout]):
    """The scores of one model's edges on samples, by a method and those that are made with it."""

    keys: tuple[str, ...]
    """Of the runs of these methods (`probing.scoring.together`)."""
    wanted: Wanted
    samples: tuple[Sample, ...]
    method: Method
    at_once: int = 1
    """Samples of a batch, as the run has it."""

    @property
    def key(self) -> str:  # type: ignore[override]
        """Of the run of the method itself."""
        return self.keys[0]

    def lay_out(self, bench: Bench) -> ScoringLayout:
        """The graph, and as many samples as fit.

        Raises:
            SequenceError: a sample that the model cannot score.
        """
        attributor, tokenizer = bench.load(self.wanted)
        attributor.check(self.samples)
        fit = min(attributor.batch_that_fits(self.samples), len(self.samples))
        at_once = samples_at_once(self.method, attributor.graph.size, fit)
        return ScoringLayout(attributor.graph, at_once, vocabulary_digest(tokenizer))

    def do(self, items: Sequence[str], bench: Bench, say: Say, emit: Emit) -> None:
        """Score some samples."""
        attributor, _ = bench.load(self.wanted)
        kind, by_id = self.method.reference, {sample.id: sample for sample in self.samples}
        references = bench.references(self.wanted, kind, self.samples, say, self.at_once)

        def together(ids: list[str]) -> None:
            parts = score(attributor, [by_id[name] for name in ids], self.method, references, say)
            for key, part in zip(self.keys, parts, strict=True):
                emit(ScoreBatch(key, part.ids, part.loss, part.edges))

        bench.in_batches(items, together)

    def made(self, bench: Bench) -> dict[str, Any]:
        """Also in batches of which size."""
        cut = bench.limit
        return super().made(bench) | {"batch size": f"{self.at_once}, then {cut}" if cut else f"{self.at_once}"}
