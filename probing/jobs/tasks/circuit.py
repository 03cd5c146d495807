"""How much of a model circuits keep: those found from its own scores, from the other side's, and random ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float

from probing import metrics
from probing.extraction import SHARES, Best, Extraction, circuits, random_circuits
from probing.graph import ResidualGraph
from probing.jobs.tasks.task import BOTH, Case, Cost, Side, Task
from probing.metrics import AREAS, Definition, areas, kept
from probing.scores import Scores
from probing.store import Store
from probing.store.records import EvaluationRow, Measurements
from probing.words import span, with_interval

MEASURE = "margin"
"""What the curve is of."""

FAITHFUL = 0.8
"""The share that a circuit must keep to count as the model's."""

_BETWEEN = SHARES[:-1]

_LARGE = (0.6, 0.7, 0.8, 0.9)
"""Shares between the two largest of MIB's, to say how many edges it takes where that is more than half. Areas are not
laid under them."""


@dataclass(frozen=True)
class Curve(Task):
    """The circuits of both sides' scores, and `random` ones as large as those of its own, run in one side's model on
    what that model is scored on; the reference is that of the scores.

    Units are `none:0` first, then such as `base:top:0.05:41`: whose scores, the extraction, the share asked for, and
    the edges that the circuit has; of random circuits, `random0:top:0.05:41`; and last all edges, such as `all:826`.
    """

    kind = "circuit"
    version = 2

    side: Side = "tuned"
    extract: str = "top"
    by: str = "magnitude"
    random: int = 3
    seed: int = 0
    """Of the draw."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, in a sentence."""
        fine = self.side in BOTH and self.extract in get_args(Extraction) and self.by in get_args(Best)
        needed = f"a side, base or tuned, {' or '.join(get_args(Extraction))}, and {' or '.join(get_args(Best))}"
        self.refuse_unless(fine and self.random >= 0 and self.seed >= 0, needed)

    @property
    def words(self) -> str:
        """Which circuits, and where."""
        return f"circuits of both sides ({self.extract}, {self.by}) and {self.random} random ones run in {self.side}"

    def settings(self, case: Case) -> dict[str, Any]:
        """Both sides' runs, the model's own first: it has its model, samples and method. Units are named by sides."""
        own, other = case.runs[self.side], case.runs[_other(self.side)]
        which = {"extract": self.extract, "by": self.by, "random": self.random, "seed": self.seed}
        return {"side": self.side, "run": own, "other": other, "reference": case.method["reference"], **which}

    def cost(self, graph: ResidualGraph, questions: int) -> Cost:
        """A pass for each circuit and question, and the whole again with each batch of units."""
        circuits = len(_BETWEEN) * (2 + self.random) + 2 * len(_LARGE)
        return Cost(passes=(circuits + 3 + self.random) * questions)

    def circuits(self, scores: Mapping[str, Scores]) -> dict[str, Bool[np.ndarray, " edge"]]:
        """Every unit's edges, given both sides' scores."""
        graph = scores[self.side].graph
        made = {"none:0": np.zeros(graph.size, bool)}
        sizes: list[int] = []
        for whose in (self.side, _other(self.side)):
            mean = scores[whose].edges.mean(0, dtype=np.float64)
            found = circuits(graph, mean, self.extract, self.by, (*_BETWEEN, *_LARGE))  # type: ignore[arg-type]
            sizes = sizes or found.sum(1).tolist()[: len(_BETWEEN)]
            made |= self._named(whose, found)
        for draw in range(self.random):
            rng = np.random.default_rng([self.seed, draw])
            made |= self._named(f"random{draw}", random_circuits(graph, sizes, rng))
        return made | {f"all:{graph.size}": np.ones(graph.size, bool)}

    def _named(self, whose: str, found: Bool[np.ndarray, "share edge"]) -> dict[str, Bool[np.ndarray, " edge"]]:
        rows = zip((*_BETWEEN, *_LARGE), found, strict=False)  # there are no large ones at random
        return {f"{whose}:{self.extract}:{share:g}:{inside.sum()}": inside for share, inside in rows}

    @staticmethod
    def lines(store: Store, evaluations: Sequence[EvaluationRow]) -> Iterator[str]:
        """A table with a row for each side's circuits and one for random ones of each evaluation."""
        yield (
            f"Circuits run, all edges outside them replaced at every position. f: the {MEASURE} with the circuit less "
            "that without any edge, over the same of the whole model; CPR and CMD: areas under f and |1 - f| over the "
            "share of edges k, as MIB has them (0.999 and 0 of a perfect circuit), and over log k (1 and 0). With 95 % "
            f"intervals over questions; of random circuits, the lowest and highest. Needed: edges of the first size "
            f"with f of at least {FAITHFUL:g}."
        )
        yield ""
        about = "extraction | reference | edges | questions"
        yield f"| α | run in | circuits of | {about} | {' | '.join(AREAS)} | needed |"
        yield "|---" * (8 + len(AREAS)) + "|"
        for row in evaluations:
            found, how = read(store.evaluations.values(row.evaluation_key)), row.settings
            about = f"{how['extract']} {how['by']} | {how['reference']} | {found.edges:,} | {found.questions}"
            for whose, kept_of in found.curves.items():
                areas_of = " | ".join(with_interval(kept_of.areas[name], ".2f") for name in AREAS)
                needed = found.needed(whose)
                first = f"{needed:,}" if needed is not None else "–"
                yield f"| {row.cuts_listed} | {row.side} | {whose} | {about} | {areas_of} | {first} |"
            if len(found.by_chance):
                ends = [span(each.min(), each.max(), ".2f") for each in areas(found.by_chance, SHARES).values()]
                drawn = f"{len(found.by_chance)} random"
                yield f"| {row.cuts_listed} | {row.side} | {drawn} | {about} | {' | '.join(ends)} |  |"


