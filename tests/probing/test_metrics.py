import time
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.errors import ScoresError
from probing.metrics import (
    METRICS,
    PATTERN,
    Comparison,
    Definition,
    align,
    as_json,
    compare,
    complexity_by_bins,
    edge_differences,
    verdict,
    wilson,
)
from probing.residual_graph import graph_of
from probing.scores import Scores

GRAPH = graph_of(1)  # 3 writers, 5 readers, 8 edges
QUICK = Definition(resamples=200)


def _scores(seed: int, samples: int = 12, layers: int = 2, scale: float = 1.0) -> Scores:
    rng = np.random.default_rng(seed)
    graph = graph_of(layers)
    values = rng.standard_t(3, (samples, *graph.mask.shape)) * graph.mask * scale
    return Scores(graph, tuple(f"q{i}" for i in range(samples)), values.astype(np.float32),
                  rng.random(samples).astype(np.float32))  # fmt: skip


def _by_hand() -> tuple[Scores, Scores]:
    """Two questions on the one-layer graph, with numbers that can be summed in the head."""
    a, b = np.zeros((2, 2, 3, 5), np.float32)
    a[0, 0] = [1, -1, 0, 2, 0]
    a[0, 1, 3:] = [0, 4]
    a[1, 0] = [0, 0, 3, 0, -3]
    a[1, 2, 4] = 2
    b[0, 0, 0] = 8
    b[1, 0, 4] = 6
    ids = ("q0", "q1")
    return (
        Scores(GRAPH, ids, a, np.array([1.0, 3.0], np.float32)),
        Scores(GRAPH, ids, b, np.array([0.5, 0.5], np.float32)),
    )


def test_intensity_by_hand() -> None:
    result = compare(*_by_hand(), QUICK)["activation_intensity"]
    assert result.base == pytest.approx((8 + 8) / 30)
    assert result.tuned == pytest.approx((8 + 6) / 30)
    assert result.difference == pytest.approx(-2 / 30)
    assert result.relative == pytest.approx(-2 / 16)
    edges = compare(*_by_hand(), replace(QUICK, structural_zeros=False))["activation_intensity"]
    assert edges.base == pytest.approx(16 / 16)


def test_complexity_by_hand() -> None:
    # Range 0 to 8 in four bins of width 2: the base has 25 cells in the first ({0, 1}), 4 in the second ({2, 3})...
    result = compare(*_by_hand(), replace(QUICK, bins=4))["information_complexity"]
    base = np.array([22 + 2, 2 + 2, 1, 0]) + np.array([1, 0, 0, 0])
    assert base.sum() == 30
    assert result.base == pytest.approx(scipy.stats.entropy(base / 30), rel=1e-9)
    assert result.tuned == pytest.approx(scipy.stats.entropy(np.array([28, 0, 0, 2]) / 30), rel=1e-9)


def test_loss_and_effective_edges_and_gini_by_hand() -> None:
    result = compare(*_by_hand(), QUICK)
    assert (result["loss"].base, result["loss"].tuned) == (2.0, 0.5)
    # Tuned: mean |score| is 4 on one edge and 3 on another, 0 on six.
    assert result["effective_edges"].tuned == pytest.approx(np.exp(scipy.stats.entropy([4, 3])))
    assert result["gini"].tuned == pytest.approx((2 * (7 * 3 + 8 * 4) / (8 * 7)) - 9 / 8)


def test_node_output_entropy_by_hand() -> None:
    # Base: question 0 has input (1, 1, 2) and a0 (4); question 1 has input (3, 3) and m0 (2). Three writers each.
    expected = (scipy.stats.entropy([1, 1, 2]) + 0 + 0 + np.log(2) + 0 + 0) / 6
    assert compare(*_by_hand(), QUICK)["node_output_entropy"].base == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), zeros=st.booleans(), bins=st.integers(2, 300))
