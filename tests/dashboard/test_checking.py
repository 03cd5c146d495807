"""What pages say of estimates beside what really happens, and what they find out when they are asked."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import service
from probing import evidence
from probing.cuts import Cut
from probing.figures import everywhere, wiring
from probing.figures.checks import CHECKS, CONTRADICTED
from probing.figures.panels import PANELS
from probing.figures.theme import COLOURS, number
from probing.figures.wiring import Pick, Scale
from probing.graph import graph_of
from probing.jobs.plan import SIDES, Spec, make_request
from probing.jobs.shipped import is_done
from probing.jobs.tasks import Curve
from probing.jobs.worker import Worker
from probing.metrics import Definition
from probing.pairs import load_registry
from tests.computed import TRANSPLANTED
from tests.dashboard.apps import edges_shown, open_app, text_of

EDGE = "input->m0"


def _row(pair: str = "grpo", alpha: float = 0.3, method: str = "eap", loss: str = "nll") -> dict:
    """A comparison of the store."""
    wanted = {"method": method} | ({} if loss == "nll" else {"loss": loss})
    for row in service.store().comparisons.table().to_dict("records"):
        made = json.loads(row["settings"])["method"]
        is_it = wanted.items() <= made.items() and ("loss" in made) == ("loss" in wanted)
        if is_it and (row["pair"], row["alpha"]) == (pair, alpha):
            return row
    raise KeyError(pair, alpha, method, loss)


def _checks(app: AppTest) -> list[list[str]]:
    """The rows of the inspector's table, each with its name, base and tuned."""
    (text,) = [m.value for m in app.markdown if m.value.startswith("| | base | tuned |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def _labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def _spec(element: Any) -> dict[str, Any]:
    """What a chart draws."""
    return json.loads(element.proto.spec)


def _work() -> None:
    assert Worker(service.store()).work()


def test_circuits_say_of_every_estimate_that_is_shown_what_reality_says(full: Path) -> None:
    app = open_app("circuits", panels="base")
    assert not app.exception
    (said,) = [m.value for m in app.markdown if m.value.startswith("Estimates held against reality")]
    row, store = _row(), service.store()
    for side in SIDES:
        scores = store.runs.scores(row[f"{side}_run"])
        table = evidence.checked(scores, evidence.removed(store, row[f"{side}_run"], "nll"), Definition(resamples=2000))
        strongest = np.argsort(-np.abs(store.runs.scores(row["base_run"]).edges).mean(0))[: edges_shown(app)]
        counts = Counter(table["verdict"].iloc[strongest])
        assert counts["opposite"] > 0, "or the test shows nothing"
        words = f"{side} " + " ".join(f":{CHECKS[v].badge}-badge[{counts[v]} {v}]" for v in CHECKS if counts[v])
        assert words in said
    assert "A cross marks" in said


def test_an_edge_that_was_removed_stands_beside_its_estimate_for_both_losses(full: Path) -> None:
    app = open_app("circuits", pick=EDGE)
    assert not app.exception
    rows = {name: cells for name, *cells in _checks(app)}
    store, row = service.store(), _row()
    estimates = [store.runs.scores(row[f"{side}_run"]) for side in SIDES]
    place = estimates[0].graph.number(EDGE)
    assert [cell.split(" (")[0] for cell in rows["estimate"]] == [
        number(scores.edges[:, place].mean(dtype=float), signed=True) for scores in estimates
    ]
    for words, loss in (("likelihood", "nll"), ("margin", "margin")):
        exact = _row(method="exact", loss=loss)
        real = [store.runs.scores(exact[f"{side}_run"]).edges[:, place] for side in SIDES]
        assert [cell.split(" (")[0] for cell in rows[f"really, {words}"]] == [
            number(values.mean(dtype=float), signed=True) for values in real
        ]
    assert rows[""] == [":green-badge[confirmed]"] * 2
    assert "Check this edge" not in _labels(app), "it is known"


def test_an_edge_is_checked_on_demand_before_other_jobs_and_so_are_its_heads(full: Path) -> None:
    store = service.store()
    other = store.queue.submit(Spec("ppo", "addition", (Cut(0.3),)).as_json())
    app = open_app("circuits", alpha=0.5, pick="m0->a2<v>")
    assert _checks(app)[1:3] == [["really, likelihood", "–", "–"], ["", *[":gray-badge[not checked]"] * 2]]
    assert {"Check this edge", "Check its heads"} <= set(_labels(app))
    next(button for button in app.button if button.label == "Check this edge").click().run()
    assert not app.exception
    assert "Check this edge" not in _labels(app), "it is waited for"
    job = store.queue.jobs().iloc[0]
    assert job["urgent"]
    _work()
    assert (store.queue.job(int(job["job_id"])).status, store.queue.job(other).status) == ("done", "queued")
    app.run()
    assert not app.exception
    name, base, tuned = _checks(app)[1]
    assert name == "really, likelihood"
    assert "(" in base and "(" in tuned
    assert "not checked" not in str(_checks(app))
    assert "1 " in next(m.value for m in app.markdown if m.value.startswith("Estimates held against reality"))
    next(button for button in app.button if button.label == "Check its heads").click().run()
    _work()
    app.run()
    assert not app.exception
    assert "Check its heads" not in _labels(app)
    tables = [table.value for table in app.dataframe if "Really" in table.value]
    assert len(tables) == 2
    assert all(edge.startswith("m0->a2.") and edge.endswith("<v>") for table in tables for edge in table["Edge"])
    assert set(tables[0]["Verdict"]) <= set(CHECKS)
    app.segmented_control(key="values").set_value("really removed").run()
    assert not app.exception
    assert "Of 1 of the 163 edges it is known in both models" in text_of(app)
    assert edges_shown(app) == 1
    assert "edges" not in [slider.key for slider in app.slider], "there is nothing to choose"


def test_where_nobody_may_compute_what_was_kept_is_shown_and_that_is_said(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    service.store.cache_clear()
    known, unknown = open_app("circuits", pick="input->logits"), open_app("circuits", alpha=0.5, pick="input->logits")
    assert not known.exception
    assert not unknown.exception
    assert _checks(known)[1][1] != "–"
    assert _checks(unknown)[1][1] == "–"
    said = "This server shows what has been computed; nothing new is computed here."
    assert said not in text_of(known)
    assert said in text_of(unknown)
    assert not {"Check this edge", "Check its heads"} & set(_labels(unknown))


def test_circuits_can_be_drawn_of_what_really_happens(full: Path) -> None:
    app = open_app("circuits", values="really removed", edges=10)
    assert not app.exception
    assert "sum to zero" not in text_of(app), "real effects do not"
    assert not [m for m in app.markdown if m.value.startswith("Estimates held")], "there are none"
    figure = _spec(app.get("plotly_chart")[0])
    title = figure["layout"]["legend2"]["title"]["text"].replace("<br>", " ")
    assert title == "Width: mean |change of the loss without the edge|"
    drawn = {c[0] for trace in figure["data"] if trace.get("customdata") for c in trace["customdata"]}
    exact = _row(method="exact")
    for side in SIDES:
        scores = service.store().runs.scores(exact[f"{side}_run"])
        strongest = np.argsort(-np.abs(scores.edges).mean(0, dtype=float))[:10]
        assert {scores.graph.edges[edge] for edge in strongest} <= drawn
    of_them = open_app("circuits", variant="each edge really removed", edges=10)
    assert not of_them.exception
    assert not [control for control in of_them.segmented_control if control.key == "values"], "there is nothing else"
    assert edges_shown(of_them) == edges_shown(app)


def test_movers_say_whether_reality_bears_their_estimates_out(full: Path) -> None:
    app = open_app("intensity", section="Top movers")
    assert not app.exception
    (table,) = [table.value for table in app.dataframe if "Base checked" in table.value]
    row, store = _row(), service.store()
    scores = store.runs.scores(row["tuned_run"])
    found = evidence.checked(scores, evidence.removed(store, row["tuned_run"], "nll"), Definition(resamples=2000))
    expected = dict(zip(found["edge"], found["verdict"], strict=True))
    assert list(table["Tuned checked"]) == [
        expected[parse_qs(urlsplit(link).query)["pick"][0]] for link in table["Edge"]
    ]


def test_token_by_token_is_not_offered_where_nobody_knows_it(full: Path) -> None:
    app = open_app("questions", variant="each edge really removed")
    assert not app.exception
    assert "not known token by token" in text_of(app)
    assert "Compute token by token" not in _labels(app)


# -- one edge everywhere -----------------------------------------------------------------------------------------------


def test_an_edge_is_followed_through_every_pair_cut_and_step(full: Path) -> None:
    app = open_app("circuits", pick=EDGE, everywhere=True)
    assert not app.exception
    (table,) = [table.value for table in app.dataframe if "Where" in table.value]
    steps = {name: len(pair.steps) for name, pair in load_registry().pairs.items() if name in ("grpo", "ppo")}
    assert len(table) == 8 * 3 * 2 + sum(steps.values())
    this, least, most = "α 0.3: first 5 tokens", "α 0.03, 0.1: first token", "α 0.5: first 8 tokens"
    assert list(table["Where"].drop_duplicates()) == [this, least, most, f"GRPO, {this}", f"PPO, {this}"]
    for pair, title, alpha, where in (("dpo", "DPO", 0.3, this), ("seed3", "Third seed", 0.03, least)):
        row = _row(pair, alpha)
        summary = service.store().summaries.edges(row["comparison_key"]).iloc[graph_of(6).number(EDGE)]
        mine = table[(table["Where"] == where) & (table["What"] == title)].set_index("Model")
        for side in SIDES:
            assert mine.loc[side, "Strength"].startswith(f"{number(summary[f'{side}_strength'])} (")
            assert mine.loc[side, "Effect"].startswith(f"{number(summary[f'{side}_effect'], signed=True)} (")
    assert "The seed band: between the base and the models trained like it from 2 other seeds." in text_of(app)
    place = graph_of(6).number(EDGE)
    edges = {name: service.store().summaries.edges(_row(name)["comparison_key"]) for name in ("grpo", "seed", "seed3")}
    alike = [
        edges["grpo"]["base_strength"][place],
        *(edges[name]["tuned_strength"][place] for name in ("seed", "seed3")),
    ]
    (figure,) = [spec for spec in map(_spec, app.get("plotly_chart")) if "Third seed" in str(spec)]
    bands = [shape for shape in figure["layout"]["shapes"] if shape["type"] == "rect"]
    assert (bands[0]["x0"], bands[0]["x1"]) == pytest.approx((min(alike), max(alike)))
    last = table[table["Where"] == f"PPO, {this}"].iloc[-1]
    ppo = table[(table["Where"] == this) & (table["What"] == "PPO") & (table["Model"] == "tuned")].iloc[0]
    assert last["Strength"] == ppo["Strength"], "the last step is the model"


def test_a_forest_has_a_line_for_each_row_under_the_heading_of_its_group() -> None:
    rows = pd.DataFrame(
        [
            ("α = 0.3", "One", "base", 1.0, 0.5, 1.5, 2.0, 1.0, 3.0),
            ("α = 0.3", "One", "tuned", 4.0, 3.5, 4.5, np.nan, np.nan, np.nan),
            ("α = 0.3", "Two", "tuned", 2.0, 1.5, 2.5, 5.0, 4.0, 6.0),
            ("One, α = 0.3", "step 5", "tuned", 3.0, 2.5, 3.5, 1.0, 0.0, 2.0),
        ],
        columns=["group", "label", "side", "a", "a_low", "a_high", "b", "b_low", "b_high"],
    )
    figure = everywhere.plot(rows, {"a": "A", "b": "B"}, {"b": (0.5, 2.5)})
    assert list(figure.layout.yaxis.ticktext) == ["<b>α = 0.3</b>", "One", "Two", "<b>One, α = 0.3</b>", "step 5"]
    of = {(trace.name, trace.xaxis): trace for trace in figure.data}
    assert [round(y) for y in of["tuned", "x"].y] == [1, 2, 4]
    assert list(of["tuned", "x"].x) == [4.0, 2.0, 3.0]
    assert list(of["tuned", "x2"].x) == [5.0, 1.0], "what is not known is left out"
    assert list(of["base", "x2"].error_x.array) == [1.0]
    assert of["base", "x"].marker.color == COLOURS["base"]
    (band,) = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert (band.xref, band.x0, band.x1) == ("x2", 0.5, 2.5)
    assert {(s.xref, s.x0) for s in figure.layout.shapes if s.type == "line"} == {("x", 0), ("x2", 0)}


def test_an_estimate_that_reality_speaks_against_is_crossed_and_says_so() -> None:
    graph = graph_of(2)
    edges = ["input->m0", "m0->m1", "m1->logits", "a0->logits"]
    values = dict.fromkeys(("base_strength", "tuned_strength", "difference", "base_effect", "tuned_effect", "q"), 1.0)
    ends = [edge.split("->") for edge in edges]
    table = pd.DataFrame(
        {
            "edge": edges, "writer": [e[0] for e in ends], "reader": [e[1] for e in ends], "node": [e[1] for e in ends],
            "kind": ["mlp", "mlp", "logits", "logits"], **values, "changed": True, "base_rank": 1, "tuned_rank": 1,
            "base_verdict": ["confirmed", "opposite", "open", "not checked"],
            "tuned_verdict": ["overestimated", "confirmed", "open", "not checked"],
        }
    )  # fmt: skip
    found = {panel: list(table["edge"][wiring.contradicted(table, panel)]) for panel in PANELS}
    assert found == {"base": ["m0->m1"], "tuned": ["input->m0"], "difference": ["input->m0", "m0->m1"]}
    figure = wiring.graph({"tuned": table}, graph, Scale.of(table), Pick())
    cross, of_key = [trace for trace in figure.data if trace.marker.symbol == "x-thin"]
    assert of_key.name == "really otherwise than estimated"
    assert cross.marker.line.color == CHECKS["opposite"].colour
    assert len(cross.x) == 1
    (clicked,) = [trace for trace in figure.data if trace.customdata is not None and trace.mode == "markers"]
    assert "estimate confirmed in base, overestimated in tuned" in clicked.hovertext[0]
    bare = table.drop(columns=["base_verdict", "tuned_verdict"])
    assert not wiring.contradicted(bare, "difference").any()
    assert "estimate" not in wiring.hover(bare.iloc[0].to_dict())
    assert set(CONTRADICTED) < set(evidence.VERDICTS) == set(CHECKS)


# -- what a server begins with -----------------------------------------------------------------------------------------


def test_a_server_queues_nothing_that_its_store_has_and_an_evaluation_alone_if_that_is_all_it_lacks(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_START", "evidence")
    monkeypatch.setattr("probing.jobs.shipped.SAMPLES", TRANSPLANTED)

    def queued() -> list[Spec]:
        service.queue_shipped()
        table = service.store().queue.jobs()
        specs = [Spec.from_json(json.loads(text)) for text in table.loc[table["status"] == "queued", "spec"]]
        return [spec for spec in specs if spec.pair == "grpo"]

    assert queued() == []
    store, row = service.store(), _row()
    wanted = Spec("grpo", "addition", (Cut(0.3),), also=(Curve("base"), Curve("tuned")))
    assert is_done(store, make_request(wanted, load_registry()))
    evaluations = store.evaluations.table()
    mine = evaluations[(evaluations["kind"] == "circuit") & (evaluations["comparison_key"] == row["comparison_key"])]
    connection = store._owner.database.file._connection  # type: ignore[attr-defined]
    for key in mine.loc[mine["side"] == "tuned", "evaluation_key"]:
        connection.execute("UPDATE evaluations SET finished = NULL WHERE evaluation_key = ?", [key]).fetchall()
    assert queued() == [wanted]
    assert queued() == [wanted], "once"
