"""Definitions side by side, seeds and other pairs beside them, on the pages that show them."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data, definitions, service
from dashboard.seeds import of_groups
from dashboard.view import View, by_method, method_of
from probing.cuts import Cut
from probing.jobs.plan import Spec
from probing.jobs.shipped import DEFINITIONS
from probing.jobs.tasks import Check
from probing.metrics import INTENSITY
from probing.pairs import load_registry
from probing.rollouts import DEFAULT_CUT
from probing.store.records import ComparisonRow
from tests.dashboard.apps import compute, open_app, text_of


def _view(pair: str, at: Cut = DEFAULT_CUT) -> View:
    """The comparison by the paper's method."""
    row = next(row for row in _rows() if (row.pair, row.at) == (pair, at) and not method_of(row).words)
    return View(load_registry().pairs[pair], "addition", "both_correct", at, "ready", row, None)


def _rows() -> list[ComparisonRow]:
    return [ComparisonRow.of(row) for row in service.store().comparisons.table().to_dict("records")]


def _strength(run: str | None) -> float:
    """The mean |score| of a run."""
    assert run is not None
    return float(np.abs(service.store().runs.scores(run).edges).mean())


def _forest(app: AppTest, metric: str = "Activation intensity") -> dict:
    """The figure of all definitions, by a metric."""
    (found,) = (
        figure
        for figure in (json.loads(chart.proto.spec) for chart in app.get("plotly_chart"))
        if figure["layout"].get("xaxis", {}).get("title", {}).get("text") == f"{metric}, change in %"
    )
    return found


def _numbers(values: list | dict) -> np.ndarray:
    """Of a figure, where arrays are packed."""
    return (
        np.array(values)
        if isinstance(values, list)
        else np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    )


def test_the_definitions_stand_side_by_side_with_what_seeds_do(full: Path) -> None:
    view = _view("grpo")
    by_hand = {}
    for method in DEFINITIONS:
        found = by_method(view, method)
        assert found is not None
        by_hand[method] = _strength(found.keys[1]) / _strength(found.keys[0]) - 1
    app = open_app("compare", pair="grpo")
    assert not app.exception
    paper, margin, real, real_margin = (f"{abs(100 * by_hand[method]):.2g} %" for method in DEFINITIONS)
    assert f"By the paper's definition GRPO lowered intensity by {paper} (95 %" in text_of(app)
    assert f"by the margin it rose by {margin} (" in text_of(app)
    assert f"with every edge really removed it rose by {real} (likelihood, " in text_of(app)
    assert f"and {real_margin} (margin" in text_of(app)
    assert "the fall is one of confidence" in text_of(app)
    assert "Both models' scored answers are the same for all questions" in text_of(app)
    assert "against the pattern" not in text_of(app)
    assert "Beyond the seed band (" in text_of(app)

    figure = _forest(app)
    (points,) = (trace for trace in figure["data"] if trace["name"] == "change")
    assert list(_numbers(points["x"])) == pytest.approx([100 * by_hand[method] for method in DEFINITIONS], rel=1e-4)
    assert points["marker"]["symbol"] == ["circle", "circle", "diamond", "diamond"]
    (bands,) = (trace for trace in figure["data"] if trace["name"] == "seeds")
    margins = [row for row in _rows() if row.pair in ("seed", "seed3") and method_of(row) == DEFINITIONS[1]]
    changes = [100 * (_strength(row.tuned_run) / _strength(row.base_run) - 1) for row in margins]
    band = _numbers(bands["x"]).reshape(-1, 3)[1, :2]
    assert band == pytest.approx([min(0, *changes, 0), max(0, *changes, 0)], rel=1e-4)
    assert max(changes) > 0


