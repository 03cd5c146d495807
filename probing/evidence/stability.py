"""How far two models, methods or draws of questions agree on which edges are the strongest.

The overlap of two sets is Jaccard's: how many edges are in both, of those that are in either. Two runs are compared on
draws of their questions (with replacement, as many as there are), each of its own draw: what then is left between a run
and itself is the noise of the questions, and nothing else can overlap more than that lets it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import lgamma

import numpy as np
from jaxtyping import Float, Int

from probing.metrics import Definition, interval
from probing.metrics.values import slices
from probing.scores import Scores

DRAWS = 400
"""Of the questions of each run, unless the graph is large."""

MOST = 1000
"""The largest number of strongest edges that are compared."""

_AT_MOST = 20_000_000
"""Edges whose strengths are ordered for one run, in all draws together."""

Order = Int[np.ndarray, "draw place"]
"""Of each draw, the numbers of the strongest edges in order."""


@dataclass(frozen=True)
class Overlap:
    """Of the n strongest edges of two runs, for n from 1 on."""

    whole: Float[np.ndarray, " n"] | None
    """With all questions; None between a run and itself."""
    mean: Float[np.ndarray, " n"]
    """Over draws of the questions."""
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    """Within which 95 % of the draws are."""


def largest(edges: int) -> int:
    """Up to how many of the strongest edges of a graph are compared: half of them are shared by chance alone."""
    return max(1, min(MOST, edges // 2))


def overlap(a: Scores, b: Scores) -> Overlap:
    """Of two runs whose graph is the same, or of a run with itself."""
    most, edges = largest(a.graph.size), a.graph.size
    draws = int(np.clip(_AT_MOST // edges, 20, DRAWS))
    found = jaccard(_orders(a, draws, 0, most), _orders(b, draws, 1, most), edges)
    low, high = interval(found, draws, Definition())
    whole = None if a is b else jaccard(strongest_of(_mean(a), most), strongest_of(_mean(b), most), edges)[0]
    return Overlap(whole, found.mean(0), low, high)


def _mean(scores: Scores) -> Float[np.ndarray, "1 edge"]:
    return np.abs(scores.edges).mean(0, dtype=np.float64)[None]


def _orders(scores: Scores, draws: int, seed: int, most: int) -> Order:
    """The strongest edges of each of some draws of a run's questions."""

    def blocks() -> Iterator[Order]:
        strength, samples = np.abs(scores.edges), len(scores.ids)
        rng = np.random.default_rng([seed, samples])
        counts = rng.multinomial(samples, np.full(samples, 1 / samples), size=draws).astype(strength.dtype)
        for part in slices(draws, scores.graph.size):
            yield strongest_of(counts[part] @ strength, most)

    return np.concatenate(list(blocks()))


def strongest_of(strengths: Float[np.ndarray, "draw edge"], most: int) -> Order:
    """The numbers of the strongest edges of each row, in order; of equal ones the first in canonical order."""
    edges = strengths.shape[1]
    least = np.partition(strengths, edges - most, axis=1)[:, edges - most]  # sorting all would take ten times as long
    found = []
    for row, end in zip(strengths, least, strict=True):
        some = np.flatnonzero(row >= end)
        found.append(some[np.argsort(-row[some], kind="stable")][:most])
    return np.array(found)


def jaccard(a: Order, b: Order, edges: int) -> Float[np.ndarray, "draw n"]:
    """How far the first n of each row of one are those of the same row of the other, for n from 1 on."""
    draws, most = a.shape
    places = np.arange(most)
    shared = np.zeros((draws, most))
    for row, (one, other) in enumerate(zip(a, b, strict=True)):
        place = np.full(edges, most)
        place[other] = places
        both_from = np.maximum(places, place[one])  # an edge is in both sets of n where n is larger than this
        shared[row] = np.bincount(both_from, minlength=most + 1)[:most].cumsum()
    return shared / (2 * (places + 1) - shared)


def by_chance(n: int, edges: int) -> float:
    """The overlap that two sets of n edges, drawn at random, are expected to have."""
    fewest = max(0, 2 * n - edges)
    shared = np.arange(fewest, n + 1)
    log = np.array([_choose(n, k) + _choose(edges - n, n - k) - _choose(edges, n) for k in shared.tolist()])
    return float((np.exp(log) * shared / (2 * n - shared)).sum())


def _choose(n: int, k: int) -> float:
    """The logarithm of the number of ways in which k of n are chosen."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
