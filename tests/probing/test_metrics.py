import time
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.errors import ScoresError
from probing.graph import Heads, graph_of
from probing.metrics import (
    METRICS,
    PATTERN,
    Comparison,
    Definition,
    align,
    as_json,
    compare,
    complexity_by_bins,
    coverage,
    edge_differences,
    histogram_top,
    paired_score,
    per_question,
    resample_counts,
    resampling,
    verdict,
    wilson,
)
from probing.metrics import definition as definitions
from probing.metrics import values as formulas
from probing.metrics.bootstrap import of_means, of_resampled, stretched, student, with_each_left_out
from probing.scores import Scores
from tests.conftest import ROOT

GRAPH = graph_of(1)  # 3 writers, 5 readers, 8 edges
QUICK = Definition(resamples=200)


def _scores(seed: int, samples: int = 12, layers: int = 2, scale: float = 1.0) -> Scores:
    rng = np.random.default_rng(seed)
    graph = graph_of(layers)
    values = rng.standard_t(3, (samples, *graph.mask.shape)) * graph.mask * scale
    return Scores(graph, tuple(f"q{i}" for i in range(samples)), graph.to_edges(values.astype(np.float32)),
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
        Scores(GRAPH, ids, GRAPH.to_edges(a), np.array([1.0, 3.0], np.float32)),
        Scores(GRAPH, ids, GRAPH.to_edges(b), np.array([0.5, 0.5], np.float32)),
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
    result = compare(*_by_hand(), replace(QUICK, bins=4, histogram_max="observed"))["information_complexity"]
    base = np.array([22 + 2, 2 + 2, 1, 0]) + np.array([1, 0, 0, 0])
    assert base.sum() == 30
    assert result.base == pytest.approx(scipy.stats.entropy(base / 30), rel=1e-9)
    assert result.tuned == pytest.approx(scipy.stats.entropy(np.array([28, 0, 0, 2]) / 30), rel=1e-9)


def test_complexitys_bins_end_at_a_hundred_mean_scores_and_the_last_has_all_above() -> None:
    # Over 8 edges, 2 questions and 2 models |scores| add up to 30: the mean is 30/32, and 25 means are 23.4.
    base, tuned = _by_hand()
    assert histogram_top(base, tuned, QUICK) == pytest.approx(100 * 30 / 32)
    assert histogram_top(base, tuned, replace(QUICK, histogram_max="observed")) == 8
    # Bins of width 1.5 up to 6: the base has 22 + 3 cells below 1.5, 3 below 3, 1 below 4.5, none above; the tuned
    # model's 8 lies beyond the last bin and is counted there with its 6.
    result = compare(base, tuned, replace(QUICK, bins=4, histogram_max=6.0))["information_complexity"]
    assert result.tuned == pytest.approx(scipy.stats.entropy(np.array([28, 0, 0, 2]) / 30), rel=1e-9)
    small = np.array([np.count_nonzero((size >= low) & (size < low + 1.5)) for low in (0, 1.5, 3, 4.5)
                      for size in [np.abs(base.matrix())]])  # fmt: skip
    assert result.base == pytest.approx(scipy.stats.entropy(small / 30), rel=1e-9)


def test_where_the_bins_end_settles_as_questions_are_added_and_follows_the_scores_scale() -> None:
    few, many = ((_scores(1, n), _scores(2, n)) for n in (50, 2000))
    tops = {rule: [histogram_top(*both, Definition(histogram_max=rule)) for both in (few, many)]
            for rule in ("mean", "observed")}  # fmt: skip
    assert tops["mean"][1] == pytest.approx(tops["mean"][0], rel=0.1)
    assert tops["observed"][1] > 1.5 * tops["observed"][0]
    thousandth = [replace(scores, edges=scores.edges / 1000) for scores in few]
    assert compare(*thousandth, QUICK)["information_complexity"].base == pytest.approx(
        compare(*few, QUICK)["information_complexity"].base, rel=1e-3
    )


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


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), zeros=st.booleans(), bins=st.integers(2, 300))
def test_metrics_equal_scipys_and_numpys(seed: int, zeros: bool, bins: int) -> None:
    base, tuned = _scores(seed), _scores(seed + 1, scale=1.3)
    definition = replace(QUICK, structural_zeros=zeros, bins=bins, resamples=10, histogram_max="observed")
    found = compare(base, tuned, definition)
    top = max(np.abs(s.matrix()).max() for s in (base, tuned))
    for side, scores in (("base", base), ("tuned", tuned)):
        wide = scores.matrix().astype(np.float64)
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


