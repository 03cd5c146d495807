"""The Runs page: jobs asked for, watched, cancelled, tried again and looked into."""

import re
import threading
import time
from dataclasses import fields, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from prometheus_client import REGISTRY
from streamlit.testing.v1 import AppTest

from dashboard import roles, service
from dashboard.forecasting import ForecastError, forecaster
from dashboard.runs import describe, log_of, progress
from probing.cuts import Cut
from probing.errors import PairError, StoreError
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Spec
from probing.jobs.tasks import Check, Curve, Transplant
from probing.method import Method
from probing.pairs import load_registry
from probing.rollouts import Criteria
from probing.store.records import JobRow, Subject
from probing.store.spool import MeasurementBatch
from probing.transplant.units import DIRECTIONS, WHATS
from tests.dashboard.apps import open_app
from tests.waiting import until


def _open(**state: object) -> AppTest:
    return open_app("runs", **state)


def _button(app: AppTest, label: str) -> AppTest:
    return next(button for button in app.button if button.label == label).click().run()


def _texts(app: AppTest) -> str:
    return "\n".join(str(element.value) for element in (*app.markdown, *app.caption, *app.info, *app.toast, *app.error))


def test_a_job_is_queued_once_and_cancelled_and_tried_again(empty: Path) -> None:
    app = _open()
    assert not app.exception
    assert "Nothing is queued." in _texts(app)
    app.segmented_control(key="run_alphas").set_value([0.1, 0.5]).run()
    app.number_input[0].set_value(20).run()
    app.selectbox(key="run_granularity").set_value("heads").run()
    app.selectbox(key="run_loss").set_value("margin").run()
    assert "Not as in the paper: heads apart, margin as loss." in _texts(app)
    app = _button(app, "Queue it")
    assert "Job 1 is queued." in _texts(app)
    assert Spec.from_json(service.store().queue.job(1).spec) == Spec(
        "grpo", "addition", (Cut(0.1), Cut(0.5)), Criteria(n=20), method=Method("heads", loss="margin")
    )
    app = _button(app, "Queue it")
    assert "Job 1 does just that already." in _texts(app)
    said = "GRPO · addition · both correct · α 0.1, 0.5 · 20 questions · heads apart · margin as loss"
    assert said in _texts(app)
    app = _button(app, "Cancel")
    assert service.store().queue.job(1).status == "cancelled"
    app = _open()
    assert "**Job 1**, cancelled" in _texts(app)
    _button(app, "Try again")
    assert service.store().queue.job(2).status == "queued"
    assert service.store().queue.job(2).spec == service.store().queue.job(1).spec


def test_a_job_may_be_asked_for_evidence(empty: Path) -> None:
    app = _open()
    for key in ("run_audit", "run_circuits", "run_transplants"):
        app.toggle(key=key).set_value(True).run()
    app.number_input(key="run_audited").set_value(40).run()
    app.number_input(key="run_exchanged").set_value(30).run()
    app.toggle(key="run_activations").set_value(True).run()
    app = _button(app, "Queue it")
    audits = (Check("base", questions=40), Check("tuned", questions=40))
    exchanged = [Transplant(what, way, 30) for what in WHATS for way in DIRECTIONS]
    also = Spec.from_json(service.store().queue.job(1).spec).also
    assert also == (*audits, Curve("base"), Curve("tuned"), *exchanged)
    assert "100 questions · audit · circuits run · transplants" in _texts(app)
    app.selectbox(key="run_path").set_value("exact").run()
    assert app.toggle(key="run_audit").disabled
    assert "Not as in the paper: each edge really removed." in _texts(app)
    app = _button(app, "Queue it")
    spec = Spec.from_json(service.store().queue.job(2).spec)
    assert spec.method == Method(path="exact")
    assert Check.kind not in [task.kind for task in spec.also], "every edge is removed anyway"


def test_a_job_that_is_done_lists_what_it_measured(empty: Path) -> None:
    store, tasks = service.store(), (Transplant("weights", "into-base", 2), Transplant("weights", "into-tuned", 2))
    job = store.queue.submit(Spec("grpo", "addition", (), also=tasks).as_json())
    store.queue.claim("worker")
    settings = tasks[0].as_json() | {"version": Transplant.version}
    for key, pair in (("mine", "grpo"), ("another's", "ppo")):
        store.evaluations.start(
            key, Transplant.kind, Subject(pair, "addition"), settings, ["base", "tuned"], ["q", "r"]
        )
    store.spool.put(MeasurementBatch("mine", ("base",), {"loss": np.ones((1, 2), np.float32)}))
    store.batches.ingest()
    store.queue.end(job, "failed", "Stopped.")
    app = _open()
    app.selectbox(key="job").set_value(str(job)).run()
    assert not app.exception
    table = app.dataframe[-1].value
    assert table[["Measured", "Units", "Questions"]].to_numpy().tolist() == [["weights of tuned in base", "1 of 2", 2]]


