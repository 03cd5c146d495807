"""How far the strongest edges stay the same, by sets."""

from itertools import combinations
from statistics import mean

import numpy as np
import pytest

from probing.evidence import by_chance, largest, overlap
from probing.evidence.stability import jaccard, strongest_of
from probing.graph import graph_of
from probing.scores import Scores


def _scores(seed: int, noise: float, samples: int = 30) -> Scores:
    graph, rng = graph_of(3), np.random.default_rng(0)
    strength = rng.exponential(size=graph.size)
    edges = strength * (1 + noise * np.random.default_rng(seed).normal(size=(samples, graph.size)))
    return Scores(graph, tuple(f"q{i}" for i in range(samples)), edges.astype(np.float32), np.ones(samples, np.float32))


@pytest.mark.parametrize("most", [1, 7, 40])
def test_the_strongest_come_in_order_and_of_equal_ones_the_first(most: int) -> None:
    rows = np.random.default_rng(0).integers(0, 6, (50, 40)).astype(float)
    for row, found in zip(rows, strongest_of(rows, most), strict=True):
        assert found.tolist() == sorted(range(40), key=lambda edge: (-row[edge], edge))[:most]


def test_overlaps_are_those_of_sets_at_every_size() -> None:
    rng = np.random.default_rng(1)
    a, b = (np.array([rng.permutation(20)[:12] for _ in range(9)]) for _ in "ab")
    found = jaccard(a, b, 20)
    for row, (one, other) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        for n in range(1, 13):
            first, second = set(one[:n]), set(other[:n])
            assert found[row, n - 1] == pytest.approx(len(first & second) / len(first | second))


@pytest.mark.parametrize(("n", "edges"), [(1, 6), (3, 6), (5, 6), (4, 9), (9, 9)])
def test_chance_is_the_mean_over_all_sets(n: int, edges: int) -> None:
    fixed = set(range(n))
    shared = [len(fixed & set(other)) for other in combinations(range(edges), n)]
    assert by_chance(n, edges) == pytest.approx(mean(k / (2 * n - k) for k in shared))


def test_a_run_is_compared_with_itself_on_two_draws_of_its_questions() -> None:
    scores, n = _scores(1, 2.0), 10
    found, rng, again = overlap(scores, scores), np.random.default_rng(99), []
    assert found.whole is None
    for _ in range(600):
        drawn = (scores.edges[rng.integers(0, 30, 30)] for _ in range(2))
        one, other = (set(np.argsort(-np.abs(edges).mean(0))[:n].tolist()) for edges in drawn)
        again.append(len(one & other) / len(one | other))
    assert found.mean[n - 1] == pytest.approx(np.mean(again), abs=0.03)
    assert found.low[n - 1] == pytest.approx(np.quantile(again, 0.025), abs=0.11), "a step is as large"
    assert found.low[n - 1] < found.mean[n - 1] < found.high[n - 1] <= 1
    sure = overlap(same := _scores(1, 0.0), same)
    assert sure.low.min() == 1, "where all questions say the same, no draw is another"


def test_two_runs_are_compared_with_all_questions_too() -> None:
    a, b = _scores(1, 2.0), _scores(2, 2.0)
    found = overlap(a, b)
    first, second = (set(np.argsort(-np.abs(one.edges).mean(0))[:15].tolist()) for one in (a, b))
    assert found.whole is not None
    assert found.whole[14] == pytest.approx(len(first & second) / len(first | second))
    assert len(found.mean) == largest(a.graph.size) == a.graph.size // 2
    assert found.mean.mean() < overlap(a, a).mean.mean()
