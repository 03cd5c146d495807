import json
from pathlib import Path

import pytest

from probing.errors import PairError, QuestionError
from probing.pairs import QuestionSet, load_registry
from probing.questions import TEMPLATES, Question, grade, load_questions, prompt_for

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "questions"


def _set(path: Path, **columns: str) -> QuestionSet:
    return QuestionSet(name="x", title="x", file=path, grading="exact", **columns)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("12 13 06 632", "632", True),
        ("12 13 06 0632", "632", True),
        ("12 13 06 631", "632", False),
        ("the total is 1,234.", "1234", True),
        ("so x = -5", "-5", True),
        ("so x = 5", "-5", False),
        ("it costs 3.50", "3.5", True),
        ("no idea", "7", False),
        ("", "7", False),
        ("7 apples, then 8", "7", False),
    ],
)
def test_last_number_grading(answer: str, reference: str, right: bool) -> None:
    assert grade(answer, reference, "last-number") is right


def test_exact_grading_ignores_surrounding_space_only() -> None:
    assert grade(" B \n", "B", "exact")
    assert not grade("b", "B", "exact")


def test_unknown_rules_and_templates_are_refused_with_the_known_ones() -> None:
    with pytest.raises(QuestionError, match="last-number"):
        grade("1", "1", "vibes")
    with pytest.raises(QuestionError, match="deepseek-math"):
        prompt_for(Question("1", "?", "!"), "nope")


def test_a_question_with_braces_is_put_in_the_template_as_it_is() -> None:
    question = Question("1", r"What is $\frac{1}{2}$ of {q}?", "")
    for name, template in TEMPLATES.items():
        before, after = template.split("{q}")
        assert prompt_for(question, name) == before + question.text + after


def test_the_shipped_questions_load_and_their_references_are_right() -> None:
    questions = load_questions(load_registry().question_set("addition"))
    assert len(questions) == 500
    for question in questions:
        left, right = question.text.rstrip("=").split("+")
        assert int(question.reference) == int(left) + int(right)


def test_the_held_out_sets_are_disjoint() -> None:
    folder = load_registry().question_set("addition").file.parent
    report, tuning = (
        {json.loads(line)["question"] for line in (folder / name).read_text().splitlines()}
        for name in ("addition.jsonl", "addition-tuning.jsonl")
    )
    assert len(report) == len(tuning) == 500
    assert not report & tuning


@pytest.mark.parametrize(
    ("name", "columns", "count"),
    [
        ("gsm8k", {"id": "idx"}, 1319),
        ("math500", {"id": "unique_id", "question": "problem"}, 500),
    ],
)
def test_real_question_files_load_by_naming_their_columns(name: str, columns: dict, count: int) -> None:
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("the file is not on this machine")
    questions = load_questions(_set(path, **columns))
    assert len(questions) == count
    assert all(question.text for question in questions)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no questions"),
        ('{"id": 1, "question": "?"', "Line 1 .* is not JSON"),
        ('{"id": 1, "question": "?"}', "Line 1 .* does not have the columns id, question and answer"),
        ("[]", "does not have the columns"),
        ('{"id": 1, "question": "a", "answer": "b"}\n\n{"id": 1, "question": "c", "answer": "d"}', "Line 3 .* repeats"),
    ],
)
def test_a_bad_question_file_is_refused_and_the_line_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(QuestionError, match=sentence):
        load_questions(_set(path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[pairs", "not valid TOML"),
        ("[pairs.a]\ntitle = 'a'", "entry 'a' .* is wrong: algorithm"),
        ("[pairs]\na = 1", "entry 'a' .* is wrong"),
        (
            "[pairs.a]\ntitle='a'\nalgorithm='x'\nkind='y'\nbase='b'\ntuned='c'\nquestions=['none']",
            "names the question set 'none'",
        ),
    ],
)
def test_a_bad_registry_is_refused_and_the_entry_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "pairs.toml"
    path.write_text(text)
    with pytest.raises(PairError, match=sentence):
        load_registry(path)


def test_an_unknown_pair_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PairError, match="grpo, ppo, dpo"):
        load_registry().pair("nope")