def test_a_running_job_shows_how_far_it_is(empty: Path) -> None:
    job = service.store().queue.submit(Spec("ppo", "addition", (Cut(0.3),)).as_json())
    service.store().queue.claim("worker")
    service.store().queue.report(job, "worker", "base answers", 0, 500)
    service.store().queue.report(job, "worker", "base answers", 128, 500)
    app = _open()
    assert not app.exception
    (bar,) = [bar for bar in app.get("progress") if "128 of 500" in bar.proto.text][-1:]
    assert bar.proto.text.startswith("base answers: 128 of 500")


def test_what_a_job_would_take_is_measured(empty: Path) -> None:
    app = _button(_open(), "What would it take?")
    (plan,) = [code.value for code in app.code if "in all" in code.value]
    assert "500 questions" in plan
    assert plan.count("to be scored in batches of") == 8


def test_nothing_of_a_job_is_lost_on_its_way_to_the_forecast(empty: Path) -> None:
    criteria = Criteria(Cut(0.1), 0.4, 1.6, 0.6, 7, 43, "mean", "base_only")
    method = Method("blocks", "norm-exact", "mean", "margin", "shared")
    spec = Spec(
        "ppo", "addition", (Cut(0.1), Cut(0.2)), criteria, "cpu", "bfloat16", "eager", True, "q", True, "made", method,
        (Check("base", 7),), ("no", "no"),
    )  # fmt: skip
    for part, usual in ((criteria, Criteria()), (spec, Spec("grpo", "carry"))):
        assert not [field.name for field in fields(part) if getattr(part, field.name) == getattr(usual, field.name)]

    def page(spec: object) -> None:
        from dashboard import runs

        runs.show_forecast(spec)

    app = AppTest.from_function(page, default_timeout=120, args=(spec,)).run()
    (shown,) = [code.value for code in app.code]
    plan = make_plan(spec, load_registry())
    compared = [plan.comparison_key(selection) for selection in spec.selections() for _ in SIDES]
    assert shown.count("7 strongest and 100 random edges of base really removed, α") == 2
    job = service.store().queue.submit(spec.as_json())
    assert describe(service.store().queue.job(job)).endswith(" · token by token: q · audit")
    job = service.store().queue.submit(Spec("grpo", "carry", (), also=(Transplant(),)).as_json())
    assert describe(service.store().queue.job(job)).endswith(" · carry · transplants"), (
        "of all questions, without a cut"
    )
    assert re.findall(r"\[(\w+)\]", shown) == [*(plan.rollout_key(side) for side in SIDES), *compared]


def test_one_process_answers_every_forecast_and_ends_with_its_input(empty: Path) -> None:
    asked = forecaster()
    assert "100 questions of at most" in asked.ask(Spec("grpo", "addition", (Cut(0.3),)))
    first = asked._process
    assert first is not None
    assert first.stdin is not None
    with pytest.raises(ForecastError, match="There is no pair 'nope'"):
        asked.ask(Spec("nope", "addition"))
    began = time.monotonic()
    assert "grpo: base → grpo" in asked.ask(Spec("grpo", "addition"))
    assert time.monotonic() - began < 3, "nothing is loaded again"
    assert asked._process is first
    first.stdin.close()  # as the server's end does
    assert first.wait(timeout=60) == 0
    asked.warm_up()
    assert asked._process is not first
    assert asked._process is not None
    asked._process.kill()
    asked._process.wait(timeout=60)


def test_what_has_been_computed_is_opened_and_not_offered_again(full: Path) -> None:
    def links(app: AppTest) -> list[str]:
        (said,) = [text.value for text in app.markdown if "lready computed" in text.value]
        address = r"/compare\?pair=GRPO&questions=Addition&cohort=both\+correct&alpha="
        return re.findall(rf"\[α = ([\d.]+)\]\({address}\1\)", said)

    app = _open()
    assert links(app) == ["0.03", "0.1", "0.3", "0.5"]
    assert "**Already computed**; open it" in _texts(app)
    assert not app.button
    app.toggle(key="run_circuits").set_value(True).run()
    app.segmented_control(key="run_alphas").set_value([0.3]).run()
    assert not app.button, "its circuits were run too"
    app.segmented_control(key="run_alphas").set_value([0.3, 0.5]).run()
    assert [button.label for button in app.button] == ["What would it take?", "Queue it"]
    assert links(app) == ["0.3", "0.5"], "and at the other cut they were not"
    app.number_input(key="run_samples").set_value(99).run()
    assert [button.label for button in app.button] == ["What would it take?", "Queue it"]
    assert "lready computed" not in _texts(app)