class Dense:
    """Every metric of one run over whole matrices in double precision, a cell without an edge being a cell of zero."""

    def __init__(self, scores: Scores, definition: Definition, top: float) -> None:
        self.matrix = scores.matrix().astype(np.float64)
        self.edges = self.matrix[:, scores.graph.mask]
        self.cells = self.matrix.reshape(len(self.matrix), -1) if definition.structural_zeros else self.edges
        self.bins = np.linspace(0, top, definition.bins + 1)
        self.loss = scores.loss.astype(np.float64)

    def of_questions(self) -> dict[str, np.ndarray]:
        correlation = np.corrcoef(self.cells)
        others = ~np.eye(len(correlation), dtype=bool)
        return {
            "activation_intensity": np.abs(self.cells).mean(1),
            "information_complexity": np.array([scipy.stats.entropy(self._histogram(row)) for row in self.cells]),
            "distribution_kurtosis": scipy.stats.kurtosis(self.cells, axis=1),
            "inter_sample_diversity": 1 - np.array([row[o].mean() for row, o in zip(correlation, others, strict=True)]),
            "node_output_entropy": np.array(
                [np.mean([scipy.stats.entropy(np.abs(row)) for row in one]) for one in self.matrix]
            ),
            "loss": self.loss,
            "effective_edges": np.array([np.exp(scipy.stats.entropy(row)) for row in np.abs(self.edges)]),
            "gini": np.array([_slow_gini(row) for row in np.abs(self.edges)]),
        }

    def _histogram(self, values: np.ndarray) -> np.ndarray:
        return np.histogram(np.minimum(np.abs(values), self.bins[-1]), self.bins)[0]

    def overall(self) -> dict[str, float]:
        strength = np.abs(self.edges).mean(0)
        return {metric: float(values.mean()) for metric, values in self.of_questions().items()} | {
            "information_complexity": float(scipy.stats.entropy(self._histogram(self.cells.ravel()))),
            "effective_edges": float(np.exp(scipy.stats.entropy(strength))),
            "gini": _slow_gini(strength),
        }


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("at_once", [1, 300, 4_000_000])
@pytest.mark.parametrize("heads", [False, True])
def test_a_few_at_a_time_all_is_as_over_whole_matrices(
    zeros: bool, at_once: int, heads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formulas, "AT_ONCE", at_once)
    monkeypatch.setattr(resampling, "AT_ONCE", at_once)
    graph = graph_of(3, granularity="heads", heads=(Heads(4, 2, True),) * 3) if heads else graph_of(3)
    rng = np.random.default_rng(0)
    base, tuned = (
        Scores(
            graph,
            tuple(map(str, range(9))),
            (scale * rng.standard_t(3, (9, graph.size)) + 0.3).astype(np.float32),
            rng.random(9).astype(np.float32),
        )
        for scale in (1.0, 1.4)
    )
    definition = replace(QUICK, structural_zeros=zeros, resamples=50)
    top = histogram_top(base, tuned, definition)
    assert top == pytest.approx(100 * np.mean([np.abs(s.edges).mean(dtype=np.float64) for s in (base, tuned)]))
    found, dense = compare(base, tuned, definition), [Dense(scores, definition, top) for scores in (base, tuned)]
    for one, side in zip(dense, ("base", "tuned"), strict=True):
        for metric, value in one.overall().items():
            assert getattr(found[metric], side) == pytest.approx(value, rel=1e-9), metric
    own = per_question(tuned, definition, top)
    for metric, value in dense[1].of_questions().items():
        assert own[metric] == pytest.approx(value, rel=1e-9), metric

    counts = resample_counts(9, definition)
    strengths = [counts @ np.abs(one.edges) / 9 for one in dense]
    resampled = [np.array([_slow_gini(row) for row in rows]) for rows in strengths]
    others = [[np.delete(np.abs(one.edges), k, axis=0).mean(0) for k in range(9)] for one in dense]
    without = [np.array([_slow_gini(row) for row in rows]) for rows in others]
    ends = _stretched_by_hand(resampled[1] - resampled[0], without[1] - without[0])
    assert (found["gini"].ci_low, found["gini"].ci_high) == pytest.approx(ends, rel=1e-4)
    ends = np.expm1(_stretched_by_hand(*(np.log(after / before) for before, after in (resampled, without))))
    assert (found["gini"].relative_low, found["gini"].relative_high) == pytest.approx(ends, rel=1e-4)
    for of in (np.abs, np.asarray):
        difference = of(dense[1].edges) - of(dense[0].edges)
        mean, low, high = edge_differences(base.edges, tuned.edges, definition, of)
        assert mean == pytest.approx(difference.mean(0), rel=1e-9, abs=1e-12)
        ends = np.quantile(counts @ difference / 9, [0.025, 0.975], axis=0)
        assert np.stack([low, high]) == pytest.approx(ends, rel=1e-9, abs=1e-12)