def test_metrics_equal_scipys_and_numpys(seed: int, zeros: bool, bins: int) -> None:
    base, tuned = _scores(seed), _scores(seed + 1, scale=1.3)
    definition = replace(QUICK, structural_zeros=zeros, bins=bins, resamples=10)
    found = compare(base, tuned, definition)
    top = max(np.abs(s.scores).max() for s in (base, tuned))
    for side, scores in (("base", base), ("tuned", tuned)):
        wide = scores.scores.astype(np.float64)
        rows = wide.reshape(len(wide), -1) if zeros else wide[:, scores.graph.mask]
        pooled = np.histogram(np.abs(rows).ravel(), bins=bins, range=(0, top))[0]
        correlation = np.corrcoef(rows)
        pairs = correlation[np.triu_indices(len(rows), 1)]
        expected = {
            "activation_intensity": np.abs(rows).mean(),
            "information_complexity": scipy.stats.entropy(pooled),
            "distribution_kurtosis": scipy.stats.kurtosis(rows, axis=1).mean(),
            "inter_sample_diversity": 1 - pairs.mean(),
            "node_output_entropy": np.mean(
                [scipy.stats.entropy(np.abs(row)) if row.any() else 0 for sample in wide for row in sample]
            ),
            "loss": scores.loss.mean(dtype=np.float64),
            "effective_edges": np.exp(scipy.stats.entropy(np.abs(wide[:, scores.graph.mask]).mean(0))),
            "gini": _slow_gini(np.abs(wide[:, scores.graph.mask]).mean(0)),
        }
        for metric, value in expected.items():
            assert getattr(found[metric], side) == pytest.approx(value, rel=1e-6, abs=1e-9), metric


def _slow_gini(values: np.ndarray) -> float:
    """Mean absolute difference over all pairs, over twice the mean."""
    return float(np.abs(values[:, None] - values[None, :]).mean() / (2 * values.mean()))


def test_log_base_scales_the_entropies() -> None:
    natural, bits = (compare(_scores(1), _scores(2), replace(QUICK, log_base=b)) for b in (np.e, 2.0))
    for metric in ("information_complexity", "node_output_entropy"):
        assert bits[metric].base == pytest.approx(natural[metric].base / np.log(2))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(12)))
def test_the_order_of_questions_does_not_matter(seed: int, order: list[int]) -> None:
    base, tuned = _scores(seed), _scores(seed + 1)
    shuffled = Scores(tuned.graph, tuple(tuned.ids[i] for i in order), tuned.scores[order], tuned.loss[order])
    assert compare(base, tuned, QUICK) == compare(base, shuffled, QUICK)


def test_the_interval_is_the_literal_bootstraps() -> None:
    base, tuned = _scores(3, samples=9), _scores(4, samples=9, scale=1.2)
    definition = Definition(resamples=3000)
    found = compare(base, tuned, definition)
    rng = np.random.default_rng(99)
    once = replace(definition, resamples=2, histogram_max=float(max(np.abs(s.scores).max() for s in (base, tuned))))
    differences: dict[str, list[float]] = {m: [] for m in ("activation_intensity", "information_complexity", "gini")}
    for _ in range(400):
        rows = rng.integers(0, 9, 9)
        ids = tuple(map(str, range(9)))
        drawn = [Scores(s.graph, ids, s.scores[rows], s.loss[rows]) for s in (base, tuned)]
        result = compare(*drawn, once)
        for metric, values in differences.items():
            values.append(result[metric].difference)
    for metric, values in differences.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[metric].ci_low == pytest.approx(low, abs=0.15 * (high - low))
        assert found[metric].ci_high == pytest.approx(high, abs=0.15 * (high - low))


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap() -> None:
    base, tuned = _scores(5, samples=40), _scores(6, samples=40, scale=1.2)
    found = compare(base, tuned)["activation_intensity"]
    paired = np.abs(tuned.scores).mean((1, 2)) - np.abs(base.scores).mean((1, 2))
    other = scipy.stats.bootstrap((paired,), np.mean, n_resamples=10_000, method="percentile", rng=1)
    width = found.ci_high - found.ci_low
    assert found.ci_low == pytest.approx(other.confidence_interval.low, abs=0.05 * width)
    assert found.ci_high == pytest.approx(other.confidence_interval.high, abs=0.05 * width)


def test_95_percent_intervals_cover_a_true_difference_about_that_often() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.3, 1.0, (40, 300))
    _, low, high = edge_differences(np.zeros_like(differences), differences, Definition(resamples=1000))
    assert 0.90 < np.mean((low < 0.3) & (high > 0.3)) < 0.98


