"""Estimates held against what really happens, edge by edge."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd

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
    names = list(scores.graph.edges if edges is None else edges)
    numbers = {name: scores.graph.number(name) for name in names}
    sample = {question: place for place, question in enumerate(scores.ids)}
    found: dict[str, dict[str, object]] = {}
    for ids, mine, effects in known.grouped(names):
        estimates = scores.edges[[sample[question] for question in ids]][:, [numbers[name] for name in mine]]
        middle = estimates.mean(0, dtype=np.float64)
        effect, low, high = edge_means(effects.astype(np.float64), definition)
        strength, real = (np.abs(values).mean(0, dtype=np.float64) for values in (estimates, effects))
        for place, name in enumerate(mine):
            said = _verdict(middle[place], low[place], high[place])
            values = (middle, effect, low, high, strength, real)
            found[name] = dict(zip(COLUMNS, (*(float(v[place]) for v in values), len(ids), said), strict=True))
    for name in names:
        if name not in found:
            all_of_it = scores.edges[:, numbers[name]].astype(np.float64)
            rest = {"questions": 0, "verdict": "not checked"}
            found[name] = {"estimate": all_of_it.mean(), "strength": np.abs(all_of_it).mean(), **rest}
    return pd.DataFrame([{"edge": name, **found[name]} for name in names], columns=["edge", *COLUMNS])


def _verdict(estimate: float, low: float, high: float) -> Verdict:
    if low > 0 or high < 0:
        return "confirmed" if (estimate > 0) == (low > 0) else "opposite"
    return "open" if low <= estimate <= high else "overestimated"
