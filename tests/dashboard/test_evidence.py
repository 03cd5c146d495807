"""The page Evidence, without a browser, on real effects that were computed."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, spearmanr
from streamlit.testing.v1 import AppTest

from dashboard import service
from probing import cli
from probing.jobs.tasks import Check, Curve
from probing.method import Method
from probing.rollouts import DEFAULT_CUT
from probing.store.records import ComparisonRow
from tests.dashboard.apps import open_app

MARGIN = "norms taken exactly, margin as loss"
EXACT = "each edge really removed"
MARGIN_METHOD = {"path": "norm-exact", "loss": "margin"}


def _open(section: str, **state: object) -> AppTest:
    return open_app("evidence", **({"pair": "grpo", "evidence": section} | state))


def _text(app: AppTest) -> str:
    return "\n".join(str(element.value) for element in [*app.markdown, *app.caption, *app.info, *app.subheader])


def _figure(app: AppTest) -> dict:
    (chart,) = app.get("plotly_chart")
    return json.loads(chart.proto.spec)


def _numbers(coded: dict) -> np.ndarray:
    """What Plotly wrote in base 64."""
    return np.frombuffer(base64.b64decode(coded["bdata"]), coded["dtype"])


def _row(**method: str) -> ComparisonRow:
    """The newest comparison of GRPO at the default cut by a method."""
    for row in service.store().comparisons.table().to_dict("records"):
        found = ComparisonRow.of(row)
        asked = ("grpo", DEFAULT_CUT, Method(**method))  # type: ignore[arg-type]
        if (found.pair, found.at, Method.from_json(found.settings["method"])) == asked:
            return found
    raise AssertionError(method)


def _scores(row: ComparisonRow, side: str) -> np.ndarray:
    return service.store().runs.scores(getattr(row, f"{side}_run")).edges


def test_the_audit_is_what_scores_and_effects_say(full: Path) -> None:
    app = _open("Audit")
    assert not app.exception
    agreement, worst = (frame.value for frame in app.dataframe)
    estimates, effects = _row(), _row(path="exact")
    for side in ("base", "tuned"):
        said, happened = (np.abs(_scores(row, side)).mean(0) for row in (estimates, effects))
        strongest = np.argsort(-said)[:50]
        for edges, of in ((strongest, "50 strongest"), (np.setdiff1d(np.arange(163), strongest), "113 random")):
            (row,) = agreement[(agreement["Model"] == side) & (agreement["Edges"] == of)].to_dict("records")
            assert float(row["Rank"].split()[0]) == pytest.approx(spearmanr(said[edges], happened[edges])[0], abs=0.006)
        means = [_scores(row, side).mean(0)[strongest] for row in (estimates, effects)]
        right = (np.sign(means[0]) == np.sign(means[1])).sum()
        (row,) = agreement[(agreement["Model"] == side) & (agreement["Edges"] == "50 strongest")].to_dict("records")
        assert row["Signs"].startswith(f"{right / 50:.0%}")
    assert agreement["Questions"].eq(100).all()
    assert set(worst["Verdict"]) <= {"opposite", "overestimated"}
    assert worst.iloc[0]["Edge"] == "/circuits?pair=GRPO&questions=Addition&cohort=both+correct&alpha=0.3&pick=" + (
        "a5-%3Elogits"
    )
    figure = _figure(app)
    drawn = [trace for trace in figure["data"] if trace.get("mode") == "markers"]
    assert sum(len(trace["text"]) for trace in drawn) == 2 * 163
    assert {trace["name"] for trace in drawn} <= {"confirmed", "opposite", "overestimated", "open"}


def test_of_edges_really_removed_it_says_that_they_are_reality(full: Path) -> None:
    app = _open("Audit", variant=EXACT)
    assert not app.exception
    assert "these scores are what happens" in app.info[0].value
    assert not app.get("plotly_chart")


@pytest.mark.parametrize(
    ("section", "tasks"),
    [("Audit", (Check("base"), Check("tuned"))), ("Circuit", (Curve("base"), Curve("tuned")))],
)
def test_what_was_not_measured_is_offered(full: Path, section: str, tasks: tuple) -> None:
    app = _open(section, alpha=0.5)
    assert not app.exception
    assert not app.get("plotly_chart")
    if section == "Audit":
        assert "30,200 forward passes at most" in app.info[0].value
    (button,) = app.button
    button.click().run()
    assert not app.exception
    spec = json.loads(service.store().queue.jobs()["spec"].iloc[0])
    assert (spec["pair"], spec["alphas"], spec["also"]) == ("grpo", [0.5], [task.as_json() for task in tasks])
    assert not [button for button in app.button if button.label.startswith(("Remove", "Run c"))], "it is in the queue"


@pytest.fixture
def read_only(full: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    service.store().close()
    service.store.cache_clear()
    monkeypatch.setenv("PROBING_MODE", "hosted")
    yield


def test_a_server_on_which_nobody_may_compute_shows_what_was_kept(read_only: None) -> None:
    app = _open("Audit")
    assert not app.exception
    assert app.get("plotly_chart")
    app = _open("Audit", alpha=0.5)
    assert not app.exception
    assert not app.button
    assert "has been really removed by these rules yet" in app.info[0].value


def test_the_methods_table_says_which_estimate_ranks_best(full: Path) -> None:
    app = _open("Methods")
    assert not app.exception
    (table,) = (frame.value for frame in app.dataframe)
    assert set(table["Method"]) == {MARGIN, "the paper's estimate"}
    rank = {
        name: np.mean(
            [
                spearmanr(*(np.abs(_scores(row, side)).mean(0) for row in (_row(**said), _row(**happened))))[0]
                for side in ("base", "tuned")
            ]
        )
        for name, said, happened in (
            (MARGIN, {"path": "norm-exact", "loss": "margin"}, {"path": "exact", "loss": "margin"}),
            ("the paper's estimate", {}, {"path": "exact"}),
        )
    }
    best = max(rank, key=lambda name: rank[name])
    assert set(table.loc[table[""] == "★", "Method"]) == {best}
    shown = (
        table[table["Edges"] == "all"]
        .groupby("Method")["Rank"]
        .apply(lambda cells: np.mean([float(cell.split()[0]) for cell in cells]))
    )
    for name, value in rank.items():
        assert shown[name] == pytest.approx(value, abs=0.006)
    assert f"**{best[0].upper()}{best[1:]}** ranks edges most as reality does here" in _text(app)


def test_circuits_are_drawn_in_both_models_and_a_click_opens_one(full: Path) -> None:
    app = _open("Circuit", variant=MARGIN)
    assert not app.exception
    figure = _figure(app)
    lines = [trace for trace in figure["data"] if trace.get("mode") == "lines+markers"]
    assert [trace["name"] for trace in lines] == [f"{s}'s circuit" for s in ("base", "tuned", "tuned", "base")]
    table, row = service.store().evaluations.table(), _row(path="norm-exact", loss="margin")
    ours = (table["comparison_key"] == row.comparison_key) & (table["side"] == "tuned") & (table["kind"] == "circuit")
    (key,) = table.loc[ours & table["settings"].str.contains(f'"version": {Curve.version}'), "evaluation_key"]
    found = service.store().evaluations.values(key)
    margin = found.values["margin"].mean(1)
    f = (margin - margin[0]) / (margin[-1] - margin[0])
    sizes = [int(unit.split(":")[-1]) for unit in found.units]
    own = {k: v for k, v, unit in zip(sizes, f, found.units, strict=True) if unit.split(":")[0] in ("tuned", "all")}
    drawn = dict(zip(_numbers(lines[2]["x"]).tolist(), _numbers(lines[2]["y"]).tolist(), strict=True))
    assert drawn == pytest.approx({k: v for k, v in own.items() if k}, abs=1e-5)
    enough = min(size for size, kept in own.items() if kept >= 0.8)
    assert f"tuned needs **{enough} of 163 edges** of its own circuits" in _text(app)
    assert "CPR over log k" in app.dataframe[0].value
    app.session_state["chart-kept"] = {"selection": {"points": [{"customdata": ["tuned:3"]}]}}
    app.run()
    assert not app.exception
    assert "Circuits: base → grpo" in app.title[0].value
    assert app.slider(key="edges").value == 10, "the fewest that Circuits shows"
    assert app.button_group(key="panels").value == "tuned"


def test_stability_compares_draws_models_seeds_and_methods(full: Path) -> None:
    app = _open("Stability")
    assert not app.exception
    figure = _figure(app)
    labels = figure["layout"]["yaxis"]["ticktext"]
    assert labels[::-1][:3] == ["base, two draws of questions", "tuned, two draws of questions", "base and tuned"]
    assert any("another seed" in label for label in labels)
    assert f"tuned: {MARGIN}" in labels
    before, after = (np.abs(_scores(_row(), side)).mean(0) for side in ("base", "tuned"))
    for n in (20, 81):
        app.select_slider(key="top-of-163").set_value(n).run()
        assert not app.exception
        first, second = (set(np.argsort(-of)[:n].tolist()) for of in (before, after))
        whole = pd.Series(_numbers(_figure(app)["data"][2]["x"]), index=labels)
        assert whole["base and tuned"] == pytest.approx(len(first & second) / len(first | second))
    assert f"the {n} strongest of either" in _text(app)


def test_the_command_prints_the_stored_numbers_of_each_definition(
    full: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.store().close()
    service.store.cache_clear()
    assert cli.main(["evidence", "grpo", "sft-more", "--store", str(full)]) == 0
    printed = capsys.readouterr().out
    tables = [
        [line.split(" | ") for line in part.splitlines() if line.startswith("| ")] for part in printed.split("**")
    ]
    intensity, changed, beside = tables[2], tables[8], tables[10]
    (of_grpo,) = (row for row in intensity if row[0] == "| GRPO")
    for cell, method in zip(of_grpo[1:], ({}, MARGIN_METHOD, {"path": "exact"}), strict=False):
        base, tuned = (np.abs(_scores(_row(**method), side)).mean() for side in ("base", "tuned"))
        assert float(cell.split()[0]) == pytest.approx(tuned / base, abs=0.006)
    (of_control,) = (row for row in intensity if row[0] == "| More SFT")
    assert [cell.strip(" |") for cell in of_control[2:]] == ["–"] * 3, "nobody computed them"
    by_hand = _changed_by_hand()
    assert next(row for row in changed if row[0] == "| GRPO")[1] == f"{by_hand} of 163"
    scores, effects = (_scores(_row(**method), "tuned") for method in ({}, {"path": "exact"}))
    rank = spearmanr(np.abs(scores).mean(0), np.abs(effects).mean(0))[0]
    (row,) = (row for row in beside if row[:4] == ["| GRPO", "tuned", "the paper's", "163 all"])
    assert float(row[5].split()[0]) == pytest.approx(rank, abs=0.006)
    assert cli.main(["evidence", "grpo", "--alpha", "0.7", "--store", str(full)]) == 2
    assert "no comparison of grpo at α 0.7" in capsys.readouterr().err


def _changed_by_hand() -> int:
    """Edges of GRPO whose strength changed, by SciPy's rule on the stored p-values."""
    p = service.store().summaries.edges(_row().comparison_key)["p"].to_numpy()
    return int((false_discovery_control(p) <= 0.05).sum())