def _stretched_by_hand(resampled: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Accelerated percentiles whose distance from the median is as the jackknife and Student's t would have it."""
    n = len(without)
    acceleration = scipy.stats.skew(-without) / (6 * n**0.5)
    levels = [scipy.stats.norm.cdf(z / (1 - acceleration * z)) for z in scipy.stats.norm.ppf([0.025, 0.5, 0.975])]
    error = np.sqrt((n - 1) / n * sum((value - without.mean()) ** 2 for value in without))
    wider = scipy.stats.t.ppf(0.975, n - 1) * error / (scipy.stats.norm.ppf(0.975) * np.std(resampled))
    low, middle, high = np.quantile(resampled, levels)
    return np.array([middle - wider * (middle - low), middle + wider * (high - middle)])


def test_of_a_mean_the_stretched_interval_is_students() -> None:
    """Of normal numbers, whose resampled means are normal too, and whose interval is known."""
    rng = np.random.default_rng(0)
    base, tuned = rng.normal(50, 3, 30), rng.normal(52, 3, 30)
    counts = with_each_left_out(resample_counts(30, Definition(resamples=100_000)))
    rows = counts / counts.sum(1, keepdims=True)
    found = stretched(rows @ base, rows @ tuned, 30, Definition())
    expected = scipy.stats.ttest_rel(tuned, base).confidence_interval(0.95)
    assert found.difference == pytest.approx((expected.low, expected.high), abs=0.02 * (expected.high - expected.low))
    error = np.std(tuned / tuned.mean() - base / base.mean(), ddof=1) / 30**0.5  # by the delta method
    ends = np.log(tuned.mean() / base.mean()) + np.array([-1, 1]) * scipy.stats.t.ppf(0.975, 29) * error
    assert found.relative == pytest.approx(np.expm1(ends), abs=0.02 * np.ptp(ends))


@pytest.mark.parametrize("freedom", [2, 3, 5, 19, 99])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_students_quantiles_are_scipys(freedom: int, level: float) -> None:
    upper = (1 + level) / 2
    expected = scipy.stats.t.ppf(upper, freedom)
    assert student(scipy.stats.norm.ppf(upper), freedom) == pytest.approx(expected, rel=0.01 if freedom < 5 else 2e-4)


def test_over_very_many_edges_there_are_fewer_resamples_which_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = _scores(1), _scores(2)
    definition = Definition(resamples=300)
    all_of_them, first = compare(base, tuned, definition), compare(base, tuned, replace(definition, resamples=100))
    monkeypatch.setattr(definitions, "MANY", base.graph.size - 1)
    monkeypatch.setattr(definitions, "FEWER", 100)
    found = compare(base, tuned, definition)
    assert found["loss"] == all_of_them["loss"]
    assert found["gini"] == first["gini"] != all_of_them["gini"]
    assert as_json(found, definition, base, tuned)["definition"]["resamples_over_edges"] == 100
    assert edge_differences(base.edges, tuned.edges, definition)[1] == pytest.approx(
        edge_differences(base.edges, tuned.edges, replace(definition, resamples=100))[1]
    )


@pytest.mark.parametrize("zeros", [0, 90_000])
def test_the_gini_coefficient_of_very_many_values_is_that_of_ordering_them_all(zeros: int) -> None:
    rng = np.random.default_rng(0)
    wide = np.exp(3 * rng.standard_normal((2, 150_000))) * 1e-8
    wide[:, :zeros] = 0
    many = wide.astype(np.float32)
    assert formulas.gini(many) == pytest.approx(formulas.gini(many.astype(np.float64)), abs=1e-6)


def test_log_base_scales_the_entropies() -> None:
    natural, bits = (compare(_scores(1), _scores(2), replace(QUICK, log_base=b)) for b in (np.e, 2.0))
    for metric in ("information_complexity", "node_output_entropy"):
        assert bits[metric].base == pytest.approx(natural[metric].base / np.log(2))


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), order=st.permutations(range(12)))
def test_the_order_of_questions_does_not_matter(seed: int, order: list[int]) -> None:
    base, tuned = _scores(seed), _scores(seed + 1)
    shuffled = Scores(tuned.graph, tuple(tuned.ids[i] for i in order), tuned.edges[order], tuned.loss[order])
    assert compare(base, tuned, QUICK) == compare(base, shuffled, QUICK)


