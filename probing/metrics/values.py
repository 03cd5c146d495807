"""The formulas: from scores to each question's own numbers, and to those of pooled questions."""

from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Float

from probing.metrics.definition import METRICS, TOP, Definition
from probing.scores import Scores


def entropy(p: np.ndarray, definition: Definition, epsilon: float = 0.0) -> np.ndarray:
    """-Σ p log(p + ε) over the last axis, 0 log 0 being 0."""
    logs = np.log(np.where(p > 0, p + epsilon, 1.0))
    return -(p * logs).sum(-1) / np.log(definition.log_base)


def cells(scores: Scores, definition: Definition) -> Float[np.ndarray, "sample cell"]:
    """The cells that count, one row a sample: the whole matrix, or its real edges."""
    if definition.structural_zeros:
        return scores.matrix().reshape(len(scores.ids), -1).astype(np.float64)
    return scores.edges.astype(np.float64)


def histogram_top(base: Scores, tuned: Scores, definition: Definition) -> float:
    """Upper end of the histogram's bins, shared by the two models."""
    sizes = [np.abs(scores.edges) for scores in (base, tuned)]
    if definition.histogram_max == "mean":
        return TOP * float(np.mean([size.mean(dtype=np.float64) for size in sizes]))
    if definition.histogram_max == "observed":
        return float(max(size.max() for size in sizes))
    return definition.histogram_max


def histograms(values: Float[np.ndarray, "sample cell"], bins: int, top: float) -> Float[np.ndarray, "sample bin"]:
    """Counts of |values| in equal-width bins from 0 to `top`, a row for each sample; the last has all above too."""
    place = np.minimum(np.abs(values) * bins / (top if top > 0 else 1.0), bins - 1).astype(np.intp)
    place += bins * np.arange(len(values))[:, None]
    return np.bincount(place.ravel(), minlength=bins * len(values)).reshape(-1, bins).astype(np.float64)


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
    return entropy(np.divide(size, total, out=np.zeros_like(size), where=total > 0), definition)


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
    return np.exp(entropy(p, Definition()))


def per_question(
    scores: Scores, definition: Definition, top: float, wanted: Collection[str] = METRICS
) -> dict[str, Float[np.ndarray, " sample"]]:
    """Each sample's own value of every metric in `wanted` that one sample has.

    Inter-sample diversity, as a sample's value, is one minus its mean correlation with the others.
    """
    values = cells(scores, definition)
    strength = np.abs(scores.edges).astype(np.float64)

    def complexity() -> np.ndarray:
        counts = histograms(values, definition.bins, top)
        return entropy(counts / values.shape[1], definition, definition.epsilon)

    def diversity() -> np.ndarray:
        matrix = correlations(values)
        return 1 - (matrix.sum(1) - np.diag(matrix)) / (len(values) - 1)

    makers: dict[str, Callable[[], np.ndarray]] = {
        "activation_intensity": lambda: np.abs(values).mean(1),
        "information_complexity": complexity,
        "distribution_kurtosis": lambda: excess_kurtosis(values),
        "node_output_entropy": lambda: output_entropies(scores.matrix(), definition).mean(1),
        "loss": lambda: scores.loss.astype(np.float64),
        "effective_edges": lambda: effective_edges(strength),
        "gini": lambda: gini(strength),
    }
    if len(values) > 1:
        makers["inter_sample_diversity"] = diversity
    return {metric: make() for metric, make in makers.items() if metric in wanted}
