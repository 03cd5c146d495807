"""Estimates held against what really happens, edge by edge."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.evidence.removed import Removed
from probing.metrics import Definition, edge_means
from probing.scores import Scores

Verdict = Literal["confirmed", "opposite", "overestimated", "open", "not checked"]
"""Of an estimate of an edge's effect, given the interval of the real one: it has its sign, and excludes zero; the other
sign, and excludes zero; it holds zero and not the estimate, which says more than is there; or it holds both."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

COLUMNS = ("estimate", "effect", "low", "high", "strength", "real_strength", "questions", "verdict")


def checked(scores: Scores, known: Removed, definition: Definition, edges: Sequence[str] | None = None) -> pd.DataFrame:
    """A row for each edge of a run, or for some, in their order: `edge`, and `COLUMNS`.

    `estimate` is the mean score and `effect` the mean real one, over the same `questions` (how many), `low` and `high`
    the ends of its interval over questions; `strength` and `real_strength` are the means of the absolute values. Of an
    edge that was never removed, `estimate` and `strength` are over all questions, and the others are missing.
    """
    graph = scores.graph
    names = list(graph.edges if edges is None else edges)
    numbers = np.arange(graph.size) if edges is None else np.array([graph.number(name) for name in names], int)
    place = {name: row for row, name in enumerate(names)}
    sample = {question: row for row, question in enumerate(scores.ids)}
    mine = scores.edges[:, numbers]
    table = pd.DataFrame({"edge": names}, columns=["edge", *COLUMNS])
    table["estimate"] = mine.mean(0, dtype=np.float64)
    table["strength"] = np.abs(mine).mean(0, dtype=np.float64)
    table = table.assign(questions=0, verdict="not checked")
    table = table.astype(dict.fromkeys(("effect", "low", "high", "real_strength"), float))
    for ids, some, effects in known.grouped(names):
        rows = [place[name] for name in some]
        held = judged(mine[np.ix_([sample[question] for question in ids], rows)], effects, definition)
        table.loc[rows, list(COLUMNS)] = held.set_axis(rows)
    return table


def judged(
    estimates: Float[np.ndarray, "sample edge"], effects: Float[np.ndarray, "sample edge"], definition: Definition
) -> pd.DataFrame:
    """`COLUMNS` of some edges, of which there are estimates and real effects on the same questions."""
    effect, low, high = edge_means(effects.astype(np.float64), definition)
    estimate = estimates.mean(0, dtype=np.float64)
    strength, real = (np.abs(values).mean(0, dtype=np.float64) for values in (estimates, effects))
    verdicts = [verdict(*one) for one in zip(estimate, low, high, strict=True)]
    columns = (estimate, effect, low, high, strength, real, len(effects), verdicts)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def verdict(estimate: float, low: float, high: float) -> Verdict:
    """What the interval of a real effect says of its estimate."""
    if low > 0 or high < 0:
        return "confirmed" if (estimate > 0) == (low > 0) else "opposite"
    return "open" if low <= estimate <= high else "overestimated"
