"""The page Timeline, run by AppTest."""

import base64
import json
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import service, training
from tests.dashboard.apps import by_the_papers_method, open_app, text_of

STEPS = [0, 5, 10, 20, 30, 45, 60, 80, 100, 120]
"""Of GRPO."""


def _traces(app: AppTest, chart: int) -> list[dict]:
    """The lines of a chart that say something: what is unseen has no name."""
    traces = json.loads(app.get("plotly_chart")[chart].proto.spec)["data"]
    return [trace for trace in traces if trace.get("name")]


def _numbers(coded: dict) -> np.ndarray:
    """What Plotly wrote in base 64."""
    return np.frombuffer(base64.b64decode(coded["bdata"]), coded["dtype"])


def test_the_timeline_ends_where_the_pair_does(full: Path) -> None:
    app = open_app("timeline", pair="grpo")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 4
    app.select_slider(key="step").set_value(20).run()
    assert not app.exception
    store = service.store()
    metrics = store.summaries.metrics().set_index(["comparison_key", "side", "metric"])["tuned"]
    table = by_the_papers_method()["comparison_key"]
    for pair, last in (("grpo", "step-000120"), ("ppo", "step-000100")):
        key = table[pair, 0.3]
        assert metrics[key, last, "activation_intensity"] == pytest.approx(
            metrics[key, "tuned", "activation_intensity"], rel=1e-5
        )


def test_a_pair_without_checkpoints_says_how_to_name_some(full: Path) -> None:
    app = open_app("timeline", pair="dpo")
    assert "This pair has no checkpoints" in app.info[0].value


def test_a_cut_without_a_timeline_offers_to_compute_it(full: Path) -> None:
    app = open_app("timeline", pair="grpo", alpha=0.5)
    assert "0 of 10 checkpoints" in app.info[0].value
    next(button for button in app.button if button.label == "Compute the timeline").click().run()
    assert not app.exception
    spec = json.loads(service.store().queue.jobs()["spec"][0])
    assert (spec["timeline"], spec["alphas"]) == (True, [0.5])


def test_an_edge_is_followed_through_its_training(full: Path) -> None:
    app = open_app("timeline", pair="grpo", edge="m2->logits")
    assert not app.exception
    strength, effect = _traces(app, 1)
    store = service.store()
    runs = store.comparisons.runs(by_the_papers_method()["comparison_key"]["grpo", 0.3])
    scores = [store.runs.scores(runs[f"step-{step:06d}"]) for step in STEPS]
    own = [of_step.edges[:, of_step.graph.number("m2->logits")].astype(float) for of_step in scores]
    for trace, values in ((strength, np.abs(own)), (effect, np.array(own))):
        assert _numbers(trace["x"]).tolist() == STEPS
        assert _numbers(trace["y"]) == pytest.approx(values.mean(1), rel=1e-5)
        bars = trace["error_y"]
        widths = _numbers(bars["array"]) + _numbers(bars["arrayminus"])
        # Of a mean over 100 questions a 95 % interval is about as wide as the normal distribution says.
        assert widths == pytest.approx(2 * 1.96 * values.std(1, ddof=1) / np.sqrt(values.shape[1]), rel=0.2)
    app = open_app("timeline", pair="grpo", edge="m2")
    assert "No edge in this graph is called “m2”" in app.warning[0].value
    assert not app.exception


def test_two_trainings_share_their_axes(full: Path) -> None:
    assert {trace["name"] for trace in _traces(open_app("timeline", pair="grpo"), 0)} == {"GRPO"}
    app = open_app("timeline", pair="grpo", training="PPO")
    assert not app.exception
    intensity = [trace for trace in _traces(app, 0) if trace["yaxis"] == "y2"]
    metrics = service.store().summaries.metrics().set_index(["comparison_key", "metric", "side"])["tuned"]
    keys = by_the_papers_method()["comparison_key"]
    assert [trace["name"] for trace in intensity] == ["GRPO", "PPO"]
    for trace, pair in zip(intensity, ("grpo", "ppo"), strict=True):
        expected = [
            metrics[keys[pair, 0.3], "activation_intensity", f"step-{int(s):06d}"] for s in _numbers(trace["x"])
        ]
        assert len(expected) >= 9
        assert _numbers(trace["y"]) == pytest.approx(expected)
    assert [trace["name"] for trace in _traces(app, 1)] == ["GRPO", "PPO"] * 2
    assert "Dotted: base and tuned of GRPO" in text_of(app)
    app.selectbox(key="pair").select("PPO").run()
    assert not app.exception
    assert {trace["name"] for trace in _traces(app, 0)} == {"PPO"}, "a training is not beside itself"


def test_the_training_plays_to_its_end_and_stays_there(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: clock.now))
    app = open_app("timeline", pair="grpo")

    def shown() -> int:
        return int(re.findall(r"Step (\d+)", app.get("plotly_chart")[-1].proto.spec)[0])

    assert shown() == STEPS[-1]
    app.button(key="play").click().run()
    seen = [shown()]
    while app.button(key="play").label == "Stop":
        app.run()
        assert shown() == seen[-1], "another reason to draw the page does not hurry it"
        clock.now += training.PACE
        app.run()
        seen.append(shown())
    assert not app.exception
    assert seen == STEPS
    assert app.select_slider(key="step").value == STEPS[-1]
    app.run()
    assert shown() == STEPS[-1]

    app.select_slider(key="step").set_value(20).run()
    app.button(key="play").click().run()
    for before, after in pairwise(STEPS[3:6]):
        assert shown() == before
        clock.now += training.PACE
        app.run()
        assert shown() == after
    app.button(key="play").click().run()
    clock.now += training.PACE
    app.run()
    assert app.select_slider(key="step").value == shown() == 45, "where it was stopped"