def test_a_cohort_without_questions_is_not_queued(full: Path) -> None:
    app = _open(cohort="both_wrong")
    assert "No question is both wrong" in app.info[0].value
    assert not app.button


def test_a_job_that_is_done_shows_with_what_it_was_made(full: Path) -> None:
    full.with_name(full.name + ".log").write_text("10:00 job 1: begins\n10:01 more of it\n10:02 job 2: begins\n")
    app = _open()
    app.selectbox(key="job").set_value("1").run()
    assert not app.exception
    assert "**Job 1**, done" in _texts(app)
    assert any(code.value == "10:00 job 1: begins\n10:01 more of it" for code in app.code)
    assert any(expander.label == "Provenance, α = 0.3" for expander in app.expander)


def test_the_log_of_a_job_is_cut_out_of_the_workers(tmp_path: Path) -> None:
    (tmp_path / "s.duckdb.log").write_text(
        "1 job 3: {spec}\n2 loading\n3 job 4: {spec}\nTraceback\n  deep\n4 job 3: again\n5 job four: odd\n"
    )
    assert list(log_of(tmp_path / "s.duckdb", 3)) == [
        "1 job 3: {spec}",
        "2 loading",
        "4 job 3: again",
        "5 job four: odd",
    ]
    assert list(log_of(tmp_path / "s.duckdb", 4)) == ["3 job 4: {spec}", "Traceback", "  deep"]
    assert list(log_of(tmp_path / "none.duckdb", 3)) == []


def test_rate_and_time_left_by_hand() -> None:
    now = datetime(2026, 1, 1, 12)
    blank = dict.fromkeys(field.name for field in fields(JobRow))
    job = JobRow(**blank | {"stage": "edges", "done": 30, "total": 90, "stage_started": now - timedelta(seconds=15)})
    assert progress(job, now) == "edges: 30 of 90, 2.0 a second, about 30 s left in this stage"
    slow = replace(job, stage_started=now - timedelta(minutes=10))
    assert progress(slow, now) == "edges: 30 of 90, 3.0 a minute, about 20 min left in this stage"
    assert progress(replace(job, done=0), now) == "edges: 0 of 90"
    assert progress(replace(job, stage_started=None), now) == "edges: 30 of 90"


# -- a hosted server ---------------------------------------------------------------------------------------------------


