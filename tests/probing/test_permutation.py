"""Which of many edges changed: sign flips and q-values."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.metrics import FALSE_DISCOVERIES, Definition, benjamini_hochberg, flips_over, permutation, sign_flip_p

RULES = Definition()


def _p(differences: np.ndarray, definition: Definition = RULES) -> np.ndarray:
    return sign_flip_p(np.zeros_like(differences), differences, definition)


def _by_scipy(differences: np.ndarray, flips: float) -> np.ndarray:
    return scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=flips, vectorized=True, axis=0, rng=1
    ).pvalue


@pytest.mark.parametrize("samples", [1, 2, 5, 11])
def test_of_few_questions_every_flip_is_counted(samples: int) -> None:
    rng = np.random.default_rng(samples)
    differences = np.stack([rng.normal(0.5, 1, samples), rng.integers(-2, 3, samples), np.ones(samples)], axis=1)
    expected = _by_scipy(differences, np.inf) if samples > 1 else [1, 1, 1]
    np.testing.assert_allclose(_p(differences), expected)
    assert _p(differences)[2] == 2.0 ** (1 - samples)


def test_of_many_questions_some_flips_are_drawn() -> None:
    differences = np.random.default_rng(0).standard_t(3, (80, 12)) + np.linspace(0, 0.6, 12)
    expected = _by_scipy(differences, 20_000)
    found = _p(differences)
    assert 0.02 > found.min() >= 1 / 10_001
    np.testing.assert_array_less(np.abs(found - expected), 5 * np.sqrt(expected * 1.5 / 10_000) + 2e-4)
    assert _p(np.full((80, 1), 3.0))[0] == 1 / 10_001, "no flip of all that were drawn is as far from zero"
    assert _p(np.zeros((80, 1)))[0] == 1, "all are"


def test_the_statistic_is_that_of_what_is_said_of_each_score() -> None:
    base, tuned = np.random.default_rng(0).normal(size=(2, 40, 3)).astype(np.float32)
    strengths = sign_flip_p(base, tuned, RULES, np.abs)
    np.testing.assert_array_equal(strengths, _p(np.abs(tuned.astype(float)) - np.abs(base.astype(float))))


@given(seed=st.integers(0, 1000), samples=st.integers(2, 40), exponent=st.integers(-30, 30))
@settings(max_examples=20)
def test_neither_the_side_nor_the_unit_of_a_change_matters(seed: int, samples: int, exponent: int) -> None:
    differences = np.random.default_rng(seed).normal(0.2, 1, (samples, 4))
    p = _p(differences)
    np.testing.assert_array_equal(_p(-differences), p)
    np.testing.assert_allclose(_p(differences * 10.0**exponent), p, atol=2e-4)
    assert ((p > 0) & (p <= 1)).all()
    larger = _p(differences + np.sign(differences.mean(0)) * 0.5 * differences.std(0))
    assert (larger <= p + 1e-3).all()


def test_edges_are_tested_together_as_they_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(0.2, 1, (30, 11))
    whole = _p(differences)
    monkeypatch.setattr(permutation, "_BLOCK", 4)
    np.testing.assert_array_equal(_p(differences), whole)
    assert _p(differences[:, [7]])[0] == whole[7], "the signs are the same"


def test_there_are_flips_enough_to_find_a_single_edge_while_that_can_be_afforded() -> None:
    assert [flips_over(edges) for edges in (1, 163, 1000, 4193, 50_000, 100_000)] == [
        10_000, 10_000, 20_000, 83_860, 100_000, 100_000,
    ]  # fmt: skip
    assert flips_over(805_681) == 10_000
    edges = 4193
    p = np.ones(edges)
    p[5] = 1 / (1 + flips_over(edges))
    assert benjamini_hochberg(p)[5] <= FALSE_DISCOVERIES


def test_edges_that_hardly_differ_are_settled_by_the_first_flips(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(np.linspace(0, 1, 1200), 1, (30, 1200))
    found = _p(differences)
    monkeypatch.setattr(permutation, "_SETTLED", np.inf)
    whole = _p(differences)
    settled = (1 + found * 10_000).round() > 100
    np.testing.assert_array_equal(found[~settled], whole[~settled])
    assert 0.2 < settled.mean() < 0.8
    np.testing.assert_allclose(found[settled], whole[settled], atol=0.02, rtol=0.4)
    assert (found[settled] > 0.0099).all()


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=40), seed=st.integers(0, 1000))
@settings(max_examples=50)
def test_q_values_are_scipys_and_keep_the_order(p: list[float], seed: int) -> None:
    found = benjamini_hochberg(np.array(p))
    np.testing.assert_allclose(found, scipy.stats.false_discovery_control(p), atol=1e-12)
    assert (found >= np.array(p) * (1 - 1e-12)).all()
    assert (np.diff(found[np.argsort(p)]) >= 0).all()
    order = np.random.default_rng(seed).permutation(len(p))
    np.testing.assert_allclose(benjamini_hochberg(np.array(p)[order]), found[order])


# -- false alarms ------------------------------------------------------------------------------------------------------

EDGES, RUNS = 60, 100


def _scores(rng: np.random.Generator, questions: int) -> np.ndarray:
    """Scores of questions of one kind in one model: long tails, and most edges move with the question."""
    scale = np.random.default_rng(9).lognormal(-5, 1.5, EDGES)
    common, sign = rng.lognormal(0, 0.7, (questions, 1)), np.random.default_rng(8).choice([-1, 1], EDGES)
    return scale * common * (sign + rng.standard_t(4, (questions, EDGES)))


def _halved(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One model's questions as if they were two models'."""
    both = _scores(rng, 100)
    return both[:50], both[50:]


