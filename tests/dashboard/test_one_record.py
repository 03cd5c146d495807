"""A metric that is registered is computed, stored, printed and shown, and nothing else needs to know of it."""

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from probing.cli import main
from probing.graph import graph_of
from probing.metrics import METRICS, Metric, compare, in_parts, sizes
from probing.scores import Scores, write_scores
from probing.store import open_store
from probing.summary import summarise

MEDIAN = Metric(
    "median_size",
    "median score",
    "median",
    "Mean over questions of the median |score| of the edges.",
    r"\frac{1}{n} \sum_k \operatorname{med} |W^{(k)}|",
    "the mean over all such questions of a question's own median",
    in_parts(lambda scores, definition, top: np.median(sizes(scores), axis=1)),
    unit="nats",
)


def _scores(seed: int, scale: float) -> Scores:
    graph, rng = graph_of(2), np.random.default_rng(seed)
    edges = (scale * rng.standard_t(3, (60, graph.size))).astype(np.float32)
    return Scores(graph, tuple(f"q{i}" for i in range(60)), edges, np.ones(60, np.float32))


def _shown() -> None:
    import streamlit as st

    from dashboard import tables
    from dashboard.pattern import Told
    from dashboard.widgets import metric_card
    from probing.method import PAPERS
    from tests.dashboard.test_one_record import compared

    told = Told(PAPERS, compared())
    tables.all_metrics(told, 60)
    metric_card(told, "median_size", 60)
    st.write("done")


def compared() -> dict:
    return compare(_scores(1, 1.0), _scores(2, 3.0))


def test_a_new_metric_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setitem(METRICS, MEDIAN.key, MEDIAN)
    base, tuned = _scores(1, 1.0), _scores(2, 3.0)
    before, after = (np.median(np.abs(scores.edges), axis=1) for scores in (base, tuned))

    found = compare(base, tuned)[MEDIAN.key]
    assert (found.base, found.tuned) == pytest.approx((before.mean(), after.mean()))
    drawn = np.random.default_rng(0).integers(0, 60, (4000, 60))
    expected = np.quantile((after - before)[drawn].mean(1), [0.025, 0.975])
    assert (found.ci_low, found.ci_high) == pytest.approx(expected, abs=0.1 * np.ptp(expected))

    store = open_store(tmp_path / "store.duckdb")
    store.summaries.save("comparison", "tuned", summarise(base, tuned))
    kept = store.summaries.metrics().set_index("metric").loc[MEDIAN.key]
    assert (kept["base"], kept["ci_low"]) == (found.base, found.ci_low)
    questions = store.summaries.questions("comparison").set_index("metric").loc[MEDIAN.key].set_index("question_id")
    assert questions.loc["q7", "tuned"] == pytest.approx(after[7])
    store.close()

    for name, scores in (("base", base), ("tuned", tuned)):
        write_scores(tmp_path / f"{name}.npz", scores)
    assert main(["compare", str(tmp_path / "base.npz"), str(tmp_path / "tuned.npz")]) == 0
    assert f"median score (nats)               {found.base:>12.4g}" in capsys.readouterr().out

    app = AppTest.from_function(_shown, default_timeout=60).run()
    assert not app.exception
    row = app.dataframe[0].value.set_index("Metric").loc["Median score"]
    assert (row["What it is"], row["Held"]) == (MEDIAN.meaning, "–")
    assert app.metric[0].label == "Median score (nats)"
    assert app.markdown[-1].value == "done"
