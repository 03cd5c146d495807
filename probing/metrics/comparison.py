"""Two models' scores in, every metric of both out, each with the intervals of what changed."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from probing.errors import ScoresError
from probing.metrics.bootstrap import Counts, Intervals, interval, of_means, of_resampled, resample_counts
from probing.metrics.complexity import Resampled, complexities
from probing.metrics.definition import MEANS, METRICS, PATTERN, Definition, interval_of, range_of
from probing.metrics.values import (
    cells,
    correlations,
    effective_edges,
    gini,
    histogram_top,
    per_question,
)
from probing.scores import Scores

Statistic = Callable[[Counts], Float[np.ndarray, " resample"]]

_AT_ONCE = 4_000_000
"""Numbers held at a time while statistics over all edges are resampled."""


@dataclass(frozen=True)
class Comparison:
    """One metric of both models, and the intervals of what changed; both ends are infinite where there is none."""

    base: float
    tuned: float
    difference: float
    """Tuned - base."""
    relative: float | None
    """The difference over |base|; None where the base is zero, or its resamples lie on both sides of zero."""
    ci_low: float
    ci_high: float
    """Ends of the difference's interval."""
    relative_low: float
    relative_high: float
    """Ends of the relative difference's, whose base is resampled too."""

    @property
    def direction(self) -> int:
        """+1 or -1 if the difference's interval lies on one side of zero, else 0."""
        return int(self.ci_low > 0) - int(self.ci_high < 0)


