"""The formulas: from scores to each question's own numbers, a few questions or edges at a time.

Of a graph of heads two runs take most of a gigabyte, so none is ever copied whole, and cells without an edge are
counted, never written down.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps

import numpy as np
from jaxtyping import Float

from probing.metrics.definition import MANY, TOP, Definition
from probing.scores import Scores

AT_ONCE = 4_000_000
"""Numbers held at a time."""

Values = Float[np.ndarray, " sample"]

OfQuestions = Callable[[Scores, Definition, float], Values]
"""Each question's own value, of scores whose histogram ends at a number."""


def slices(length: int, width: int) -> Iterator[slice]:
    """Parts of `length` rows, each of so many that they hold `AT_ONCE` numbers, if each row holds `width`."""
    rows = max(1, AT_ONCE // max(1, width))
    return (slice(start, start + rows) for start in range(0, length, rows))


def parts(scores: Scores) -> Iterator[Scores]:
    """The same scores, a few questions at a time."""
    for part in slices(*scores.edges.shape):
        # Whichever way they lie in memory: sums are rounded in the order of it.
        edges = np.ascontiguousarray(scores.edges[part])
        yield replace(scores, ids=scores.ids[part], edges=edges, loss=scores.loss[part])


def in_parts(function: OfQuestions) -> OfQuestions:
    """A function of questions that are independent of each other, called with a few at a time."""

    @wraps(function)
    def of_all(scores: Scores, definition: Definition, top: float) -> Values:
        return np.concatenate([function(part, definition, top) for part in parts(scores)])

    return of_all


def zeros(scores: Scores, definition: Definition) -> int:
    """How many cells without an edge count, in each question's matrix."""
    graph = scores.graph
    return len(graph.writers) * len(graph.readers) - graph.size if definition.structural_zeros else 0


def sizes(scores: Scores) -> Float[np.ndarray, "sample edge"]:
    """|score| in double precision."""
    return np.abs(scores.edges, dtype=np.float64)


def entropy(p: np.ndarray, definition: Definition, epsilon: float = 0.0) -> np.ndarray:
    """-Σ p log(p + ε) over the last axis, 0 log 0 being 0."""
    logs = np.log(np.where(p > 0, p + epsilon, 1.0))
    return -(p * logs).sum(-1) / np.log(definition.log_base)


def mean_sizes(scores: Scores) -> Values:
    """The mean |score| over each question's edges."""
    return np.concatenate([sizes(part).mean(1) for part in parts(scores)])


def histogram_top(base: Scores, tuned: Scores, definition: Definition) -> float:
    """Upper end of the histogram's bins, shared by the two models."""
    if definition.histogram_max == "mean":
        return TOP * float(np.mean([mean_sizes(scores).mean() for scores in (base, tuned)]))
    if definition.histogram_max == "observed":
        return float(max(np.abs(part.edges).max() for scores in (base, tuned) for part in parts(scores)))
    return definition.histogram_max


def histograms(
    size: Float[np.ndarray, "sample edge"], bins: int, top: float, empty: int
) -> Float[np.ndarray, "sample bin"]:
    """Counts of |scores|, and of `empty` cells without an edge, in equal-width bins from 0 to `top`.

    A row for each sample; the last bin has all above too.
    """
    place = np.minimum(size * bins / (top if top > 0 else 1.0), bins - 1).astype(np.intp)
    place += bins * np.arange(len(size))[:, None]
    counts = np.bincount(place.ravel(), minlength=bins * len(size)).reshape(-1, bins).astype(np.float64)
    counts[:, 0] += empty
    return counts


@in_parts
def intensity(scores: Scores, definition: Definition, top: float) -> Values:
    """Mean |score| over the cells."""
    return sizes(scores).sum(1) / (scores.graph.size + zeros(scores, definition))


@in_parts
def complexity(scores: Scores, definition: Definition, top: float) -> Values:
    """Entropy of the histogram of |score| over the cells."""
    counts = histograms(sizes(scores), definition.bins, top, zeros(scores, definition))
    return entropy(counts / counts.sum(1, keepdims=True), definition, definition.epsilon)


@in_parts
def kurtosis(scores: Scores, definition: Definition, top: float) -> Values:
    """Population excess kurtosis of the cells: m4 / m2² - 3; NaN where all are equal."""
    values, without = scores.edges.astype(np.float64), zeros(scores, definition)
    count = values.shape[1] + without
    mean = values.sum(1, keepdims=True) / count
    squares = (values - mean) ** 2
    beside = mean[:, 0] ** 2
    m2 = (squares.sum(1) + without * beside) / count
    m4 = ((squares**2).sum(1) + without * beside**2) / count
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(m2 > 0, m4 / m2**2 - 3.0, np.nan)


@in_parts
def output_entropy(scores: Scores, definition: Definition, top: float) -> Values:
    """Entropy of the distribution of |score| over each writer's outgoing edges, averaged over the writers.

    It is 0 for a writer without any score. In canonical order the edges of a writer stand together.
    """
    size, starts = sizes(scores), scores.graph.writer_starts
    edges = np.diff(starts, append=scores.graph.size)
    total = np.repeat(np.add.reduceat(size, starts, axis=1), edges, axis=1)
    p = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
    logs = np.log(np.where(p > 0, p, 1.0))
    return -np.add.reduceat(p * logs, starts, axis=1).mean(1) / np.log(definition.log_base)


def loss(scores: Scores, definition: Definition, top: float) -> Values:
    """Loss per scored token."""
    return scores.loss.astype(np.float64)


def correlations(scores: Scores, definition: Definition) -> Float[np.ndarray, "sample sample"]:
    """Pearson correlation between the questions' cells; NaN where a question's are all equal."""
    count = scores.graph.size + zeros(scores, definition)
    mean = np.concatenate([part.edges.sum(1, dtype=np.float64) for part in parts(scores)])[:, None] / count
    products = zeros(scores, definition) * (mean @ mean.T)
    for part in slices(scores.graph.size, len(scores.ids)):
        centred = scores.edges[:, part] - mean
        products += centred @ centred.T
    norm = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        return products / norm[:, None] / norm


def diversity(scores: Scores, definition: Definition, top: float) -> Values:
    """One minus a question's mean correlation with the others."""
    matrix = correlations(scores, definition)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (matrix.sum(1) - np.diag(matrix)) / (len(matrix) - 1)


def gini(values: Float[np.ndarray, "row value"]) -> Float[np.ndarray, " row"]:
    """Gini coefficient of each row of values >= 0: 0 if all are equal, (n - 1) / n if one has everything.

    Of very many values in single precision, it is found without ordering those that are alike in their first three
    digits, which is quicker, and closer than sums in single precision: they take a mean rank.
    """
    if values.dtype == np.float32 and values.shape[1] > MANY:
        return np.array([_gini_of_many(row) for row in values])
    ordered = np.sort(values, axis=1)
    n = values.shape[1]
    total = ordered.sum(1)
    ranks = np.arange(1, n + 1, dtype=ordered.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * (ordered @ ranks) / (n * total) - (n + 1) / n


def _gini_of_many(values: Float[np.ndarray, " value"]) -> float:
    """Values are ordered by their exponent and nine bits of their mantissa, so two of one rank differ by 0.2 %."""
    place = np.ascontiguousarray(values).view(np.uint32) >> 14
    counts, sums = np.bincount(place), np.bincount(place, values)
    ranks = counts.cumsum() - (counts - 1) / 2
    return float(2 * (sums @ ranks) / (len(values) * sums.sum()) - (len(values) + 1) / len(values))


def effective_edges(values: Float[np.ndarray, "row edge"]) -> Float[np.ndarray, " row"]:
    """exp of the entropy of each row, normalised to sum to one: how many equal edges would be as spread out."""
    total = values.sum(1, keepdims=True)
    p = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    return np.exp(entropy(p, Definition()))


def of_strengths(function: Callable[[np.ndarray], np.ndarray]) -> OfQuestions:
    """A function of edges' strengths, applied to each question's."""
    return in_parts(lambda scores, definition, top: function(sizes(scores)))