def _swapped(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two models that differ in every edge, and change places on every other question."""
    base, tuned = _scores(rng, 50), 1.5 * _scores(rng, 50)
    swap = rng.random((50, 1)) < 0.5
    return np.where(swap, tuned, base), np.where(swap, base, tuned)


@pytest.mark.parametrize("null", [_halved, _swapped])
@pytest.mark.parametrize("of", [np.abs, np.asarray])
def test_where_nothing_changed_hardly_ever_is_an_edge_called_changed(
    null: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    of: Callable[[np.ndarray], np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(permutation, "LEAST_FLIPS", 2000)  # enough for sixty edges, and quicker
    alarms = 0
    for run in range(RUNS):
        q = benjamini_hochberg(sign_flip_p(*null(np.random.default_rng(run)), RULES, of))
        alarms += bool((q <= FALSE_DISCOVERIES).any())
    # At most 5 % of runs, as far as so many can tell: more would be seen in one of a thousand such tests.
    assert alarms <= scipy.stats.binom.ppf(0.999, RUNS, FALSE_DISCOVERIES)


def test_what_changed_is_still_found() -> None:
    moved = np.zeros(EDGES, bool)
    moved[::4] = True
    kept, wrong = [], []
    for run in range(10):
        rng = np.random.default_rng(run)
        base, tuned = _scores(rng, 100), _scores(rng, 100) * np.where(moved, 2.0, 1.0)
        changed = benjamini_hochberg(sign_flip_p(base, tuned, RULES, np.abs)) <= FALSE_DISCOVERIES
        kept.append(changed[moved].mean())
        wrong.append((changed & ~moved).sum() / max(1, changed.sum()))
    assert np.mean(kept) > 0.9
    assert np.mean(wrong) < FALSE_DISCOVERIES


def test_a_thousand_edges_take_less_than_seconds() -> None:
    base, tuned = np.random.default_rng(0).normal(size=(2, 100, 1000)).astype(np.float32)
    started = time.process_time()  # of the processor, which other processes may use too
    sign_flip_p(base, tuned, RULES)
    assert time.process_time() - started < 2
