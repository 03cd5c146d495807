"""Scores of a pair in, numbers about its circuits out, each with the uncertainty that the questions leave.

Over the matrices W (writers x readers) of n samples, arXiv:2509.21044 defines (section 2)

- activation intensity: the mean of |W| over samples and cells;
- information complexity: -Σ p ln(p + ε), p being one histogram of all |W|, pooled over samples and cells;
- distribution kurtosis: the mean over samples of the excess kurtosis of a sample's signed cells;
- inter-sample diversity: one minus the mean correlation between two samples' matrices;
- node output entropy: the entropy of |score| over the edges leaving a writer, averaged over writers and samples.

To these come the loss (a model that is surer of its answers has smaller gradients, so intensity must be read beside
it), the effective number of edges (exp of the entropy of the normalised mean |score|) and the Gini coefficient of the
mean |score|. The paper leaves some choices open; `Definition` names each of them.

The interval of a difference is a paired percentile bootstrap: questions are drawn with replacement, the same ones for
both models. A resample is a row of counts, how often each question was drawn, so every metric is computed for all
resamples with matrix products. The range of the histogram stays that of the observed pair in every resample.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from probing.errors import ScoresError
from probing.scores import Scores

METRICS = (
    "activation_intensity",
    "information_complexity",
    "distribution_kurtosis",
    "inter_sample_diversity",
    "node_output_entropy",
    "loss",
    "effective_edges",
    "gini",
)
"""Every metric's key, in the order they are shown."""

PATTERN = {"activation_intensity": +1, "information_complexity": +1, "distribution_kurtosis": -1}
"""The direction that each metric takes under online RL, according to the paper."""


@dataclass(frozen=True)
class Definition:
    """The choices that the metrics leave open. The defaults are the paper's where it states them."""

    bins: int = 100
    """Equal-width bins of the histogram."""
    histogram_max: float | None = None
    """Upper end of its range, the lower being 0; None for the largest |score| of the two models."""
    log_base: float = float(np.e)
    """Base of the logarithm in the entropies."""
    epsilon: float = 1e-12
    """ε inside the logarithm of information complexity."""
    structural_zeros: bool = True
    """Whether cells without an edge count as cells, in intensity, complexity, kurtosis and correlation."""
    resamples: int = 10_000
    """Bootstrap resamples."""
    confidence: float = 0.95
    """Coverage of the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass(frozen=True)
class Comparison:
    """One metric of both models, and the interval of the difference tuned - base."""

    base: float
    tuned: float
    difference: float
    relative: float | None
    """Difference over base; None where the base is zero."""
    ci_low: float
    ci_high: float

    @property
    def direction(self) -> int:
        """+1 or -1 if the interval lies on one side of zero, else 0."""
        return int(self.ci_low > 0) - int(self.ci_high < 0)


Counts = Float[np.ndarray, "resample sample"]
Statistic = Callable[[Counts], Float[np.ndarray, " resample"]]

_AT_ONCE = 4_000_000
"""Numbers held at a time while statistics over all edges are resampled."""


def _mean_of(values: Float[np.ndarray, " sample"]) -> Statistic:
    return lambda counts: counts @ values / counts.sum(1)


def _entropy(p: np.ndarray, definition: Definition, epsilon: float = 0.0) -> np.ndarray:
    """-Σ p log(p + ε) over the last axis, 0 log 0 being 0."""
    logs = np.log(np.where(p > 0, p + epsilon, 1.0))
    return -(p * logs).sum(-1) / np.log(definition.log_base)


def cells(scores: Scores, definition: Definition) -> Float[np.ndarray, "sample cell"]:
    """The cells that count, one row a sample: the whole matrix, or its real edges."""
    if definition.structural_zeros:
        return scores.scores.reshape(len(scores.ids), -1).astype(np.float64)
    return scores.graph.to_edges(scores.scores).astype(np.float64)


def histograms(values: Float[np.ndarray, "sample cell"], bins: int, top: float) -> Float[np.ndarray, "sample bin"]:
    """Counts of |values| in equal-width bins from 0 to `top`, a row for each sample; larger values are left out."""
    edges = np.linspace(0.0, top if top > 0 else 1.0, bins + 1)
    return np.stack([np.histogram(np.abs(row), edges)[0] for row in values]).astype(np.float64)


def excess_kurtosis(values: Float[np.ndarray, "sample cell"]) -> Float[np.ndarray, " sample"]:
    """Population excess kurtosis of each row: m4 / m2² - 3; NaN for a constant row."""
    centred = values - values.mean(1, keepdims=True)
    m2 = (centred**2).mean(1)
    m4 = (centred**4).mean(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(m2 > 0, m4 / m2**2 - 3.0, np.nan)


def correlations(values: Float[np.ndarray, "sample cell"]) -> Float[np.ndarray, "sample sample"]:
    """Pearson correlation between the rows; NaN where a row is constant."""
    centred = values - values.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit @ unit.T


def output_entropies(
    scores: Float[np.ndarray, "sample writer reader"], definition: Definition
) -> Float[np.ndarray, "sample writer"]:
    """Entropy of the distribution of |score| over each writer's outgoing edges; 0 for a writer without any score."""
    size = np.abs(scores.astype(np.float64))
    total = size.sum(-1, keepdims=True)
    return _entropy(np.divide(size, total, out=np.zeros_like(size), where=total > 0), definition)


