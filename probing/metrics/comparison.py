"""Two models' scores in, every metric of both out, each with the intervals of what changed."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from probing.errors import ScoresError
from probing.metrics.bootstrap import (
    NONE,
    STUDENTISED_BELOW,
    Intervals,
    interval,
    of_means,
    of_resampled,
    resample_counts,
    stretched,
    with_each_left_out,
)
from probing.metrics.complexity import Resampled, complexities
from probing.metrics.definition import Definition, range_of
from probing.metrics.registry import COMPLEXITY, METRICS, interval_of
from probing.metrics.values import Values, histogram_top, slices
from probing.scores import Scores


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
    def turned(self) -> "Comparison":
        """The same with base and tuned in each other's place."""
        ends = [1 / (1 + end) - 1 if end > -1 else np.inf for end in (self.relative_high, self.relative_low)]
        positive = self.relative is not None and min(self.base, self.tuned) > 0
        relative = self.base / self.tuned - 1 if positive else None
        within = (float(ends[0]), float(ends[1])) if positive and np.isfinite(ends).all() else NONE
        return Comparison(self.tuned, self.base, -self.difference, relative, -self.ci_high, -self.ci_low, *within)

    @property
    def direction(self) -> int:
        """+1 or -1 if the difference's interval lies on one side of zero, else 0."""
        return int(self.ci_low > 0) - int(self.ci_high < 0)


def align(base: Scores, tuned: Scores) -> Scores:
    """`tuned` with its samples in the order of `base`.

    Raises:
        ScoresError: the two do not hold the same questions, or their graphs or methods differ.
    """
    if base.method.words != tuned.method.words:
        made = (", ".join(scores.method.words) or "the paper's method" for scores in (base, tuned))
        raise ScoresError(
            f"The two models were scored in different ways ({' and '.join(made)}).", "Score both with the same method."
        )
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
    if base.ids == tuned.ids:
        return tuned
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
    draws = with_each_left_out(counts)
    top = histogram_top(base, tuned, definition)
    made = {}
    for key, metric in METRICS.items():
        if key not in wanted:
            continue
        if metric.statistic:
            both = metric.statistic(base, tuned, definition, draws)
            made[key] = _of_statistic(*both, len(base.ids), definition, metric.stretched)
        else:
            x, y = (metric.of_questions(scores, definition, top) for scores in (base, tuned))
            made[key] = _comparison(x.mean(), y.mean(), of_means(x, y, counts, definition))
    return made


def per_question(
    scores: Scores, definition: Definition, top: float, wanted: Collection[str] = METRICS
) -> dict[str, Values]:
    """Each question's own value of every metric in `wanted` that one of so many questions has."""
    return {
        key: metric.of_questions(scores, definition, top)
        for key, metric in METRICS.items()
        if key in wanted and len(scores.ids) >= metric.least
    }


def from_resamples(before: Resampled, after: Resampled, samples: int, definition: Definition) -> Comparison:
    """A number of both models, and of each resample of so many samples, the same for both."""
    return _comparison(before[0], after[0], of_resampled(before[1], after[1], samples, definition))


def _of_statistic(
    before: Resampled, after: Resampled, samples: int, definition: Definition, always: bool
) -> Comparison:
    """A statistic's interval, stretched `always` or below `STUDENTISED_BELOW` questions."""
    (base, first), (tuned, second) = before, after
    if always or samples < STUDENTISED_BELOW:
        return _comparison(base, tuned, stretched(first, second, samples, definition))
    return from_resamples((base, first[samples:]), (tuned, second[samples:]), samples, definition)


def _comparison(before: float, after: float, intervals: Intervals) -> Comparison:
    difference = float(after - before)
    relative = difference / abs(float(before)) if intervals.has_relative else None
    return Comparison(float(before), float(after), difference, relative, *intervals.difference, *intervals.relative)


BIN_CHOICES = (10, 20, 25, 40, 50, 100, 200, 250, 500, 1000)
"""Numbers of bins, of which the last is a multiple of each."""


def complexity_by_bins(base: Scores, tuned: Scores, definition: Definition) -> dict[int, Comparison]:
    """Information complexity with each of `BIN_CHOICES` bins, from fine histograms of both models."""
    tuned = align(base, tuned)
    draws = with_each_left_out(resample_counts(len(base.ids), definition))
    found = complexities(base, tuned, definition, draws, BIN_CHOICES)
    return {bins: _of_statistic(*both, len(base.ids), definition, COMPLEXITY.stretched) for bins, both in found.items()}


Verdict = Literal["follows", "against", "noise"]


def verdict(metric: str, comparison: Comparison) -> Verdict:
    """Whether a metric with a direction moved as the paper found for online RL, the other way, or not for sure."""
    if comparison.direction == 0:
        return "noise"
    return "follows" if comparison.direction == METRICS[metric].direction else "against"


def as_json(comparisons: dict[str, Comparison], definition: Definition, base: Scores, tuned: Scores) -> dict:
    """What `python -m probing compare --json` prints; numbers that do not exist are null."""

    def clean(value: float | None) -> float | None:
        return value if value is not None and np.isfinite(value) else None

    in_force = asdict(definition) | {
        "histogram_max": histogram_top(base, tuned, definition),
        "histogram_range": range_of(definition),
        "resamples_over_edges": definition.resamples_over(base.graph.size),
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
    base: Float[np.ndarray, "sample edge"],
    tuned: Float[np.ndarray, "sample edge"],
    definition: Definition,
    of: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
    """Mean paired difference of each column, and the ends of its bootstrap interval.

    `of` says what of each score: itself, or `np.abs`.
    """
    samples, edges = base.shape
    counts = resample_counts(samples, replace(definition, resamples=definition.resamples_over(edges))).T
    found = np.empty((3, edges))
    for part in slices(edges, counts.shape[1]):
        difference = of(tuned[:, part].astype(np.float64)) - of(base[:, part].astype(np.float64))
        # Of the transposed product a column's resamples stand together, and are ordered in half the time.
        resampled = (np.ascontiguousarray(difference.T) @ counts).T / samples
        found[:, part] = difference.mean(0), *interval(resampled, samples, definition)
    return found[0], found[1], found[2]


def edge_means(
    values: Float[np.ndarray, "sample edge"], definition: Definition
) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " edge"], Float[np.ndarray, " edge"]]:
    """Mean of each column, and the ends of its bootstrap interval."""
    return edge_differences(np.zeros_like(values), values, definition)


def significant(low: np.ndarray, high: np.ndarray) -> Bool[np.ndarray, " edge"]:
    """Where an interval excludes zero."""
    return (low > 0) | (high < 0)
