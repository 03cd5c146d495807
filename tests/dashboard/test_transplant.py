"""The page Transplant and its figures, over transplants of which every number was made here."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import service
from probing.figures import transplants as figures
from probing.figures.theme import BASE, NEUTRAL, TUNED
from probing.jobs.plan import Spec
from probing.jobs.shipped import SAMPLES
from probing.jobs.tasks import Transplant
from probing.store.records import Subject
from probing.store.spool import MeasurementBatch
from probing.transplant.units import ORDERS, Direction, What, singles, steps
from tests.dashboard.apps import open_app

PARTS = ["input+logits", "a0", "m0", "a1", "m1"]
ASKED = 60


def _measured(way: Direction, what: What, right: Mapping[str, int]) -> dict[str, dict[str, np.ndarray]]:
    """The first so many of the questions answered right, or as many as by the host; losses that follow."""
    host, donor = ("base", "tuned") if way == "into-base" else ("tuned", "base")
    counts = {side: right[side] for side in ("base", "tuned")}
    counts |= {unit.name: right.get(unit.parts[0], right[host]) for unit in singles(what, way, PARTS)}
    if what == "weights":
        counts |= {unit.name: right[donor] for order in ORDERS for unit in steps(way, order, PARTS)}
    asked = np.arange(ASKED)
    correct = {name: asked < count for name, count in counts.items()}
    losses = {name: 1 - 0.5 * found + asked / 1e3 for name, found in correct.items()}
    graded = what == "weights"
    return {name: ({"correct": found} if graded else {}) | {"loss": losses[name]} for name, found in correct.items()}


def _keep(pair: str, way: Direction, right: Mapping[str, int], what: What = "weights") -> None:
    """As a job would have left it in the store."""
    store, key = service.store(), f"{pair}-{way}-{what}"
    found = _measured(way, what, right)
    task = Transplant(what, way)
    settings = task.as_json() | {"version": task.version, "granularity": "projections", "answers": {"base": {}}}
    settings |= {"scored": {"device": "cpu", "dtype": "float32"}}
    ids = [f"q{number}" for number in range(ASKED)]
    store.evaluations.start(key, task.kind, Subject(pair, "addition"), settings, list(found), ids)
    values = {measure: np.array([of[measure] for of in found.values()], np.float32) for measure in found["base"]}
    store.spool.put(MeasurementBatch(key, tuple(found), values))
    store.batches.ingest()
    store.evaluations.finish(key, {"moved": dict.fromkeys(PARTS, 0.0123)}, 1.0)


GAIN = {"base": 20, "tuned": 50, "a0": 38, "m0": 30}
LITTLE = {"base": 20, "tuned": 22, "a0": 22}


@pytest.fixture
def kept(empty: Path) -> Path:
    """A store with transplants of a pair, both ways, and of the control, one way."""
    _keep("grpo", "into-base", GAIN)
    _keep("grpo", "into-tuned", {"base": 20, "tuned": 50, "a0": 49})
    _keep("sft-more", "into-base", LITTLE)
    return empty


def _open(**state: object) -> AppTest:
    return open_app("transplant", **state)


def _texts(app: AppTest) -> str:
    assert not app.exception
    return "\n".join(str(element.value) for element in (*app.markdown, *app.caption, *app.info))


def _charts(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def test_the_page_says_what_was_found_and_shows_it(kept: Path) -> None:
    app = _open()
    said = _texts(app)
    assert "`a0` alone carries 60 % (95 % interval " in said
    assert "of the gain of 50.0 points; 2 of 5 parts together bring about 90 % of it; no single part is needed" in said
    assert "The control More SFT moves `a0` by +3.3 points (95 % interval " in said
    assert "60 questions of Addition" in said
    lanes, cumulative, pairs = _charts(app)
    assert len(lanes["data"]) == 4
    assert len(cumulative["data"]) == 4
    assert [annotation["text"] for annotation in pairs["layout"]["annotations"]] == ["GRPO", "More SFT"]
    assert not app.button, "nothing is missing"
    app.segmented_control(key="measured").set_value("loss").run()
    assert "of the fall of the loss of 0.25;" in _texts(app)


def test_a_part_that_is_picked_shows_its_numbers_and_the_way_to_its_edges(kept: Path) -> None:
    app = _open(block="a0")
    said = _texts(app)
    assert "**a0**" in said
    assert "- right answers 63 %, +30.0 points (" in said
    assert "- moved by tuning 1.2 % of its norm" in said
    (link,) = [link for link in app.get("page_link") if "a0" in link.proto.label]
    assert link.proto.query_string == "pick=a0"
    app.selectbox(key="block").set_value("input+logits").run()
    assert [link.proto.query_string for link in app.get("page_link")][-2:] == ["pick=input", "pick=logits"]


def test_what_was_not_computed_is_offered_with_what_it_takes(kept: Path) -> None:
    app = _open(pair="sft-more")
    assert "Not computed yet: each part of the base put into the tuned model, on 200 questions." in _texts(app)
    app = _open(pair="ppo")
    assert len(_charts(app)) == 0
    said = _texts(app)
    assert "each part of the tuned model put into the base and each part of the base put into the tuned model" in said
    assert "Both models are in memory at once." in said
    next(button for button in app.button if button.label == "Compute it").click().run()
    both = tuple(Transplant("weights", way, SAMPLES) for way in ("into-base", "into-tuned"))
    assert Spec.from_json(service.store().queue.job(1).spec) == Spec("ppo", "addition", (), also=both)
    assert "Compute it" not in [button.label for button in app.button]
    assert any("In the queue" in bar.proto.text or "Starting" in bar.proto.text for bar in app.get("progress"))


def test_viewers_of_a_hosted_server_see_what_there_is(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    app = _open(pair="ppo")
    assert not app.button
    assert "nothing new is computed here" in _texts(app)
    assert "`a0` alone carries" in _texts(_open())


def test_activations_are_a_switch_where_they_were_kept(kept: Path) -> None:
    assert "exchanged" not in [control.key for control in _open().get("button_group")]
    _keep("grpo", "into-base", GAIN, "activations")
    app = _open()
    app.segmented_control(key="exchanged").set_value("activations").run()
    said = _texts(app)
    assert "`a0` alone carries 60 % (95 % interval " in said
    assert "of the fall of the loss of 0.25." in said, "no steps, and no other direction"
    assert len(_charts(app)) == 1
    assert "Not computed yet: each part of the base put into the tuned model" in said


# -- figures -----------------------------------------------------------------------------------------------------------


def _rows(parts: Mapping[str, tuple[float, float, float]], way: Direction = "into-base") -> pd.DataFrame:
    unknown = dict.fromkeys(("gap_change", "gap_low", "gap_high"), np.nan)
    return pd.DataFrame([
        {"direction": way, "part": part, "moved": None, "correct": 0.5, "correct_change": change, "correct_low": low,
         "correct_high": high, "loss": 1.0, "loss_change": -change, "loss_low": -high, "loss_high": -low, **unknown}
        for part, (change, low, high) in parts.items()
    ])  # fmt: skip


CHANGES = {"input": (0.0, -0.02, 0.02), "a0": (0.3, 0.2, 0.4), "m0": (-0.1, -0.2, -0.05), "m1": (0.1, 0.05, 0.15),
           "logits": (0.0, -np.inf, np.inf)}  # fmt: skip


def test_lanes_have_each_part_at_its_layer_with_its_interval() -> None:
    both = pd.concat([_rows(CHANGES), _rows({"a0": (0.0, -0.01, 0.01)}, "into-tuned")])
    figure = figures.lanes(both, "correct", 1, "m1")
    attention, mlp = figure.data[:2]
    assert [list(trace.y) for trace in figure.data] == [[-1, 0, 2], [0, 1], [0], []]
    np.testing.assert_allclose(attention.x, [0, 30, 0])
    np.testing.assert_allclose(attention.error_x.array, [2, 10, 0])
    np.testing.assert_allclose(mlp.error_x.arrayminus, [10, 5])
    assert list(attention.marker.color) == [NEUTRAL, TUNED, NEUTRAL]
    assert list(mlp.marker.color) == [BASE, TUNED]
    assert list(mlp.marker.line.width) == [0, 3]
    assert list(figure.layout.yaxis.ticktext) == ["input", "0", "1", "logits"]
    assert figure.layout.xaxis.range == figure.layout.xaxis4.range
    assert figure.layout.xaxis.range[0] < -20
    assert "<b>a0</b>, put into the base<br>right answers 50 %, +30.0 points (+20.0 to +40.0)" in attention.hovertext[1]
    assert "loss 1.00, −0.300 (−0.400 to −0.200)" in attention.hovertext[1]
    assert "points (no interval)" in attention.hovertext[2]
    falling = figures.lanes(_rows(CHANGES), "loss", -1, None)
    np.testing.assert_allclose(falling.data[1].x, [0.1, -0.1])
    assert list(falling.data[1].marker.color) == [BASE, TUNED], "a loss that falls is towards the tuned model"


def test_heads_of_a_block_stand_above_each_other_in_its_layer() -> None:
    heads = {f"a0.{name}": (0.1, 0.0, 0.2) for name in ("h0", "h1", "g0", "rest")} | {"m0": (0.1, 0.0, 0.2)}
    attention, mlp = figures.lanes(_rows(heads), "correct", 1, None).data
    np.testing.assert_allclose(attention.y, [-0.3, -0.1, 0.1, 0.3])
    assert list(mlp.y) == [0]


def test_curves_begin_at_the_host_and_end_at_the_donor() -> None:
    of = pd.concat([
        _rows({"": (0.0, -0.1, 0.1), "a0": (0.3, 0.2, 0.45), "m0": (0.48, 0.4, 0.6)}, way).assign(
            correct=[0.5, 0.8, 0.98], order=order, parts=[0, 1, 2], added=["", "a0", "m0"], direction=way)
        for way in ("into-base", "into-tuned") for order in ("depth", "effect")
    ])  # fmt: skip
    figure = figures.cumulative(of, "correct")
    assert len(figure.data) == 4
    first = figure.data[0]
    np.testing.assert_allclose(first.y, [50, 80, 98])
    np.testing.assert_allclose(first.error_y.array, [10, 15, 2], err_msg="no share of right answers is above one")
    np.testing.assert_allclose(first.error_y.arrayminus, [10, 10, 8])
    assert list(first.text) == ["nothing", "and a0", "and m0"]


def test_pairs_stand_side_by_side_on_one_scale_and_what_is_marked_has_a_ring() -> None:
    tables = {"A<b>": _rows(CHANGES), "B": _rows({"a0": (0.9, 0.8, 0.95), "a1": (0.0, -0.1, 0.1)})}
    figure = figures.side_by_side(tables, {"A<b>": 1, "B": -1}, {"A<b>": ["a0"], "B": []}, "correct")
    one, other = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["input", "a0", "m0", "m1", "logits", "a1"]
    assert list(one.marker.line.width) == [0, 3, 0, 0, 0]
    assert list(other.y) == [1, 5]
    assert list(other.marker.color) == [BASE, NEUTRAL]
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range
    assert figure.layout.annotations[0].text == "A&lt;b&gt;"