def gini(values: Float[np.ndarray, "row value"]) -> Float[np.ndarray, " row"]:
    """Gini coefficient of each row of values >= 0: 0 if all are equal, (n - 1) / n if one has everything."""
    ordered = np.sort(values, axis=1)
    n = values.shape[1]
    total = ordered.sum(1)
    ranks = np.arange(1, n + 1, dtype=ordered.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * (ordered @ ranks) / (n * total) - (n + 1) / n


def effective_edges(values: Float[np.ndarray, "row edge"]) -> Float[np.ndarray, " row"]:
    """exp of the entropy of each row, normalised to sum to one: how many equal edges would be as spread out."""
    total = values.sum(1, keepdims=True)
    p = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    return np.exp(_entropy(p, Definition()))


def per_question(
    scores: Scores, definition: Definition, top: float, wanted: Collection[str] = METRICS
) -> dict[str, Float[np.ndarray, " sample"]]:
    """Each sample's own value of every metric in `wanted` that one sample has.

    Inter-sample diversity, as a sample's value, is one minus its mean correlation with the others.
    """
    values = cells(scores, definition)
    strength = np.abs(scores.graph.to_edges(scores.scores)).astype(np.float64)

    def complexity() -> np.ndarray:
        counts = histograms(values, definition.bins, top)
        return _entropy(counts / values.shape[1], definition, definition.epsilon)

    def diversity() -> np.ndarray:
        matrix = correlations(values)
        return 1 - (matrix.sum(1) - np.diag(matrix)) / (len(values) - 1)

    makers: dict[str, Callable[[], np.ndarray]] = {
        "activation_intensity": lambda: np.abs(values).mean(1),
        "information_complexity": complexity,
        "distribution_kurtosis": lambda: excess_kurtosis(values),
        "node_output_entropy": lambda: output_entropies(scores.scores, definition).mean(1),
        "loss": lambda: scores.loss.astype(np.float64),
        "effective_edges": lambda: effective_edges(strength),
        "gini": lambda: gini(strength),
    }
    if len(values) > 1:
        makers["inter_sample_diversity"] = diversity
    return {metric: make() for metric, make in makers.items() if metric in wanted}


_MEANS = ("activation_intensity", "distribution_kurtosis", "node_output_entropy", "loss")
"""Metrics that are the mean over samples of the samples' own values."""


def _statistics(scores: Scores, definition: Definition, top: float, wanted: Collection[str]) -> dict[str, Statistic]:
    """The metrics in `wanted`, each as a function of how often each sample counts."""
    values = cells(scores, definition)
    own = per_question(scores, definition, top, [metric for metric in _MEANS if metric in wanted])
    strength = np.abs(scores.graph.to_edges(scores.scores))

    def complexity() -> Statistic:
        of_sample = histograms(values, definition.bins, top)
        return lambda counts: pooled_complexity(counts, of_sample, values.shape[1], definition)

    def diversity() -> Statistic:
        correlation = correlations(values)

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
        "information_complexity": complexity,
        "inter_sample_diversity": diversity,
        "effective_edges": lambda: of_mean_strength(effective_edges),
        "gini": lambda: of_mean_strength(gini),
    }
    made = {metric: _mean_of(of_samples) for metric, of_samples in own.items()}
    return made | {metric: make() for metric, make in makers.items() if metric in wanted}


def pooled_complexity(
    counts: Counts, of_sample: Float[np.ndarray, "sample bin"], cells_each: int, definition: Definition
) -> Float[np.ndarray, " resample"]:
    """Information complexity of the samples' histograms, pooled as often as each sample counts."""
    p = counts @ of_sample / (counts.sum(1, keepdims=True) * cells_each)
    return _entropy(p, definition, definition.epsilon)


FINEST = 1000
"""Bins of the histogram from which coarser ones are made."""

BIN_CHOICES = (10, 20, 25, 40, 50, 100, 200, 250, 500, 1000)
"""Numbers of bins that divide it."""