def test_viewers_of_a_hosted_server_look_and_do_not_queue(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    monkeypatch.setenv("PROBING_ADMIN_TOKEN", "right")
    app = _open()
    assert not app.exception
    assert [button.label for button in app.button] == ["Unlock"]
    assert roles.why_not() in _texts(app), "a pair's page and this one say the same"
    compare = app.switch_page("../pages/compare.py").run()
    assert not compare.button
    assert roles.why_not() in _texts(compare)


def test_nobody_can_queue_where_nobody_can_sign_in(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    app = _open()
    assert not app.exception
    assert not app.button
    assert "nothing new is computed here" in _texts(app)
    app.session_state["pair"] = "smollm2-grpo"
    compare = app.switch_page("../pages/compare.py").run()
    assert compare.title[0].value == "SmolLM2-135M-Instruct → smollm2-grpo"
    assert not compare.button
    assert "nothing new is computed here" in _texts(compare), "a pair's page and Runs say the same"
    with pytest.raises(StoreError, match="only read"):
        service.store().queue.submit({})


def test_a_wrong_token_unlocks_nothing_and_the_right_one_does(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    monkeypatch.setenv("PROBING_ADMIN_TOKEN", "right")
    monkeypatch.setattr(roles, "TOKENS", roles.Tokens())
    app = _open()
    app.text_input[0].set_value("wrong")
    app = _button(app, "Unlock")
    assert "That is not the token." in _texts(app)
    assert [button.label for button in app.button] == ["Unlock"]
    app.text_input[0].set_value("right")
    app = _button(app, "Unlock")
    assert "Signed in as admin." in _texts(app)
    app = _button(app, "Queue it")
    assert "Job 1 is queued." in _texts(app)
    assert service.store().queue.job(1).requested_by == "admin"


class _Clock:
    """Time that passes only where somebody sleeps, of each thread by itself."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept = seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    own = _Clock()
    monkeypatch.setattr(roles, "time", own)
    return own


def _guess(tokens: roles.Tokens, address: str, clock: _Clock) -> float | None:
    """How long a wrong token waits before it is looked at; None if it is not."""
    try:
        assert not tokens.is_right("wrong", "right", address)
    except roles.NotAllowedError:
        return None
    return clock.slept


def test_wrong_tokens_of_all_sessions_wait_for_one_another(clock: _Clock, caplog: pytest.LogCaptureFixture) -> None:
    tokens = roles.Tokens()
    count = partial(REGISTRY.get_sample_value, "probing_wrong_tokens_total")
    before = [count({"looked_at": said}) or 0 for said in ("yes", "no")]
    waits = [_guess(tokens, "192.0.2.1", clock) for _ in range(40)]
    assert waits[:5] == [0, 0.5, 1.5, 3.5, 7.5], "half a second, doubled with each"
    assert waits[5:] == [None] * 35, "longer than ten seconds is not waited"
    assert [count({"looked_at": said}) for said in ("yes", "no")] == [before[0] + 5, before[1] + 35]
    said = [record.message for record in caplog.records]
    assert len(said) == 5
    assert said[-1] == "a wrong admin token from 192.0.2.1, the 5. in a row"
    clock.now += 3600
    assert _guess(tokens, "192.0.2.1", clock) == 0
    with pytest.raises(roles.NotAllowedError, match="Try again in 16 seconds"):
        tokens.is_right("right", "right", "192.0.2.1")
    for _ in range(30):
        clock.now += 3600
        assert _guess(tokens, "192.0.2.1", clock) == 0
    with pytest.raises(roles.NotAllowedError, match="Try again in 60 seconds"):
        tokens.is_right("right", "right", "192.0.2.1")


def test_who_guesses_elsewhere_keeps_nobody_out(clock: _Clock) -> None:
    tokens = roles.Tokens()
    for _ in range(40):
        _guess(tokens, "192.0.2.1", clock)
    clock.now += 8  # when the last of them that waited has been looked at
    assert tokens.is_right("right", "right", "198.51.100.2")
    assert clock.slept == 0
    assert not tokens.is_right("wrong", "right", "198.51.100.2")
    assert clock.slept == 0.5, "a right one is no step to a longer wait"


def test_tokens_from_many_addresses_are_looked_at_one_after_the_other(clock: _Clock) -> None:
    tokens = roles.Tokens()
    waits = [_guess(tokens, f"192.0.2.{number}", clock) for number in range(200)]
    assert waits == [0.5 * number if number <= 20 else None for number in range(200)]
    for number in range(2 * roles.ADDRESSES):
        _guess(tokens, f"{number}", clock)
    assert len(tokens._sources) == roles.ADDRESSES


def test_a_guess_that_waits_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "PAUSE", 1.0)
    monkeypatch.setattr(roles, "LONGEST_WAIT", 1.5)
    tokens = roles.Tokens()
    assert not tokens.is_right("wrong", "right", "192.0.2.1")
    waiting = threading.Thread(target=tokens.is_right, args=("wrong", "right", "192.0.2.1"))
    waiting.start()
    began = time.monotonic()
    until(lambda: tokens._sources["192.0.2.1"].wrong == 2, 0.8)
    for _ in range(10):  # which would have to wait for three seconds
        with pytest.raises(roles.NotAllowedError):
            tokens.is_right("wrong", "right", "192.0.2.1")
    assert time.monotonic() - began < 0.9
    assert waiting.is_alive()
    waiting.join(timeout=10)


def test_too_many_wrong_tokens_are_said_to_be_so(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    monkeypatch.setenv("PROBING_ADMIN_TOKEN", "right")
    monkeypatch.setattr(roles, "TOKENS", roles.Tokens())
    monkeypatch.setattr(type(st.context), "ip_address", property(lambda context: "192.0.2.1"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for _ in range(30):  # each in a session of its own; how many it takes depends on how fast they come
        app = _open()
        app.text_input[0].set_value("wrong")
        app = _button(app, "Unlock")
        if "Too many wrong tokens" in _texts(app):
            break
    assert "Too many wrong tokens have been given. Try again in" in _texts(app)
    assert not app.exception


def test_the_queue_of_a_hosted_server_is_bounded(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    monkeypatch.setenv("PROBING_ADMIN_TOKEN", "right")
    monkeypatch.setattr(roles, "person", lambda: "somebody")
    jobs = [Spec("grpo", "addition", (Cut(0.3),), Criteria(n=n)) for n in range(1, roles.QUEUE_LIMIT + 2)]
    for spec in jobs[: roles.PERSON_LIMIT]:
        roles.submit(spec)
    with pytest.raises(roles.NotAllowedError, match="You have 3 jobs"):
        roles.submit(jobs[roles.PERSON_LIMIT])
    for number, spec in enumerate(jobs[roles.PERSON_LIMIT : roles.QUEUE_LIMIT]):
        monkeypatch.setattr(roles, "person", lambda number=number: f"person {number}")
        roles.submit(spec)
    with pytest.raises(roles.NotAllowedError, match="The queue is full"):
        roles.submit(jobs[-1])
    with pytest.raises(roles.NotAllowedError, match="not yours"):
        roles.cancel(1)
    with pytest.raises(PairError):
        roles.submit(Spec("../secrets", "addition"))
