"""The page Questions, run by AppTest."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dashboard import service, transcript
from dashboard.view import current
from probing.jobs import plan
from probing.jobs.plan import SIDES
from probing.jobs.progress import silent
from probing.jobs.worker import follow
from tests.dashboard.apps import open_app, text_of
from tests.dashboard.test_pages import PAGES


def test_questions_can_be_searched_filtered_and_opened(full: Path) -> None:
    app = open_app("questions")
    assert len(app.dataframe[0].value) == 100
    app.text_input(key="search").set_value("add-003").run()
    few = app.dataframe[0].value
    assert 0 < len(few) < 10
    assert app.subheader[0].value == "Question add-0007", "what is open stays open"
    app.text_input(key="search").set_value("no question has this").run()
    assert not app.exception
    assert "No question is like that" in app.info[0].value
    assert not app.dataframe, "what is not found is not shown"
    assert not app.subheader
    assert not app.get("plotly_chart")
    app.text_input(key="search").set_value("").run()
    assert app.subheader[0].value == "Question add-0007", "what was open is open again"
    app.toggle(key="scored").set_value(False).run()
    assert len(app.dataframe[0].value) == 500
    app.selectbox(key="graded").select("only the tuned correct").run()
    wrong = app.dataframe[0].value
    assert wrong["base"].str.startswith("✗").all()
    app.selectbox(key="q").select(wrong["id"].iloc[0]).run()
    assert "belongs to another cohort" in text_of(app)
    assert not app.get("plotly_chart")


def test_token_by_token_is_computed_on_demand_and_adds_up(full: Path) -> None:
    app = open_app("questions")
    next(button for button in app.button if button.label == "Compute token by token").click().run()
    assert not app.exception
    store = service.store()
    job = int(store.queue.jobs()["job_id"].max())
    assert follow(store, job, silent).status == "done"
    app = open_app("questions", element="a5->logits")
    assert not app.exception
    assert "The bars add up" in text_of(app)
    assert len(app.get("plotly_chart")) == 2
    assert "Beyond it stand 4 bars for 5 scored tokens" in text_of(app)
    drawn = json.loads(app.get("plotly_chart")[0].proto.spec)
    (line,) = {shape["x0"] for shape in drawn["layout"]["shapes"]}
    assert [sum(place > line for place in _numbers(bars["x"])) for bars in drawn["data"]] == [4, 4]


def _numbers(coded: dict) -> np.ndarray:
    """What Plotly wrote in base 64."""
    return np.frombuffer(base64.b64decode(coded["bdata"]), coded["dtype"])


@pytest.mark.parametrize(
    ("cut", "lengths", "said"),
    [
        (5, (17, 17), "4 bars for 5 scored tokens,"),
        (8, (6, 17), "5 and 7 bars for 6 and 8 scored tokens,"),
        (2, (9, 9), "1 bar for 2 scored tokens,"),
        (1, (9, 9), "0 bars for 1 scored token,"),
    ],
)
def test_a_token_is_predicted_one_position_before_its_own(
    full: Path, cut: int, lengths: tuple[int, int], said: str
) -> None:
    view = current()
    view = replace(view, row=replace(view.comparison, cut=cut))
    row = {f"{side}_length": length for side, length in zip(SIDES, lengths, strict=True)}
    assert said in transcript.beyond_the_prompt(view, row)


def test_differences_are_written_as_all_numbers_are_and_sorted_as_numbers(full: Path) -> None:
    shown = open_app("questions").dataframe[0]
    written = pa.ipc.open_stream(shown.proto.arrow_data.styler.display_values).read_all().to_pandas()
    assert written.shape == shown.value.shape
    number = re.compile(r"0|[+−]\d+(\.\d+)?(×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")
    assert all(map(number.fullmatch, written.iloc[:, -3:].to_numpy().ravel()))
    assert shown.value.dtypes.iloc[-3:].tolist() == [np.float64] * 3


def test_a_question_leads_to_its_strongest_edge_on_circuits(full: Path) -> None:
    app = open_app("questions", q="add-0026")
    (link,) = [link.proto for link in app.get("page_link") if "strongest" in link.proto.label]
    both = [service.store().runs.scores(key) for key in current().keys]
    strength = np.maximum(*(abs(scores.edges[scores.ids.index("add-0026")]) for scores in both))
    edge = both[0].graph.edges[int(strength.argmax())]
    assert f"`{edge}`" in link.label
    assert link.query_string == f"pick={edge.replace('>', '%3E')}"
    assert link.page == "circuits"


@pytest.mark.parametrize("page", PAGES)
def test_a_cohort_that_is_known_to_be_empty_says_so_and_offers_no_computing(full: Path, page: str) -> None:
    app = open_app(page, cohort="both_wrong")
    assert not app.exception
    assert re.fullmatch(r"No question is both wrong: \d+ both correct.*\. Choose another cohort\.", app.info[0].value)
    assert not app.button


def test_of_a_cohort_that_other_code_sorted_nothing_is_known(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ANSWERS_VERSION", plan.ANSWERS_VERSION + 1)
    app = open_app("compare", cohort="both_wrong")
    assert [button.label for button in app.button] == ["Compute it"]