def test_what_is_missing_is_offered_and_then_stands_there(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app("compare", pair="grpo", alpha=0.5)
    assert "and this may be confidence alone: what the margin says" in text_of(app)
    assert [button.label for button in app.button if "edge" in button.label or "margin" in button.label] == [
        "Compute the margin", "Remove every edge",
    ]  # fmt: skip
    monkeypatch.setattr(definitions, "AT_ONCE", 0)
    assert not any(button.label == "Remove every edge" for button in app.run().button), "that is for the page Runs"
    assert not app.exception
    next(button for button in app.button if button.label == "Compute the margin").click().run()
    spec = Spec.from_json(json.loads(service.store().queue.jobs().iloc[0]["spec"]))
    assert (spec.pair, spec.cuts, spec.method) == ("grpo", (Cut(0.5),), DEFINITIONS[1])


def test_what_was_computed_stands_there_and_from_some_edges_the_real_intensity_is_estimated(full: Path) -> None:
    checks = tuple(Check(side, strongest=10, random=20, questions=10) for side in ("base", "tuned"))
    compute(Spec("grpo", "addition", (Cut(0.5),), method=DEFINITIONS[1], also=checks))
    app = open_app("compare", pair="grpo", alpha=0.5)
    assert "; by the margin it rose by" in text_of(app)
    assert ", as estimated from some edges" in text_of(app)
    (points,) = (trace for trace in _forest(app)["data"] if trace["name"] == "change")
    assert points["marker"]["symbol"] == ["circle", "circle", "diamond-open", "diamond-open"]
    told = definitions.told(_view("grpo", Cut(0.5)))
    assert [of.estimated for of in told] == [False, False, True, True]
    table = service.store().evaluations.table()
    for side, shown in (
        ("base", told[3].compared[INTENSITY.key].base),
        ("tuned", told[3].compared[INTENSITY.key].tuned),
    ):
        (key,) = table[(table["kind"] == "ablation") & (table["side"] == side)]["evaluation_key"]
        size = np.abs(service.store().evaluations.values(key).values["margin"]).mean(1)
        graph = _view("grpo").graph
        whole = size[:10].sum() + (graph.size - 10) * size[10:].mean()
        assert shown == pytest.approx(whole / (len(graph.writers) * len(graph.readers)), rel=1e-4)


def test_the_share_of_equal_answers_is_that_of_their_tokens(full: Path) -> None:
    view = _view("seed")
    ids = set(service.store().runs.scores(view.keys[0]).ids)
    row = view.comparison
    base, tuned = (
        {answer.question_id: answer.tokens for answer in service.store().rollouts.answers(key)}
        for key in (row.base_rollout, row.tuned_rollout)
    )
    same = [base[question][: view.cut] == tuned[question][: view.cut] for question in ids]
    assert data.same_text(view.key, view.cut) == pytest.approx(np.mean(same))
    assert data.same_text(view.key, 10_000) == pytest.approx(np.mean([base[q] == tuned[q] for q in ids]))
    assert np.mean(same) > 0


def test_seeds_move_each_group_by_their_share_of_its_base(full: Path) -> None:
    view = _view("grpo")
    found = of_groups(view, "kind")
    assert found is not None
    own = data.breakdown(*view.keys, "kind")
    shares = []
    for pair in ("seed", "seed3"):
        breakdown = data.breakdown(*_view(pair).keys, "kind")
        shares.append(breakdown.tuned.mean(1) / breakdown.base.mean(1) - 1)
    assert found[0] == pytest.approx(np.minimum(0, np.minimum(*shares)) * own.base.mean(1))
    assert found[1] == pytest.approx(np.maximum(0, np.maximum(*shares)) * own.base.mean(1))
    backwards = of_groups(_view("grpo-seed2"), "kind")
    assert backwards is not None
    turned = 1 / (1 + shares[0]) - 1
    base = data.breakdown(*_view("grpo-seed2").keys, "kind").base.mean(1)
    assert (backwards[0] <= np.minimum(0, turned) * base + 1e-9).all()


def test_up_to_four_pairs_stand_beside_each_other(full: Path) -> None:
    app = open_app("compare", beside=["ppo", "smollm2-grpo"])
    assert not app.exception
    assert "Not shown: SmolLM2 GRPO has other questions" in text_of(app)
    ticks = _forest(app)["layout"]["yaxis"]["ticktext"]
    assert [tick for tick in ticks if tick.startswith("<b>")] == ["<b>GRPO</b>", "<b>PPO</b>"]
    next(button for button in app.button if button.label == "PPO, DPO and More SFT").click().run()
    assert app.multiselect(key="beside").value == ["ppo", "dpo", "sft-more"]
    ticks = _forest(app)["layout"]["yaxis"]["ticktext"]
    assert sum(tick.startswith("<b>") for tick in ticks) == 4


def test_the_circuits_of_pairs_stand_on_one_scale(full: Path) -> None:
    app = open_app("circuits", beside=["ppo", "dpo", "sft-more"])
    assert not app.exception
    figures = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    titles = [figure["layout"].get("annotations", [{}])[0].get("text") for figure in figures]
    assert titles[-4:] == ["GRPO", "PPO", "DPO", "More SFT"]
    widest = [
        max(trace["line"]["width"] for trace in figure["data"] if "line" in trace and not trace["showlegend"])
        for figure in figures[-4:]
    ]
    assert widest[0] == 5.0, "GRPO changed edges most"
    assert widest[3] < widest[0]
