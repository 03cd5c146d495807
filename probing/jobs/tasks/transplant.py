"""One model's parts in the other: what each gains or loses, and how many it takes to become the other."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from probing.graph import ResidualGraph
from probing.jobs.tasks.task import Case, Cost, Task
from probing.store import Store
from probing.store.records import EvaluationRow, Measurements
from probing.transplant.account import account, sentence
from probing.transplant.findings import MEASURES, Findings, Measure, table
from probing.transplant.units import DIRECTIONS, HOSTS, WHATS, Direction, Values, What, parts_among, units_of


@dataclass(frozen=True)
class Transplant(Task):
    """Each part of one model of a pair put into the other, and, of weights, one after the other until all are there.

    Units are named as in `probing.transplant.units`. Both models read the tuned model's answers, whole; of weights,
    questions are answered again, where they can be graded.
    """

    kind = "transplant"
    version = 1
    of_pair = True
    together = True

    what: What = "weights"
    direction: Direction = "into-base"
    samples: int = 0
    """Questions that are drawn; 0 for all."""
    seed: int = 0
    """Of the draw."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, in a sentence."""
        fine = self.what in WHATS and self.direction in DIRECTIONS and self.samples >= 0
        self.refuse_unless(fine, f"{' or '.join(WHATS)}, {' or '.join(DIRECTIONS)}, and no fewer than 0 samples")

    @property
    def words(self) -> str:
        """Whose parts, and where."""
        host, donor = HOSTS[self.direction]
        return f"{self.what} of {donor} in {host}"

    def settings(self, case: Case) -> dict[str, Any]:
        """Both models and what they were asked, the parts, and which questions."""
        which = {"samples": self.samples, "seed": self.seed} if self.samples else {"samples": 0}
        parts = "heads" if case.method["granularity"] == "heads" else "projections"
        how = {"what": self.what, "direction": self.direction, "granularity": parts, "scored": dict(case.scored)}
        return {"answers": {side: dict(asked) for side, asked in case.answers.items()}, **how, **which}

    def cost(self, graph: ResidualGraph, questions: int) -> Cost:
        """Of weights, three models a part, each of which reads and answers; of activations, two passes a part."""
        asked = self.drawn(questions)
        if self.what == "activations":
            return Cost(passes=2 * (len(graph.writers) + 1) * len(asked))
        parts = sum(map(len, graph.nodes.values())) + (graph.layers if graph.granularity == "heads" else 0)
        models = 3 * parts
        return Cost(passes=models * len(asked), answers=models * len(asked))

    def drawn(self, questions: int) -> list[int]:
        """The places of the questions that are asked, of so many."""
        everyone = range(questions)
        if not 0 < self.samples < questions:
            return list(everyone)
        return sorted(random.Random(self.seed).sample(everyone, self.samples))

    @staticmethod
    def lines(store: Store, evaluations: Sequence[EvaluationRow]) -> Iterator[str]:
        """Tables of each evaluation: parts alone, and one after the other."""
        yield (
            "Parts of one model in the other. Moved by: the norm of what tuning changed over the base's norm; points: "
            "right answers more than the host's, in percent of the questions; loss: nats per token of the tuned "
            "model's answers, and its change from the host's; gap closed: that change as a share of the two models' "
            "difference. With 95 % intervals over questions."
        )
        groups: dict[tuple[str, What], list[tuple[Direction, list[str], Findings]]] = {}
        for row in sorted(evaluations, key=lambda row: (row.settings["granularity"] == "heads", row.created)):
            group = groups.setdefault((row.settings["granularity"], row.settings["what"]), [])
            group.append((row.settings["direction"], *found(store, row)))
        for (_, what), group in groups.items():
            yield from _accounts(what, group)
            for told in group:
                yield ""
                yield from table(what, *told)


def _accounts(what: What, group: Sequence[tuple[Direction, list[str], Findings]]) -> Iterator[str]:
    """A sentence for each measure of what some tables of one pair say together."""
    parts, findings = {way: parts for way, parts, _ in group}, {way: found for way, _, found in group}
    for measure in MEASURES:
        if (made := account(findings, parts, measure, what)) is not None:
            yield ""
            yield f"By {_MEASURES[measure]}, {what}: {sentence(made)}"


_MEASURES: dict[Measure, str] = {"correct": "right answers", "loss": "the loss"}


def found(store: Store, row: EvaluationRow) -> tuple[list[str], Findings]:
    """The parts of a finished evaluation, in order, and what was measured of them."""
    measured = store.evaluations.values(row.evaluation_key)
    parts = parts_among(measured.units, row.settings["what"], row.settings["direction"])
    return parts, Findings(values_of(measured), (row.provenance or {}).get("moved", {}))


def rows(store: Store, row: EvaluationRow) -> list[dict[str, Any]]:
    """Every unit of a finished evaluation, as `--json` prints it; of each step, the part that it adds is the last."""
    parts, findings = found(store, row)
    of = {"pair": row.pair, "question_set": row.question_set, "granularity": row.settings["granularity"]}
    units = units_of(row.settings["what"], row.settings["direction"], parts, findings.values)
    return [of | findings.of(unit).as_json() | {"moved": findings.moved_by(unit)} for unit in units]


def values_of(measured: Measurements) -> dict[str, Values]:
    """Measures by unit."""
    return {
        unit: {measure: values[place] for measure, values in measured.values.items()}
        for place, unit in enumerate(measured.units)
    }
