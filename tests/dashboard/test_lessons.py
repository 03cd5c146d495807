"""The lessons: their questions graded for any models, and every page with the process that has the real ones."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import NumberInput

from dashboard import service
from dashboard.lessons import grading, live, stored
from dashboard.lessons.grading import Choice, Count
from dashboard.lessons.live import as_learned
from dashboard.lessons.texts import lessons
from dashboard.seeds import Band
from probing.graph import graph_of
from probing.metrics import INTENSITY, Comparison
from probing.playground import Chosen, Said, Side
from tests.dashboard.apps import open_app

# -- texts -------------------------------------------------------------------------------------------------------------


def test_there_are_six_lessons_without_numbers_in_their_texts() -> None:
    assert [lesson.number for lesson in lessons()] == [1, 2, 3, 4, 5, 6]
    for lesson in lessons():
        for text, _ in lesson.pieces:
            prose = re.sub(r"`[^`]*`|^>.*$", "", text, flags=re.MULTILINE)
            assert not re.search(r"\d", prose), (lesson.title, prose)


def test_a_lesson_is_read_in_five_minutes() -> None:
    for lesson in lessons():
        assert sum(len(text.split()) for text, _ in lesson.pieces) < 5 * 130


@pytest.mark.parametrize(
    ("written", "learned"),
    [("364+275", "364+275="), (" 12345 + 54321 =", "12345+54321="), ("12+34", None), ("123+4567=", None), ("", None)],
)
def test_a_sum_is_written_as_the_models_have_learned_it(written: str, learned: str | None) -> None:
    assert as_learned(written) == learned


# -- questions ---------------------------------------------------------------------------------------------------------


def right(question: Choice) -> list[int]:
    return [at for at, option in enumerate(question.options) if question.grade(at).is_right]


def said(tokens: str, is_right: bool | None = None) -> Said:
    return Said(tuple(tokens), (0.5,) * len(tokens), tokens, is_right)


def side(margin: float = 1.0, without: float | None = None, promised: float | None = None) -> Side:
    chosen = Chosen("5", 0.5, margin, ())
    after = None if without is None else replace(chosen, margin=without)
    return Side(said("5"), None, chosen, after, promised, np.zeros(1, np.float32))


def test_the_writers_before_an_mlp_are_counted() -> None:
    question = grading.writers_before(graph_of(3), 1)
    assert question.grade(4).is_right, "input, a0, m0, and a1, which stands before it in its own layer"
    assert not question.grade(5).is_right


def test_the_most_helpful_edge_is_the_one_of_the_highest_score() -> None:
    graph = graph_of(2)
    scores = np.linspace(0.1, 1, graph.size).astype(np.float32)
    scores[3] = -7
    question = grading.most_helpful(graph, scores, "5")
    assert len(question.options) == 4
    (best,) = right(question)
    assert graph.names([graph.size - 1])[0].replace("->", "→") in question.options[best].text
    (hindering,) = [at for at, option in enumerate(question.options) if "−7" in option.text]
    assert "pulls for another token" in question.grade(hindering).why


@pytest.mark.parametrize(
    ("promised", "really", "word"),
    [(-2.0, -3.0, "and further"), (-2.0, -2.2, "about as far"), (-2.0, -1.0, "not so far"), (-2.0, 1.0, "other way")],
)
def test_a_promise_is_kept_broken_or_surpassed(promised: float, really: float, word: str) -> None:
    question = grading.kept_promise(side(1.0, 1.0 + really, promised), "a0->m0", "base")
    assert question is not None
    (at,) = right(question)
    assert word in question.options[at].text
    assert grading.kept_promise(side(), "a0->m0", "base") is None


def test_answers_part_at_the_first_other_token() -> None:
    question = grading.first_difference(said("09 5"), said("09 6"))
    assert isinstance(question, Count)
    assert question.grade(4).is_right
    assert not question.grade(3).is_right
    assert grading.first_difference(said("09"), said("09")) is None


@pytest.mark.parametrize(
    ("low", "high", "band", "word"),
    [
        (-0.1, 0.3, Band(-0.1, 0.1, 2), "do not tell"),
        (0.1, 0.3, Band(0.0, 0.5, 2), "not shown"),
        (0.1, 0.3, Band(0.0, 0.2, 2), "not shown"),
        (0.1, 0.3, None, "not shown"),
        (0.1, 0.3, Band(-0.2, 0.05, 2), "further than another seed"),
    ],
)
def test_what_may_be_said_hangs_on_interval_and_seeds(low: float, high: float, band: Band | None, word: str) -> None:
    change = Comparison(1.0, 1.2, 0.2, 0.2, low, high, low, high)
    question = grading.what_may_be_said(change, band)
    (at,) = right(question)
    assert word in question.options[at].text


def test_a_change_with_no_share_of_its_base_is_not_said_to_be_beyond_seeds() -> None:
    change = Comparison(0.0, 0.2, 0.2, None, 0.1, 0.3, np.nan, np.nan)
    question = grading.what_may_be_said(change, Band(-0.2, 0.05, 2))
    (at,) = right(question)
    assert "beyond question noise. That training" in question.options[at].text


def test_an_exercise_is_judged_by_what_the_model_says() -> None:
    for grade in (grading.not_needed, grading.enough):
        assert grade(replace(side(), changed=said("639", True)), "a0").is_right
        assert not grade(replace(side(), changed=said("539", False)), "a0").is_right


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def ends_with_the_process() -> Iterator[None]:
    """One process answers all tests of this file."""
    yield
    service.door().close()
    service.door.cache_clear()


def _lesson(number: int) -> AppTest:
    app = open_app(f"lesson{number}")
    assert not app.exception
    assert not app.error
    assert app.title[0].value == lessons()[number - 1].title
    return app


def _asked(app: AppTest) -> NumberInput:
    """The box for the answer of a lesson that asks for a number."""
    return next(box for box in app.number_input if box.placeholder == "a whole number")


def _problems(app: AppTest) -> list[str]:
    return [text.value for text in app.markdown if text.value.startswith("The problem is")]


def _progress(app: AppTest) -> str:
    return app.get("progress")[0].proto.text


def test_a_right_number_is_praised_and_remembered_and_a_wrong_one_gets_a_hint(empty: Path) -> None:
    app = _lesson(1)
    assert len(app.get("plotly_chart")) == 2
    _asked(app).set_value(3).run()
    assert app.info[0].value.startswith("Not yet.")
    # Before the MLP of layer 3 have written: input, three attention blocks and MLPs, and the attention block beside it.
    _asked(app).set_value(1 + 3 + 3 + 1).run()
    assert app.success[0].value.startswith("Right.")
    app.switch_page("../pages/lesson2.py").run()
    assert _progress(app) == "Lesson 2 of 6 · answered right: 1"


def test_another_sum_makes_another_question(empty: Path) -> None:
    app = _lesson(2)
    before = app.radio[0].options
    app.text_input[0].set_value("521+133").run()
    assert app.radio[0].options != before
    app.text_input[0].set_value("5+1").run()
    assert "three, four or five digits" in app.info[0].value
    assert app.radio[0].options == before


def test_an_edge_is_removed_and_its_promise_judged(empty: Path) -> None:
    app = _lesson(3)
    app.selectbox(key="removed").select_index(1).run()
    assert app.radio[0].label.startswith(f"Take `{app.selectbox(key='removed').value.replace('->', '→')}`")
    verdicts = []
    for option in range(4):
        app.radio[0].set_value(option).run()
        verdicts.append(bool(app.success))
    assert sum(verdicts) == 1


def test_lessons_say_what_a_fresh_store_lacks(empty: Path) -> None:
    app = _lesson(4)
    assert "has not compared these models yet" in app.info[0].value
    _asked(app).set_value(8).run()  # 11 13 05 531, and 11 13 06 631
    assert app.success
    app = _lesson(5)
    assert "by the margin yet" in app.info[0].value
    assert len(app.radio[0].options) == 3


def test_lessons_read_what_has_been_computed(full: Path) -> None:
    by_paper, by_margin = stored.told()
    assert (by_paper.name, by_margin.name) == ("the paper's definition", "the margin")
    table = service.store().comparisons.table()
    row = table[(table["pair"] == live.PAIR) & (table["alpha"] == 0.3) & (table["cohort"] == "both_correct")].iloc[-1]
    scores = [service.store().runs.scores(row[f"{side}_run"]) for side in ("base", "tuned")]
    means = [np.abs(of.matrix()).mean() for of in scores]
    found = {round(of.compared[INTENSITY.key].base / means[0], 6) for of in (by_paper, by_margin)}
    assert 1.0 in found, "the mean of |score| over questions and cells"
    assert all(of.bands[INTENSITY.key].seeds for of in (by_paper, by_margin))


@pytest.mark.parametrize("name", ["edge", "block"])
def test_the_last_lesson_is_solved_by_following_its_hints(empty: Path, name: str) -> None:
    app = _lesson(6)
    key = f"{name}-1"
    for _ in range(3):
        app.button(key=f"hint-{key}").click().run()
    hints = [caption.value for caption in app.caption if caption.value.startswith("Hint")]
    solutions = re.findall(r"`([^`]+)`", hints[2])
    assert set(solutions) & set(re.findall(r"`([^`]+)`", hints[1]))
    box = app.selectbox(key=f"try-{key}")
    names = {option.partition(". ")[2]: option for option in box.options}
    box.select(names[solutions[0]]).run()
    assert app.success[0].value.startswith("Right.")
    assert _progress(app) == "Lesson 6 of 6 · answered right: 6"
    wrong = next(option for shown, option in names.items() if shown not in solutions)
    app.selectbox(key=f"try-{key}").select(wrong).run()
    assert app.info[0].value.startswith("Not yet.")
    before = _problems(app)
    app.button(key=f"next-{key}").click().run()
    changed = [one != other for one, other in zip(before, _problems(app), strict=True)]
    assert changed == [name == "edge", name == "block"]


def test_without_the_playground_a_lesson_can_still_be_read(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_PLAYGROUND", "off")
    for number in (1, 6):
        app = _lesson(number)
        assert "switched off" in app.info[0].value
        assert len(app.markdown) > 2
