"""One edge in many runs: what it does in other models, at other cuts, and along a training."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probing.evidence.checks import verdict
from probing.evidence.removed import Read, removed_everywhere
from probing.method import Loss
from probing.metrics import Definition, edge_means
from probing.store import Store

QUANTITIES = ("strength", "effect", "real")
"""Of an edge in a run: its mean |score|, its mean score, and the mean of what really happens without it."""


def everywhere(
    store: Store, runs: Sequence[str], edge: str, loss: Loss, definition: Definition, read: Read | None = None
) -> pd.DataFrame:
    """A row for each of some finished runs whose graphs have an edge: `run`, and of each of `QUANTITIES` the mean over
    questions and the ends of its interval, in columns such as `effect`, `effect_low` and `effect_high`.

    `questions` says over how many the real effect is, and `verdict` what it says of the estimate. Of a run of which it
    is not known these are 0 and "not checked", and the effect is missing. `read` may keep what evaluations found.

    Raises:
        StoreError: there is no such run.
    """
    scores = store.runs.of_edge(runs, edge)
    known = removed_everywhere(store, [*scores], edge, loss, read)
    really = {run: known[run].of(edge) or ((), np.empty(0)) for run in scores}
    effects = [np.array([*of_run.values()]) for of_run in scores.values()]
    values = dict(zip(QUANTITIES, ([*map(np.abs, effects)], effects, [of[1] for of in really.values()]), strict=True))
    table = pd.DataFrame({"run": [*scores]})
    for quantity, of_runs in values.items():
        for name, numbers in zip(("", "_low", "_high"), _means(of_runs, definition), strict=True):
            table[quantity + name] = numbers
    verdicts = [
        verdict(float(np.mean([scores[run][question] for question in ids])), low, high) if ids else "not checked"
        for (run, (ids, _)), low, high in zip(really.items(), table["real_low"], table["real_high"], strict=True)
    ]
    return table.assign(questions=[len(ids) for ids, _ in really.values()], verdict=verdicts)


def _means(values: Sequence[np.ndarray], definition: Definition) -> np.ndarray:
    """Means of some arrays, and the ends of their intervals, [3, array]; of empty ones, not numbers. Those of one
    length are resampled together."""
    found = np.full((3, len(values)), np.nan)
    sizes = np.array([len(of_run) for of_run in values], int)
    for size in np.unique(sizes[sizes > 0]):
        places = np.flatnonzero(sizes == size).tolist()
        found[:, places] = edge_means(np.stack([values[place] for place in places], 1).astype(np.float64), definition)
    return found