def test_the_interval_is_the_literal_bootstraps() -> None:
    base, tuned = _scores(3, samples=60), _scores(4, samples=60, scale=1.2)
    definition = Definition(resamples=3000)
    found = compare(base, tuned, definition)
    rng = np.random.default_rng(99)
    once = replace(definition, resamples=2)
    drawn_values: dict[str, list[Comparison]] = {m: [] for m in ("activation_intensity", "information_complexity")}
    for _ in range(400):
        rows = rng.integers(0, 60, 60)
        ids = tuple(map(str, range(60)))
        drawn = [Scores(s.graph, ids, s.edges[rows], s.loss[rows]) for s in (base, tuned)]
        result = compare(*drawn, once, list(drawn_values))
        for metric, values in drawn_values.items():
            values.append(result[metric])
    for metric, values in drawn_values.items():
        for name, prefix in (("difference", "ci"), ("relative", "relative")):
            low, high = np.quantile([getattr(c, name) for c in values], [0.025, 0.975])
            assert getattr(found[metric], f"{prefix}_low") == pytest.approx(low, abs=0.15 * (high - low))
            assert getattr(found[metric], f"{prefix}_high") == pytest.approx(high, abs=0.15 * (high - low))


def test_the_interval_of_complexity_takes_in_that_other_questions_have_other_bins() -> None:
    """The base's scores differ in size from question to question, and so do the means at which bins end."""
    rng = np.random.default_rng(0)
    wide = np.exp(rng.normal(0, 0.7, 60)).astype(np.float32)[:, None]
    base, tuned = _scores(3, 60), _scores(4, 60, scale=0.4)
    base = replace(base, edges=base.edges * wide)
    name = ["information_complexity"]
    found = compare(base, tuned, Definition(resamples=4000), name)[name[0]]
    ids = tuple(map(str, range(60)))
    drawn = []
    for _ in range(600):
        rows = rng.integers(0, 60, 60)
        both = [Scores(s.graph, ids, s.edges[rows], s.loss[rows]) for s in (base, tuned)]
        drawn.append(compare(*both, Definition(resamples=2), name)[name[0]])
    low, high = np.quantile([c.relative for c in drawn], [0.025, 0.975])
    assert (found.relative_low, found.relative_high) == pytest.approx((low, high), abs=0.15 * (high - low))
    fixed = Definition(resamples=4000, histogram_max=histogram_top(base, tuned, Definition()))
    narrow = compare(base, tuned, fixed, name)[name[0]]
    assert narrow.relative == found.relative
    assert narrow.relative_high - narrow.relative_low < 0.7 * (high - low)