def complexity_by_bins(base: Scores, tuned: Scores, definition: Definition) -> dict[int, Comparison]:
    """Information complexity with each of `BIN_CHOICES` bins, from one fine histogram of each model."""
    tuned = align(base, tuned)
    top = histogram_top(base, tuned, definition)
    values = [cells(scores, definition) for scores in (base, tuned)]
    fine = [histograms(v, FINEST, top) for v in values]
    once, counts = np.ones((1, len(base.ids))), resample_counts(len(base.ids), definition)
    result = {}
    for bins in BIN_CHOICES:
        coarse = [f.reshape(len(f), bins, FINEST // bins).sum(2) for f in fine]

        def both(weights: Counts, coarse: list[np.ndarray] = coarse) -> list[np.ndarray]:
            return [pooled_complexity(weights, c, values[0].shape[1], definition) for c in coarse]

        (before, after), (many_before, many_after) = both(once), both(counts)
        resampled = many_after - many_before
        result[bins] = _comparison(float(before[0]), float(after[0]), resampled, len(base.ids), definition)
    return result


def resample_counts(samples: int, definition: Definition) -> Counts:
    """How often each sample is drawn in each resample."""
    rng = np.random.default_rng(definition.seed)
    return rng.multinomial(samples, np.full(samples, 1 / samples), size=definition.resamples).astype(np.float64)


def interval(differences: np.ndarray, samples: int, definition: Definition) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the percentile interval, over the first axis, of which each row resamples `samples`.

    Infinite where a resample has no value, and for a single sample, which says nothing about others.
    """
    tail = (1 - definition.confidence) / 2
    if samples < 2 or not np.isfinite(differences).all():
        shape = differences.shape[1:]
        return np.full(shape, -np.inf), np.full(shape, np.inf)
    low, high = np.quantile(differences, [tail, 1 - tail], axis=0)
    return low, high


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
    return replace(tuned, ids=base.ids, scores=tuned.scores[order], loss=tuned.loss[order])


def histogram_top(base: Scores, tuned: Scores, definition: Definition) -> float:
    """Upper end of the histograms' range, shared by the two models."""
    if definition.histogram_max is not None:
        return definition.histogram_max
    return float(max(np.abs(base.scores).max(), np.abs(tuned.scores).max()))


def compare(
    base: Scores, tuned: Scores, definition: Definition | None = None, wanted: Collection[str] = METRICS
) -> dict[str, Comparison]:
    """The metrics in `wanted` for both models, each with the interval of its difference.

    Raises:
        ScoresError: the two do not hold the same questions, or their graphs differ.
    """
    definition = definition or Definition()
    tuned = align(base, tuned)
    top = histogram_top(base, tuned, definition)
    once = np.ones((1, len(base.ids)))
    counts = resample_counts(len(base.ids), definition)
    of_base, of_tuned = (_statistics(scores, definition, top, wanted) for scores in (base, tuned))
    result = {}
    for metric in (metric for metric in METRICS if metric in wanted):
        before, after = float(of_base[metric](once)[0]), float(of_tuned[metric](once)[0])
        resampled = of_tuned[metric](counts) - of_base[metric](counts)
        result[metric] = _comparison(before, after, resampled, len(base.ids), definition)
    return result


def _comparison(before: float, after: float, resampled: np.ndarray, samples: int, definition: Definition) -> Comparison:
    low, high = interval(resampled, samples, definition)
    relative = (after - before) / before if before else None
    return Comparison(before, after, after - before, relative, float(low), float(high))


Verdict = Literal["follows", "against", "noise"]


def verdict(metric: str, comparison: Comparison) -> Verdict:
    """Whether a metric of `PATTERN` moved as the paper found for online RL, the other way, or not beyond noise."""
    if comparison.direction == 0:
        return "noise"
    return "follows" if comparison.direction == PATTERN[metric] else "against"


def as_json(comparisons: dict[str, Comparison], definition: Definition, base: Scores, tuned: Scores) -> dict:
    """What `python -m probing compare --json` prints; numbers that do not exist are null."""

    def clean(value: float | None) -> float | None:
        return value if value is not None and np.isfinite(value) else None

    in_force = asdict(definition) | {
        "histogram_max": histogram_top(base, tuned, definition),
        "samples": len(base.ids),
        "interval": "paired percentile bootstrap over questions of tuned - base",
        "score": "-<dL/dreader, writer>; positive: removing the edge raises the loss",
    }
    metrics = {name: {k: clean(v) for k, v in asdict(c).items()} for name, c in comparisons.items()}
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


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5 / (1 + z**2 / trials)
    return middle - reach, middle + reach


def significant(low: np.ndarray, high: np.ndarray) -> Bool[np.ndarray, " edge"]:
    """Where an interval excludes zero."""
    return (low > 0) | (high < 0)