def test_a_model_compared_with_itself_differs_by_nothing() -> None:
    scores = _scores(7)
    for comparison in compare(scores, scores, QUICK).values():
        assert (comparison.difference, comparison.ci_low, comparison.ci_high) == (0.0, 0.0, 0.0)
        assert comparison.base != 0


def test_ten_thousand_resamples_of_a_hundred_questions_take_under_a_second() -> None:
    base, tuned = _scores(8, samples=100, layers=6), _scores(9, samples=100, layers=6)
    started = time.process_time()  # of the processor, which other processes may use too
    compare(base, tuned, Definition(resamples=10_000))
    assert time.process_time() - started < 1.0


def test_a_single_question_has_no_diversity_and_no_finite_interval_of_it() -> None:
    found = compare(_scores(1, samples=1), _scores(2, samples=1), QUICK)
    assert np.isnan(found["inter_sample_diversity"].base)
    assert np.isinf(found["inter_sample_diversity"].ci_high)
    row = as_json(found, QUICK, _scores(1, samples=1), _scores(2, samples=1))["metrics"]["inter_sample_diversity"]
    assert row["base"] is None
    assert row["ci_low"] is None


def test_different_questions_or_graphs_are_refused() -> None:
    base = _scores(1)
    renamed = Scores(base.graph, ("other", *base.ids[1:]), base.scores, base.loss)
    with pytest.raises(ScoresError, match="2 questions are in one file and not in the other, 'other'"):
        align(base, renamed)
    with pytest.raises(ScoresError, match="2 and 3 layers"):
        align(base, _scores(1, layers=3))


def test_a_single_question_has_no_finite_interval_of_anything() -> None:
    base, tuned = (Scores(s.graph, s.ids[:1], s.scores[:1], s.loss[:1]) for s in (_scores(0), _scores(1)))
    for metric, c in compare(base, tuned, QUICK).items():
        assert (c.ci_low, c.ci_high, c.direction) == (-np.inf, np.inf, 0), metric
    _, low, high = edge_differences(base.scores.reshape(1, -1), tuned.scores.reshape(1, -1), QUICK)
    assert np.isinf(low).all()
    assert np.isinf(high).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_asked_for_alone_is_the_one_among_all(metric: str) -> None:
    base, tuned = _scores(3), _scores(4)
    assert compare(base, tuned, QUICK, [metric]) == {metric: compare(base, tuned, QUICK)[metric]}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), zeros=st.booleans())
def test_complexity_by_bins_is_the_complexity_with_those_bins(seed: int, zeros: bool) -> None:
    base, tuned = _scores(seed), _scores(seed + 1, scale=1.4)
    definition = replace(QUICK, structural_zeros=zeros, resamples=50)
    for bins, found in complexity_by_bins(base, tuned, definition).items():
        expected = compare(base, tuned, replace(definition, bins=bins), ["information_complexity"])
        for field in ("base", "tuned", "difference", "ci_low", "ci_high"):
            theirs = getattr(expected["information_complexity"], field)
            assert getattr(found, field) == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@given(trials=st.integers(1, 500), share=st.floats(0, 1))
def test_wilsons_interval_is_scipys(trials: int, share: float) -> None:
    successes = round(share * trials)
    theirs = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_without_trials_a_share_can_be_anything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_verdict_needs_an_interval_on_one_side_of_zero() -> None:
    up = Comparison(1, 2, 1, 1, 0.5, 1.5)
    unsure = Comparison(1, 2, 1, 1, -0.1, 2.1)
    assert [verdict(m, up) for m in PATTERN] == ["follows", "follows", "against"]
    assert [verdict(m, unsure) for m in PATTERN] == ["noise", "noise", "noise"]


def test_json_has_every_metric_and_parameter() -> None:
    base, tuned = _scores(1), _scores(2)
    result = as_json(compare(base, tuned, QUICK), QUICK, base, tuned)
    assert set(result["metrics"]) == set(METRICS)
    for row in result["metrics"].values():
        assert set(row) == {"base", "tuned", "difference", "relative", "ci_low", "ci_high"}
    assert {"bins", "histogram_max", "log_base", "epsilon", "structural_zeros", "resamples"} <= set(
        result["definition"]
    )
    assert result["definition"]["histogram_max"] == pytest.approx(
        max(np.abs(base.scores).max(), np.abs(tuned.scores).max())
    )
