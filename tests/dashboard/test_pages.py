"""Every page run by AppTest, without a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data, service
from probing.rollouts import Selection
from tests.conftest import ROOT

PAGES = ("compare", "circuits", "distributions", "intensity", "methods")


def _use(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PROBING_STORE", str(path))
    service.store.cache_clear()
    for cached in (data.comparisons, data.jobs, data.pair_scores, data.compared, data.edge_table):
        cached.clear()
    yield path
    service.store().close()
    service.store.cache_clear()


@pytest.fixture
def full(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from _use(Path(shutil.copy(computed, tmp_path / "store.duckdb")), monkeypatch)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from _use(tmp_path / "store.duckdb", monkeypatch)


def _open(page: str, **state: object) -> AppTest:
    app = AppTest.from_file(str(ROOT / "dashboard" / "shell.py"), default_timeout=60)
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    if page != "compare":
        app.switch_page(f"../pages/{page}.py").run()
    return app


def _text(app: AppTest) -> str:
    shown = [*app.title, *app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.metric, *app.subheader]
    return "\n".join(str(getattr(element, "value", "")) for element in shown)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_shows_its_pair(full: Path, page: str) -> None:
    app = _open(page, pair="ppo", alpha=0.5)
    assert not app.exception
    assert "base → ppo" in app.title[0].value
    assert "first 8 answer tokens (α = 0.5)" in _text(app)
    assert bool(app.get("plotly_chart")) == (page != "methods")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_an_empty_state_with_what_to_do_next(empty: Path, page: str) -> None:
    app = _open(page)
    assert not app.exception
    assert "has not been computed yet" in app.info[0].value
    assert [button.label for button in app.button] == ["Compute it"]
    assert not app.get("plotly_chart")


def test_the_empty_states_button_queues_the_job(empty: Path) -> None:
    app = _open("compare", cohort="tuned_only")
    app.button[0].click().run()
    assert not app.exception
    (job,) = service.store().jobs().to_dict("records")
    assert '"cohort": "tuned_only"' in job["spec"]
    assert "Being computed" in app.info[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_comparison_that_cannot_be_made_says_why(full: Path, page: str) -> None:
    from probing.jobs.plan import Spec
    from probing.jobs.worker import follow

    spec = Spec("grpo", "addition", (0.3,), Selection(cohort="both_wrong"))
    follow(service.store(), service.store().submit(spec.as_json()), lambda stage, done, total: None)
    app = _open(page, cohort="both_wrong")
    assert not app.exception
    assert "No question is both wrong" in app.info[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_failed_job_is_shown_as_a_message_with_a_way_out(empty: Path, page: str) -> None:
    from probing.jobs.plan import Spec

    job = service.store().submit(Spec("grpo", "addition").as_json())
    service.store().close_job(job, "failed", "The device ran out of memory.")
    app = _open(page)
    assert not app.exception
    assert "The device ran out of memory." in app.error[0].value
    assert app.button[0].label == "Try again"


@pytest.mark.parametrize("page", PAGES)
def test_a_store_that_became_unreadable_is_a_message(full: Path, page: str) -> None:
    service.store()._owner.database._connection.execute("DROP TABLE samples CASCADE")  # type: ignore[attr-defined]
    app = _open(page)
    assert not app.exception
    assert "could not be read" in app.error[0].value


def test_the_compare_pages_numbers_are_the_metrics(full: Path) -> None:
    from dashboard.theme import number
    from probing.metrics import compare

    table = service.store().comparisons()
    row = table[(table["pair"] == "dpo") & (table["alpha"] == 0.3)].iloc[0]
    expected = compare(service.store().scores(row["base_run"]), service.store().scores(row["tuned_run"]))
    app = _open("compare", pair="dpo")
    shown = {metric.label: metric.value for metric in app.metric}
    for label, name in (
        ("Activation intensity (nats)", "activation_intensity"),
        ("Information complexity (nats)", "information_complexity"),
        ("Distribution kurtosis", "distribution_kurtosis"),
    ):
        assert shown[label] == f"{number(expected[name].base)} → {number(expected[name].tuned)}"
    (all_pairs,) = [d.value for d in app.dataframe if "Pattern" in d.value]
    assert len(all_pairs) == 5
    assert (all_pairs["Pattern"] != "not computed").all()


def test_a_picked_edge_shows_its_values_and_survives_a_change_of_the_figure(full: Path) -> None:
    app = _open("circuits", picked="a5->logits")
    assert "**a5->logits**" in _text(app)
    app.slider(key="edges").set_value(20).run()
    assert not app.exception
    assert "**a5->logits**" in _text(app)


def test_a_picked_node_lists_its_edges(full: Path) -> None:
    app = _open("circuits", picked="m3")
    inputs, outputs = (d.value for d in app.dataframe)
    assert all(edge.endswith("->m3") for edge in inputs["edge"])
    assert all(edge.startswith("m3->") for edge in outputs["edge"])


def test_comparisons_under_other_rules_stand_beside_the_papers(full: Path) -> None:
    from probing.jobs.plan import Spec
    from probing.jobs.worker import follow

    spec = Spec("grpo", "addition", (0.3,), Selection(n=12, seed=7))
    follow(service.store(), service.store().submit(spec.as_json()), lambda stage, done, total: None)
    app = _open("compare")
    assert "100 questions" in _text(app)
    app.selectbox(key="variant").select("questions 12, seed 7").run()
    assert not app.exception
    assert "12 questions" in _text(app)


def test_the_methods_page_says_with_what_the_numbers_were_made(full: Path) -> None:
    app = _open("methods", alpha=0.5)
    parameters, made = (d.value for d in app.dataframe)
    in_force = dict(zip(parameters["Parameter"], parameters["In force"], strict=True))
    assert in_force["cut"] == "α = 0.5, the first 8 tokens of an answer"
    assert in_force["questions drawn"].startswith("100 of ")
    by_name = made.set_index("")
    assert by_name.loc["device", "base"] == "cpu"
    assert by_name.loc["identity", "base"] != by_name.loc["identity", "tuned"]
    assert len(app.expander) == 8


def test_more_bins_change_the_complexity_and_not_the_kurtosis(full: Path) -> None:
    app = _open("distributions")
    before = {m.label: m.value for m in app.metric}
    app.slider(key="bins").set_value(400).run()
    after = {m.label: m.value for m in app.metric}
    assert before["Information complexity (nats)"] != after["Information complexity (nats)"]
    assert before["Distribution kurtosis"] == after["Distribution kurtosis"]


def test_every_metric_has_a_histogram(full: Path) -> None:
    app = _open("distributions")
    for label in app.selectbox(key="metric").options:
        app.selectbox(key="metric").select(label).run()
        assert not app.exception, label
