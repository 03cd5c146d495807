"""A pair of one's own, added in the browser: what is typed, what is said of it, who may, and what is saved."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from probing import own_pairs
from probing.pairs import DATA, load_registry, own_path
from tests.dashboard.apps import open_app

BASE, TUNED = (str(DATA / "zoo" / name) for name in ("base", "grpo"))
ADD, ASK = "Add it", "What would it take?"


def _open(**state: object) -> AppTest:
    app = open_app("add", **state)
    assert not app.exception
    return app


def _type(app: AppTest, **typed: str) -> AppTest:
    for name, value in typed.items():
        app.text_input(key=f"add_{name}").set_value(value)
    app.run()
    assert not app.exception
    return app


def _texts(app: AppTest) -> str:
    return "\n".join(str(element.value) for kind in ("caption", "error", "info") for element in app.get(kind))


def _button(app: AppTest, label: str):
    return next(button for button in app.button if button.label == label)


def test_a_pair_is_typed_looked_at_added_offered_and_removed(full: Path) -> None:
    app = _open()
    assert _button(app, ADD).disabled
    assert ":red" not in _texts(app), "what has not been typed yet is not complained of"
    _type(app, title="Mine", base=BASE, tuned="./nowhere")
    assert "There is no folder ./nowhere." in _texts(app)
    assert _button(app, ADD).disabled
    _type(app, tuned=TUNED)
    assert _texts(app).count("a folder with weights") == 2
    assert not _button(app, ADD).disabled
    assert not own_path().exists(), "nothing is saved before it is asked for"
    _button(app, ADD).click().run()
    assert not app.exception
    assert own_path() == full.with_name("pairs-own.toml")
    pair = load_registry().pair("mine")
    assert (pair.base, pair.tuned, pair.questions, pair.max_new_tokens) == (BASE, TUNED, ("addition",), 256)
    assert app.session_state["pair"] == "mine"
    assert "Mine" in app.selectbox(key="pair").options
    _type(app, title="Mine")
    assert "There is a pair called 'Mine' already." in _texts(app)
    _button(app, "Remove").click().run()
    assert not app.exception
    assert "mine" not in load_registry().pairs
    assert "Mine" not in app.selectbox(key="pair").options


def test_questions_come_from_a_file_or_an_upload_and_a_wrong_line_is_named(full: Path, tmp_path: Path) -> None:
    lines = '{"id": "1", "question": "1+1=", "answer": "2"}\n'
    (tmp_path / "mine.jsonl").write_text(lines)
    app = _type(_open(), title="Mine", base=BASE, tuned=TUNED)
    app.segmented_control(key="add_source").set_value("a file on this machine").run()
    assert _button(app, ADD).disabled, "a file has to be named"
    _type(app, file=str(tmp_path / "none.jsonl"))
    assert "none.jsonl" in _texts(app)
    assert _button(app, ADD).disabled
    _type(app, file=str(tmp_path / "mine.jsonl"))
    assert "1 question" in _texts(app)
    _type(app, answer="nope")
    assert "does not have the column nope" in _texts(app)
    _type(app, answer="answer")
    app.segmented_control(key="add_source").set_value("upload").run()
    app.file_uploader(key="add_upload").set_value(("sums.jsonl", b"nonsense", "application/json")).run()
    assert "/tmp" not in _texts(app)
    assert "sums.jsonl" in _texts(app)
    app.file_uploader(key="add_upload").set_value(("sums.jsonl", lines.encode(), "application/json")).run()
    _button(app, ADD).click().run()
    assert not app.exception
    (questions,) = load_registry().pair("mine").questions
    saved = load_registry().question_set(questions).file
    assert saved == full.with_name("questions-own") / "mine.jsonl"
    assert saved.read_text() == lines


def test_a_forecast_says_what_it_takes_and_whether_the_tokenizers_are_the_same(full: Path) -> None:
    app = _type(_open(), title="Mine", base=BASE, tuned=TUNED)
    _button(app, ASK).click().run()
    assert not app.exception
    said = "\n".join(code.value for code in app.code)
    assert said.startswith("mine: base → grpo (GRPO)")
    assert "tokenizers the same for both models" in said
    assert "in all     at most" in said
    assert not own_path().exists()


def test_on_a_hosted_server_only_the_admin_adds_uploads_nothing_and_reads_no_path(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    monkeypatch.setenv("PROBING_ADMIN_TOKEN", "a long random text")
    app = _open()
    assert "only its admin may add pairs" in _texts(app)
    assert not [button for button in app.button if button.label in (ADD, ASK)]
    app = _type(_open(admin=True), title="Mine", base=BASE, tuned=str(full.parent / "none"))
    assert "upload" not in app.segmented_control(key="add_source").options
    assert "There is no folder none." in _texts(app)
    own_pairs.add({"title": "There", "algorithm": "GRPO", "kind": "x", "base": BASE, "tuned": TUNED,
                   "questions": ["addition"]})  # fmt: skip
    app.run()
    assert str(full.parent) not in _texts(app)
    assert "In pairs-own.toml." in _texts(app)