def _statistics(scores: Scores, definition: Definition, wanted: Collection[str]) -> dict[str, Statistic]:
    """The metrics in `wanted` of pairs and of mean strengths, each as a function of how often each sample counts."""
    strength = np.abs(scores.edges)

    def diversity() -> Statistic:
        correlation = correlations(cells(scores, definition))

        def statistic(counts: Counts) -> np.ndarray:
            # A question drawn twice is no pair of samples: pairs of a sample with itself are left out.
            own_pairs = (counts**2) @ np.diag(correlation)
            pairs = counts.sum(1) ** 2 - (counts**2).sum(1)
            with np.errstate(invalid="ignore", divide="ignore"):
                return 1 - (((counts @ correlation) * counts).sum(1) - own_pairs) / pairs

        return statistic

    def of_mean_strength(function: Callable[[np.ndarray], np.ndarray]) -> Statistic:
        def statistic(counts: Counts) -> np.ndarray:
            rows = max(1, _AT_ONCE // strength.shape[1])
            precise = strength.astype(np.float64) if len(counts) == 1 else strength
            parts = np.array_split(counts.astype(precise.dtype), max(1, -(-len(counts) // rows)))
            return np.concatenate([function(part @ precise) for part in parts]).astype(np.float64)

        return statistic

    makers: dict[str, Callable[[], Statistic]] = {
        "inter_sample_diversity": diversity,
        "effective_edges": lambda: of_mean_strength(effective_edges),
        "gini": lambda: of_mean_strength(gini),
    }
    return {metric: make() for metric, make in makers.items() if metric in wanted}


def align(base: Scores, tuned: Scores) -> Scores:
    """`tuned` with its samples in the order of `base`.

    Raises:
        ScoresError: the two do not hold the same questions, or their graphs differ.
    """
    if base.graph != tuned.graph:
        raise ScoresError(
            f"The two models have different graphs ({base.graph.layers} and {tuned.graph.layers} layers).",
            "Only models of one shape can be compared.",
        )
    if set(base.ids) != set(tuned.ids):
        only = sorted(set(base.ids) ^ set(tuned.ids))
        raise ScoresError(
            f"{len(only)} questions are in one file and not in the other, '{only[0]}' among them.",
            "Score the same questions with both models.",
        )
    place = {name: i for i, name in enumerate(tuned.ids)}
    order = [place[name] for name in base.ids]
    return replace(tuned, ids=base.ids, edges=tuned.edges[order], loss=tuned.loss[order])


def compare(
    base: Scores, tuned: Scores, definition: Definition | None = None, wanted: Collection[str] = METRICS
) -> dict[str, Comparison]:
    """The metrics in `wanted` for both models, each with the intervals of its change.

    Raises:
        ScoresError: the two do not hold the same questions, or their graphs differ.
    """
    definition = definition or Definition()
    tuned = align(base, tuned)
    counts = resample_counts(len(base.ids), definition)
    made: dict[str, Comparison] = {}
    top = histogram_top(base, tuned, definition)
    own = [per_question(scores, definition, top, set(MEANS) & set(wanted)) for scores in (base, tuned)]
    for metric in own[0]:
        x, y = (values[metric] for values in own)
        made[metric] = _comparison(x.mean(), y.mean(), of_means(x, y, counts, definition))
    if "information_complexity" in wanted:
        both = complexities(base, tuned, definition, counts, [definition.bins])[definition.bins]
        made["information_complexity"] = _of_resampled(*both, len(base.ids), definition)
    once = np.ones((1, len(base.ids)))
    statistics = [_statistics(scores, definition, wanted) for scores in (base, tuned)]
    for metric in statistics[0]:
        before, after = ((of_one[metric](once)[0], of_one[metric](counts)) for of_one in statistics)
        made[metric] = _of_resampled(before, after, len(base.ids), definition)
    return {metric: made[metric] for metric in METRICS if metric in made}


def _of_resampled(before: Resampled, after: Resampled, samples: int, definition: Definition) -> Comparison:
    return _comparison(before[0], after[0], of_resampled(before[1], after[1], samples, definition))


def _comparison(before: float, after: float, intervals: Intervals) -> Comparison:
    difference = float(after - before)
    relative = difference / abs(float(before)) if intervals.has_relative else None
    return Comparison(float(before), float(after), difference, relative, *intervals.difference, *intervals.relative)


BIN_CHOICES = (10, 20, 25, 40, 50, 100, 200, 250, 500, 1000)
"""Numbers of bins, of which the last is a multiple of each."""


def complexity_by_bins(base: Scores, tuned: Scores, definition: Definition) -> dict[int, Comparison]:
    """Information complexity with each of `BIN_CHOICES` bins, from fine histograms of both models."""
    tuned = align(base, tuned)
    counts = resample_counts(len(base.ids), definition)
    found = complexities(base, tuned, definition, counts, BIN_CHOICES)
    return {bins: _of_resampled(*both, len(base.ids), definition) for bins, both in found.items()}


Verdict = Literal["follows", "against", "noise"]


def verdict(metric: str, comparison: Comparison) -> Verdict:
    """Whether a metric of `PATTERN` moved as the paper found for online RL, the other way, or within question noise."""
    if comparison.direction == 0:
        return "noise"
    return "follows" if comparison.direction == PATTERN[metric] else "against"


def as_json(comparisons: dict[str, Comparison], definition: Definition, base: Scores, tuned: Scores) -> dict:
    """What `python -m probing compare --json` prints; numbers that do not exist are null."""

    def clean(value: float | None) -> float | None:
        return value if value is not None and np.isfinite(value) else None

    in_force = asdict(definition) | {
        "histogram_max": histogram_top(base, tuned, definition),
        "histogram_range": range_of(definition),
        "samples": len(base.ids),
        "interval": "paired bootstrap over questions, of tuned - base and of the same over |base|",
        "score": "-<dL/dreader, writer>; positive: removing the edge raises the loss",
    }
    metrics = {
        name: {k: clean(v) for k, v in asdict(c).items()} | {"interval_of": interval_of(name, definition)}
        for name, c in comparisons.items()
    }
    return {"metrics": metrics, "definition": in_force}


def edge_differences(
    base: Float[np.ndarray, "sample edge"], tuned: Float[np.ndarray, "sample edge"], definition: Definition
) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
    """Mean paired difference of each column, and the ends of its bootstrap interval."""
    difference = tuned.astype(np.float64) - base.astype(np.float64)
    counts = resample_counts(len(difference), definition)
    columns = np.array_split(np.arange(difference.shape[1]), max(1, len(counts) * difference.shape[1] // _AT_ONCE))
    ends = [interval(counts @ difference[:, part] / len(difference), len(difference), definition) for part in columns]
    return difference.mean(0), np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])


def significant(low: np.ndarray, high: np.ndarray) -> Bool[np.ndarray, " edge"]:
    """Where an interval excludes zero."""
    return (low > 0) | (high < 0)
