"""Summaries that an earlier version made are shown, said to be old, and made again from the scores that are kept."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import streamlit as st

from dashboard import service
from probing.cuts import Cut
from probing.jobs.bench import Bench
from probing.jobs.crew import Alone
from probing.jobs.plan import Spec, is_outdated, make_request, spec_of
from probing.jobs.worker import Worker, follow
from probing.pairs import load_registry
from probing.store import open_store
from probing.store.database import Database
from probing.store.records import ComparisonRow
from tests.dashboard.apps import open_app, text_of

SPEC = Spec("grpo", "addition", (Cut(0.3),))

WRONG = 7.0
"""What the earlier version made of every metric of the base."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one comparison, whose summary the first version made."""
    path = tmp_path_factory.mktemp("old") / "store.duckdb"
    store = open_store(path)
    assert follow(store, store.queue.submit(SPEC.as_json()), lambda *_: None).status == "done"
    store.close()
    aged = f"version = NULL, relative_low = NULL, relative_high = NULL, base = {WRONG}"
    with duckdb.connect(path) as connection:
        connection.execute(f"UPDATE metric_summaries SET {aged}")
        connection.execute(f"UPDATE question_summaries SET base = {WRONG}")
        untested = "p = NULL, q = NULL, effect_p = NULL, effect_q = NULL"
        connection.execute(f"UPDATE edge_values SET base_strength = {WRONG}, {untested}")
    return path


@pytest.fixture
def here(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """This process uses a copy of it."""
    monkeypatch.setenv("PROBING_STORE", str(shutil.copy(old, tmp_path / "store.duckdb")))
    service.store.cache_clear()
    st.cache_resource.clear()
    yield service.store()
    service.store().close()
    service.store.cache_clear()


def _row(store: Database) -> dict:
    (row,) = store.comparisons.table().to_dict("records")
    return row


def test_an_old_summary_is_made_again_without_scoring(here: Database) -> None:
    request = make_request(SPEC, load_registry())
    (asked,) = map(request.request_key, SPEC.selections())
    row = _row(here)
    assert row["ready"]
    assert is_outdated(ComparisonRow.of(row))
    assert not here.summaries.saved(row["comparison_key"], "tuned")
    assert not here.comparisons.settled(asked)
    runs = here.runs.table()
    here.queue.submit(spec_of(ComparisonRow.of(row)).as_json())
    bench = Bench()
    assert Worker(here, crew=Alone(bench)).work()
    assert not bench.models.provenance(), "no model was needed"
    pd.testing.assert_frame_equal(here.runs.table(), runs)
    row = _row(here)
    assert row["ready"]
    assert not is_outdated(ComparisonRow.of(row))
    assert here.comparisons.settled(asked)
    summary = here.summaries.metrics()
    assert len(summary) == 8, "in place of the old one"
    assert not (summary["base"] == WRONG).any()
    assert summary["relative_high"].notna().all()
    assert not (here.summaries.questions(row["comparison_key"])["base"] == WRONG).any()
    edges = here.summaries.edges(row["comparison_key"])
    assert len(edges) == 163
    assert not (edges["base_strength"] == WRONG).any()
    assert edges["q"].notna().all()


def test_pages_show_an_old_summary_say_so_and_offer_to_make_it_again(here: Database) -> None:
    app = open_app("compare", pair="grpo")
    assert not app.exception
    assert "Computed by an earlier version of this program" in text_of(app)
    shown = next(metric.value for metric in app.metric if metric.label == "Loss (nats)")
    assert shown.startswith("7.00 → ")
    assert "no interval" in text_of(app), "which it did not resample"
    circuits = open_app("circuits", pair="grpo", pick="m0->a1<k>")
    assert not circuits.exception
    assert "not tested: summarised by an earlier version" in text_of(circuits)
    runs = open_app("runs", pair="grpo")
    (again,) = [button for button in runs.button if button.label == "Compute it again"]
    again.click().run()
    assert not runs.exception
    (job,) = [job for job in here.queue.jobs().to_dict("records") if job["status"] == "queued"]
    assert json.loads(job["spec"])["pair"] == "grpo"
    assert Worker(here).work(job["job_id"])
    app.run()
    assert not app.exception
    assert "earlier version" not in text_of(app)
    shown = next(metric.value for metric in app.metric if metric.label == "Loss (nats)")
    assert not shown.startswith("7.00 → "), "the page forgets what it had"
    assert "Compute it again" not in [button.label for button in open_app("runs", pair="grpo").button]


def test_a_server_queues_shipped_pairs_whose_summaries_are_old(here: Database) -> None:
    def queued() -> list[int]:
        service.queue_shipped()
        jobs = [
            job | json.loads(job["spec"]) for job in here.queue.jobs().to_dict("records") if job["status"] == "queued"
        ]
        shipped = ("grpo", [0.3], False)
        return [job["job_id"] for job in jobs if (job["pair"], job["alphas"], job["timeline"]) == shipped]

    (job,) = queued()
    assert Worker(here).work(job)
    assert not queued()