def _studentised_by_hand(x: np.ndarray, y: np.ndarray, seed: int, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap-t of the difference of means and of the logarithm of their ratio, one resample after the other."""
    rng = np.random.default_rng(seed)
    n = len(x)

    def both(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimates and their standard errors; that of the logarithm by the delta method, from the covariance."""
        a, b = x.mean(), y.mean()
        covariance = np.cov(x, y) / n
        slope = np.array([-1 / a, 1 / b])
        errors = [np.std(y - x, ddof=1) / n**0.5, (slope @ covariance @ slope) ** 0.5]
        return np.array([b - a, np.log(b / a)]), np.array(errors)

    estimate, error = both(x, y)
    ts = []
    for _ in range(times):
        rows = rng.integers(0, n, n)
        again, its_error = both(x[rows], y[rows])
        ts.append((again - estimate) / its_error)
    low, high = np.quantile(ts, [0.025, 0.975], axis=0)
    return estimate - high * error, estimate - low * error


def test_below_fifty_questions_the_intervals_of_means_are_studentised() -> None:
    base, tuned = _scores(3, samples=15), _scores(4, samples=15, scale=1.2)
    found = compare(base, tuned, Definition(resamples=20_000))
    values = {
        "activation_intensity": [np.abs(s.matrix().astype(np.float64)).mean((1, 2)) for s in (base, tuned)],
        "loss": [s.loss.astype(np.float64) for s in (base, tuned)],
    }
    for metric, (x, y) in values.items():
        low, high = _studentised_by_hand(x, y, 1, 6000)
        c, width = found[metric], high - low
        assert (c.ci_low, c.ci_high) == pytest.approx((low[0], high[0]), abs=0.06 * width[0])
        relative = np.expm1([low[1], high[1]])
        assert (c.relative_low, c.relative_high) == pytest.approx(relative, abs=0.06 * (relative[1] - relative[0]))
        assert c.ci_high - c.ci_low > 1.05 * np.ptp(np.quantile(_resampled_means(y - x), [0.025, 0.975])), "wider"


def _resampled_means(values: np.ndarray) -> np.ndarray:
    rows = np.random.default_rng(5).integers(0, len(values), (20_000, len(values)))
    return values[rows].mean(1)


@pytest.mark.parametrize("samples", [15, 60])
def test_what_cannot_be_negative_never_falls_by_more_than_all_of_it(samples: int) -> None:
    """The difference's interval over the observed base would say -108 % here."""
    rng = np.random.default_rng(0)
    base = _scores(1, samples)
    heavy = np.exp(rng.normal(0, 2, samples)).astype(np.float32)
    base = replace(base, edges=base.edges * heavy[:, None], loss=heavy)
    tuned = replace(base, edges=base.edges * 0.02, loss=heavy * rng.uniform(0.01, 0.03, samples).astype(np.float32))
    found = compare(base, tuned)
    for metric in ("activation_intensity", "loss"):
        c = found[metric]
        assert c.ci_low / c.base < -1.05
        assert -1 < c.relative_low <= c.relative <= c.relative_high < -0.9
    never_negative = [c for metric, c in found.items() if metric != "distribution_kurtosis"]
    assert all(c.relative_low >= -1 - 1e-9 for c in never_negative if np.isfinite(c.relative_low))
    # Every question's scores are a fiftieth of what they were, so whatever the questions, that is the ratio.
    ends = (found["activation_intensity"].relative_low, found["activation_intensity"].relative_high)
    assert ends == pytest.approx((-0.98, -0.98), abs=1e-6)


@given(
    values=st.integers(2, 60).flatmap(
        lambda n: st.lists(st.tuples(*[st.one_of(st.just(0.0), st.floats(1e-6, 1e6))] * 2), min_size=n, max_size=n)
    )
)
@settings(max_examples=40, deadline=None)
def test_no_share_of_what_is_never_negative_falls_below_all_of_it(values: list[tuple[float, float]]) -> None:
    base, tuned = np.array(values).T
    counts = resample_counts(len(base), Definition(resamples=200))
    draws = with_each_left_out(counts)
    of = [draws @ side / len(base) for side in (base, tuned)]
    for found in (
        of_means(base, tuned, counts, QUICK),
        of_resampled(of[0][len(base) :], of[1][len(base) :], len(base), QUICK),
        stretched(*of, len(base), QUICK),
    ):
        low, high = found.relative
        assert low >= -1 - 1e-9 or low == -np.inf
        assert low <= high
        assert np.isinf(low) == np.isinf(high)


def _with_edges(values: np.ndarray) -> Scores:
    """Questions of the one-layer graph with these scores of its eight edges."""
    return Scores(
        GRAPH, tuple(map(str, range(len(values)))), values.astype(np.float32), np.ones(len(values), np.float32)
    )


@pytest.mark.parametrize("samples", [30, 60])
def test_a_base_that_may_be_zero_has_no_shares(samples: int) -> None:
    edges_only = replace(QUICK, structural_zeros=False)
    flat, tall = [1, -1, 1, -1, 1, -1, 1, -1], [2, -2, 1, -1, 0, 0, 0, 0]
    assert scipy.stats.kurtosis([flat, tall], axis=1) == pytest.approx([-2, 8 * 34 / 100 - 3])
    peak = [3, 0, 0, 0, 0, 0, 0, -3]  # 1
    mixed = _with_edges(np.array(([flat] + [peak] * 2) * (samples // 3)))  # 0 on average, -2 to 1 in resamples
    below, above = _with_edges(np.array([flat] * samples)), _with_edges(np.array([tall, flat] * (samples // 2)))
    c = compare(mixed, above, edges_only)["distribution_kurtosis"]
    assert (c.relative, c.relative_low, c.relative_high) == (None, -np.inf, np.inf)
    assert c.ci_low < c.difference < c.ci_high < np.inf
    # Where it is surely negative, a rise is a rise: the share is one of its size. Half the questions rise from -2 to
    # -0.28, so the share is 0.43, and in no resample below 0 or above 0.86.
    c = compare(below, above, edges_only)["distribution_kurtosis"]
    assert c.relative == pytest.approx(1.72 / 2 / 2)
    assert 0 < c.relative_low < c.relative < c.relative_high < 0.86


@pytest.mark.parametrize("samples", [2, 3])
def test_two_or_three_questions_say_nothing_of_the_spread_of_a_mean(samples: int) -> None:
    found = compare(_scores(0, samples), _scores(1, samples))
    for metric in (key for key, metric in METRICS.items() if not metric.statistic):
        ends = (found[metric].ci_low, found[metric].ci_high, found[metric].relative_low, found[metric].relative_high)
        assert ends == (-np.inf, np.inf, -np.inf, np.inf), metric
        assert found[metric].direction == 0


def test_questions_that_agree_leave_no_doubt() -> None:
    base = _scores(0, 12)
    tuned = replace(base, loss=base.loss + np.float32(0.5), edges=2 * base.edges)
    c = compare(replace(base, loss=np.full(12, 0.25, np.float32)), replace(tuned, loss=np.full(12, 0.75, np.float32)))
    assert (c["loss"].ci_low, c["loss"].ci_high) == pytest.approx((0.5, 0.5))
    assert (c["loss"].relative_low, c["loss"].relative_high) == pytest.approx((2.0, 2.0))
    doubled = c["activation_intensity"]
    assert (doubled.relative_low, doubled.relative_high) == pytest.approx((1.0, 1.0))
    assert doubled.ci_low < doubled.difference < doubled.ci_high


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap() -> None:
    base, tuned = _scores(5, samples=40), _scores(6, samples=40, scale=1.2)
    found = compare(base, tuned)["activation_intensity"]
    paired = np.abs(tuned.matrix()).mean((1, 2)) - np.abs(base.matrix()).mean((1, 2))
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
    renamed = Scores(base.graph, ("other", *base.ids[1:]), base.edges, base.loss)
    with pytest.raises(ScoresError, match="2 questions are in one file and not in the other, 'other'"):
        align(base, renamed)
    with pytest.raises(ScoresError, match="2 and 3 layers"):
        align(base, _scores(1, layers=3))


def test_a_single_question_has_no_finite_interval_of_anything() -> None:
    base, tuned = (Scores(s.graph, s.ids[:1], s.edges[:1], s.loss[:1]) for s in (_scores(0), _scores(1)))
    for metric, c in compare(base, tuned, QUICK).items():
        assert (c.ci_low, c.ci_high, c.direction) == (-np.inf, np.inf, 0), metric
    _, low, high = edge_differences(base.matrix().reshape(1, -1), tuned.matrix().reshape(1, -1), QUICK)
    assert np.isinf(low).all()
    assert np.isinf(high).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_asked_for_alone_is_the_one_among_all(metric: str) -> None:
    base, tuned = _scores(3), _scores(4)
    assert compare(base, tuned, QUICK, [metric]) == {metric: compare(base, tuned, QUICK)[metric]}


@settings(max_examples=10)
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
    assert paired_score(0, 0, 0) == (-1.0, 1.0)


@settings(max_examples=15)
@given(gained=st.integers(0, 30), lost=st.integers(0, 30), alike=st.integers(0, 60))
def test_the_paired_score_interval_holds_the_differences_that_a_score_test_accepts(
    gained: int, lost: int, alike: int
) -> None:
    """The test's likeliest shares under a difference are searched for, by maximising the multinomial likelihood."""
    n = gained + lost + alike
    if not n:
        return

    def score(difference: float) -> float:
        least = max(0.0, -difference)
        most = (1 - difference) / 2

        def unlikely(share: float) -> float:
            cells = np.clip([share + difference, share, 1 - difference - 2 * share], 1e-300, None)
            return -float(np.dot([gained, lost, alike], np.log(cells)))

        share = scipy.optimize.minimize_scalar(unlikely, bounds=(least, most), options={"xatol": 1e-13}).x
        variance = (2 * share + difference - difference**2) / n
        return ((gained - lost) / n - difference) / variance**0.5

    z = scipy.stats.norm.ppf(0.975)
    low, high = paired_score(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    for end, towards, sign in ((low, -1, 1), (high, 1, -1)):
        if abs(end) < 1 - 1e-9:
            assert sign * score(end) == pytest.approx(z, abs=0.01)
        else:
            assert sign * score(towards * (1 - 1e-6)) < z


def test_the_paired_score_interval_by_hand() -> None:
    # All alike: the score test of a difference d is n d / (1 - d), so d = z^2 / (n + z^2), above and below.
    square = scipy.stats.norm.ppf(0.975) ** 2
    assert paired_score(0, 0, 500) == pytest.approx((-square / (500 + square), square / (500 + square)))
    assert paired_score(7, 30, 90) == pytest.approx(tuple(-end for end in reversed(paired_score(30, 7, 90))))
    assert paired_score(10**6, 0, 10**6)[1] == pytest.approx(1.0)


def test_the_paired_score_interval_covers_a_true_difference_about_that_often() -> None:
    rng = np.random.default_rng(1)
    for chances in ((0.1, 0.02, 0.88), (0.01, 0.01, 0.98), (0.4, 0.0, 0.6)):
        ends = [paired_score(int(g), int(w), 60) for g, w, _ in rng.multinomial(60, chances, 1000)]
        held = np.mean([low <= chances[0] - chances[1] <= high for low, high in ends])
        assert 0.92 < held <= 1.0, chances


def test_the_documented_coverage_is_that_by_which_pages_warn() -> None:
    lines = (ROOT / "docs" / "method.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|") and line.count(" / ") == 3]
    documented = {name: [tuple(map(int, cell.split(" / "))) for cell in cells] for name, *cells in rows}
    for metric in METRICS.values():
        expected = [tuple(round(100 * share) for share in shares) for shares in metric.coverage.values()]
        assert documented[metric.label.lower()] == expected


def test_coverage_is_that_of_the_nearest_smaller_number_of_questions() -> None:
    for questions, size in ((1, 20), (20, 20), (49, 20), (50, 50), (99, 50), (100, 100), (5000, 100)):
        for metric, known in METRICS.items():
            assert coverage(metric, questions) == min(known.coverage[size])


def test_the_verdict_needs_an_interval_on_one_side_of_zero() -> None:
    up = Comparison(1, 2, 1, 1, 0.5, 1.5, 0.5, 1.5)
    unsure = Comparison(1, 2, 1, 1, -0.1, 2.1, -0.1, 2.1)
    assert [verdict(m, up) for m in PATTERN] == ["follows", "follows", "against"]
    assert [verdict(m, unsure) for m in PATTERN] == ["noise", "noise", "noise"]


def test_json_has_every_metric_and_parameter() -> None:
    base, tuned = _scores(1), _scores(2)
    result = as_json(compare(base, tuned, QUICK), QUICK, base, tuned)
    assert set(result["metrics"]) == set(METRICS)
    for row in result["metrics"].values():
        ends = {"ci_low", "ci_high", "relative_low", "relative_high"}
        assert set(row) == {"base", "tuned", "difference", "relative", "interval_of"} | ends
    assert {"bins", "histogram_max", "log_base", "epsilon", "structural_zeros", "resamples"} <= set(
        result["definition"]
    )
    edges = [np.abs(s.matrix()[:, s.graph.mask]).mean() for s in (base, tuned)]
    assert result["definition"]["histogram_max"] == pytest.approx(100 * np.mean(edges))
    assert "100 times the mean |score|" in result["metrics"]["information_complexity"]["interval_of"]
    observed = replace(QUICK, histogram_max="observed")
    result = as_json(compare(base, tuned, observed), observed, base, tuned)
    assert result["definition"]["histogram_max"] == max(np.abs(base.matrix()).max(), np.abs(tuned.matrix()).max())
    assert "these very bins" in result["metrics"]["information_complexity"]["interval_of"]


def test_a_comparison_turned_round_is_that_of_the_two_in_each_others_place() -> None:
    base, tuned = _scores(1, 60), _scores(2, 60, scale=1.5)
    there, back = (compare(*both, QUICK) for both in ((base, tuned), (tuned, base)))
    for metric in ("activation_intensity", "loss"):
        turned = there[metric].turned
        assert (turned.base, turned.tuned) == (back[metric].base, back[metric].tuned)
        assert turned.difference == pytest.approx(back[metric].difference)
        assert (turned.ci_low, turned.ci_high) == pytest.approx((back[metric].ci_low, back[metric].ci_high))
        assert turned.relative == pytest.approx(back[metric].relative)
        ends = (back[metric].relative_low, back[metric].relative_high)
        assert (turned.relative_low, turned.relative_high) == pytest.approx(ends, rel=0.02), (
            "between the same resamples"
        )