@dataclass(frozen=True)
class Kept:
    """What a model keeps of its margin in circuits of rising size, the last of which has all edges."""

    edges: int
    """Of the whole graph."""
    questions: int
    sizes: dict[str, list[int]]
    """How many edges each circuit has, by whose scores it is of: a list as long as that of its curve's shares."""
    curves: dict[str, metrics.Curve]
    """By whose scores, the model's own first."""
    by_chance: Float[np.ndarray, "draw share"]
    """Of random circuits, as large as those of `SHARES` of the model's own scores."""

    def needed(self, whose: str) -> int | None:
        """The edges of the first circuit that keeps `FAITHFUL`; None where there is nothing to keep."""
        place = self.curves[whose].reaches(FAITHFUL)
        return None if place is None else self.sizes[whose][place]


def read(found: Measurements) -> Kept:
    """What a finished evaluation found."""
    values, sizes = found.values[MEASURE], [int(unit.rsplit(":", 1)[-1]) for unit in found.units]
    none, whole = values[0], values[-1]
    of: dict[str, list[int]] = {}
    for place, unit in enumerate(found.units[1:-1], 1):
        of.setdefault(unit.split(":")[0], []).append(place)
    reached = {whose: np.concatenate([values[places], whole[None]]) for whose, places in of.items()}
    shares = (*_BETWEEN, *_LARGE, SHARES[-1])
    own = [whose for whose in of if whose in BOTH]
    by_chance = [kept(reached[whose], none, whole) for whose in of if whose not in BOTH]
    return Kept(
        sizes[-1],
        len(found.ids),
        {whose: [sizes[place] for place in [*of[whose], -1]] for whose in own},
        {whose: metrics.curve(reached[whose], none, whole, shares, Definition(), SHARES) for whose in own},
        np.array(by_chance).reshape(-1, len(SHARES)),
    )


def _other(side: str) -> Side:
    return "base" if side == "tuned" else "tuned"
