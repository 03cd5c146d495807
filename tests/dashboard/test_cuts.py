"""Cuts on the pages: given in tokens, those that score the same tokens as one, and two of one pair side by side."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import service
from probing.cuts import Cut
from probing.jobs.plan import Spec
from probing.jobs.worker import follow
from probing.store.records import ComparisonRow
from tests.dashboard.apps import open_app

FIVE = Cut(5, "tokens")
"""What the default cut comes to, on the shipped questions."""


def _open(page: str, **state: object) -> AppTest:
    app = open_app(page, **state)
    assert not app.exception
    return app


def _texts(app: AppTest) -> str:
    return "\n".join(str(element.value) for element in (*app.title, *app.markdown, *app.caption, *app.info))


def _specs(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def _ask(cut: Cut) -> None:
    store = service.store()
    assert (
        follow(store, store.queue.submit(Spec("grpo", "addition", (cut,)).as_json()), lambda *_: None).status == "done"
    )


@pytest.fixture
def asked(full: Path) -> Path:
    """The computed store, in which the default cut has been asked for in tokens too."""
    _ask(FIVE)
    return full


def test_a_cut_in_tokens_is_listed_and_is_the_very_same_row_as_the_share_that_comes_to_it(asked: Path) -> None:
    rows = [ComparisonRow.of(row) for row in service.store().comparisons.table().to_dict("records")]
    (tokens,) = [row for row in rows if row.at == FIVE]
    share = next(row for row in rows if (row.pair, row.at) == ("grpo", Cut(0.3)) and row.base_run == tokens.base_run)
    assert (tokens.tuned_run, tokens.cut) == (share.tuned_run, 5), "nothing was scored again"
    app = _open("compare", alpha="5 tokens")
    assert app.segmented_control(key="alpha").options == ["0.03", "0.1", "0.3", "0.5", "5 tokens"]
    assert "first 5 answer tokens" in _texts(app)
    (table,) = [d.value for d in app.dataframe if "Pattern" in d.value]
    mine = table[table["Pair"].str.contains("pair=GRPO&")]
    assert list(mine["Cut"]) == ["0.03, 0.1: first token", "0.3: first 5 tokens", "0.5: first 8 tokens"]
    assert "alpha=5+tokens" in mine["Pair"].iloc[1], "the row of the cut in view leads to the cut in view"
    app = _open("intensity", section="Against the cut")
    (figure,) = _specs(app)
    assert figure["layout"]["xaxis"]["ticktext"] == [
        "0.03, 0.1:<br>first token", "0.3:<br>first 5 tokens", "0.5:<br>first 8 tokens",
    ]  # fmt: skip
    app = _open("timeline", alpha="5 tokens")
    assert "Edges that appear and vanish" in "\n".join(header.value for header in app.subheader), "that of the share"


def test_a_cut_is_asked_for_in_tokens_in_the_sidebar_and_offered_to_be_computed(full: Path) -> None:
    app = _open("compare")
    app.number_input(key="first_tokens").set_value(4).run()
    assert not app.exception
    assert app.session_state["alpha"] == "4 tokens"
    assert "This comparison has not been computed yet." in _texts(app)
    next(button for button in app.button if button.label == "Compute it").click().run()
    newest = service.store().queue.jobs().iloc[0]
    assert Spec.from_json(json.loads(newest["spec"])).cuts == (Cut(4, "tokens"),)


def test_another_cut_of_the_pair_stands_beside_it(full: Path) -> None:
    app = _open("compare", beside=["ppo", "α 0.5"])
    forest = next(spec for spec in _specs(app) if "PPO, α = 0.3" in str(spec))
    assert all(title in str(forest) for title in ("GRPO, α = 0.3", "GRPO, α = 0.5"))
    app = _open("circuits", beside=["α 0.5", "α 0.3"])
    titles = [a["text"] for spec in _specs(app) for a in spec["layout"].get("annotations", [])]
    assert [title for title in titles if title.startswith("GRPO")] == ["GRPO, α = 0.3", "GRPO, α = 0.5"]
    app = _open("circuits", alpha=0.1, beside=["α 0.03"])
    assert "Not shown: α = 0.03 scores the same tokens as the cut in view." in _texts(app)
