"""How much of a model circuits keep: those found from its own scores, from the other side's, and random ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float

from probing.extraction import SHARES, Best, Extraction, circuits, random_circuits
from probing.graph import ResidualGraph
from probing.jobs.tasks.task import BOTH, Case, Cost, Side, Task
from probing.metrics import AREAS, Definition, areas, curve, kept
from probing.scores import Scores
from probing.store import Store
from probing.store.records import EvaluationRow
from probing.words import span, with_interval

MEASURE = "margin"
"""What the curve is of."""

FAITHFUL = 0.8
"""The share that a circuit must keep to count as the model's."""

_BETWEEN = SHARES[:-1]


@dataclass(frozen=True)
class Curve(Task):
    """The circuits of both sides' scores, and `random` ones as large as those of its own, run in one side's model on
    what that model is scored on; the reference is that of the scores.

    Units are `none:0` first, then such as `base:top:0.05:41`: whose scores, the extraction, the share asked for, and
    the edges that the circuit has; of random circuits, `random0:top:0.05:41`; and last all edges, such as `all:826`.
    """

    kind = "circuit"
    version = 1

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
        return Cost(passes=(len(_BETWEEN) * (2 + self.random) + 3 + self.random) * questions)

    def circuits(self, scores: Mapping[str, Scores]) -> dict[str, Bool[np.ndarray, " edge"]]:
        """Every unit's edges, given both sides' scores."""
        graph = scores[self.side].graph
        made = {"none:0": np.zeros(graph.size, bool)}
        sizes: list[int] = []
        for whose in (self.side, _other(self.side)):
            mean = scores[whose].edges.mean(0, dtype=np.float64)
            found = circuits(graph, mean, self.extract, self.by, _BETWEEN)  # type: ignore[arg-type]
            sizes = sizes or found.sum(1).tolist()
            made |= self._named(whose, found)
        for draw in range(self.random):
            rng = np.random.default_rng([self.seed, draw])
            made |= self._named(f"random{draw}", random_circuits(graph, sizes, rng))
        return made | {f"all:{graph.size}": np.ones(graph.size, bool)}

    def _named(self, whose: str, found: Bool[np.ndarray, "share edge"]) -> dict[str, Bool[np.ndarray, " edge"]]:
        rows = zip(_BETWEEN, found, strict=True)
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
            found = store.evaluations.values(row.evaluation_key)
            values, sizes = found.values[MEASURE], [int(unit.rsplit(":", 1)[-1]) for unit in found.units]
            none, whole, how = values[0], values[-1], row.settings
            of: dict[str, list[int]] = {}
            for place, unit in enumerate(found.units[1:-1], 1):
                of.setdefault(unit.split(":")[0], []).append(place)
            about = f"{how['extract']} {how['by']} | {how['reference']} | {sizes[-1]:,} | {len(found.ids)}"
            by_chance = []
            for whose, places in of.items():
                curved = np.concatenate([values[places], whole[None]])
                if whose in BOTH:
                    cells = _cells(curved, none, whole, [sizes[place] for place in [*places, -1]])
                    yield f"| {row.alpha:g} | {row.side} | {whose} | {about} | {' | '.join(cells)} |"
                else:
                    by_chance.append(kept(curved, none, whole))
            if by_chance:
                cells = _range(np.array(by_chance))
                yield f"| {row.alpha:g} | {row.side} | {len(by_chance)} random | {about} | {' | '.join(cells)} |  |"


def _other(side: str) -> Side:
    return "base" if side == "tuned" else "tuned"


def _cells(
    values: Float[np.ndarray, "share sample"],
    none: Float[np.ndarray, " sample"],
    whole: Float[np.ndarray, " sample"],
    sizes: Sequence[int],
) -> Iterator[str]:
    found = curve(values, none, whole, SHARES, Definition())
    for name in AREAS:
        yield with_interval(found.areas[name], ".2f")
    place = found.reaches(FAITHFUL)
    yield f"{sizes[place]:,}" if place is not None else "–"


def _range(f: Float[np.ndarray, "draw share"]) -> Iterator[str]:
    for found in areas(f, SHARES).values():
        yield span(found.min(), found.max(), ".2f")
