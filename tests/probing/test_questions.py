import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from probing.checkpoints import find
from probing.errors import PairError, QuestionError
from probing.models import load_tokenizer
from probing.pairs import QuestionSet, load_registry
from probing.questions import TEMPLATES, Question, digest, grade, load_questions, prompt_for

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "questions"


def _set(path: Path, **columns: str) -> QuestionSet:
    return QuestionSet(name="x", title="x", file=path, grading="exact", **columns)


def test_exact_grading_ignores_surrounding_space_only() -> None:
    assert grade(" B \n", "B", "exact")
    assert not grade("b", "B", "exact")


def test_unknown_rules_and_templates_are_refused_with_the_known_ones() -> None:
    with pytest.raises(QuestionError, match="last-number"):
        grade("1", "1", "vibes")
    with pytest.raises(QuestionError, match="deepseek-math"):
        prompt_for(Question("1", "?", "!"), "nope", None)


def test_a_question_with_braces_is_put_in_the_template_as_it_is(zoo: Path) -> None:
    question = Question("1", r"What is $\frac{1}{2}$ of {q}?", "")
    tokenizer = load_tokenizer(find(str(zoo / "base")))
    for name, template in TEMPLATES.items():
        before, after = template.split("{q}")
        assert prompt_for(question, name, tokenizer).text == before + question.text + after


def test_the_shipped_questions_load_and_their_references_are_right() -> None:
    questions = load_questions(load_registry().question_set("addition"))
    assert len(questions) == 500
    for question in questions:
        left, right = question.text.rstrip("=").split("+")
        assert int(question.reference) == int(left) + int(right)


def test_a_set_may_name_a_counterpart_for_each_question(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "question": "1+1", "answer": "2", "other": "3+4"},
        {"id": "b", "question": "2+2", "answer": "4"},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = load_questions(_set(path, counterpart="other"))
    assert [question.counterpart for question in named] == ["3+4", None]
    plain = load_questions(_set(path))
    assert [question.counterpart for question in plain] == [None, None]
    assert digest(named) == digest(plain), "answers are the same whatever stands in for what is removed"


def test_the_held_out_sets_are_disjoint() -> None:
    folder = load_registry().question_set("addition").file.parent
    report, tuning = (
        {json.loads(line)["question"] for line in (folder / name).read_text().splitlines()}
        for name in ("addition.jsonl", "addition-tuning.jsonl")
    )
    assert len(report) == len(tuning) == 500
    assert not report & tuning


def _real(name: str) -> Path:
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("the file is not on this machine")
    return path


@pytest.mark.parametrize(
    ("registered", "file", "count", "first"),
    [
        ("gsm8k", "gsm8k", 1319, "18"),
        ("math", "math500", 500, r"\left( 3, \frac{\pi}{2} \right)"),
        ("math-500", "math500", 500, r"\left( 3, \frac{\pi}{2} \right)"),
        ("college-math", "college_math", 2818, "$10-4 n$"),
    ],
)
def test_the_registered_sets_read_the_real_files(registered: str, file: str, count: int, first: str) -> None:
    declared = load_registry().question_set(registered)
    questions = load_questions(declared.model_copy(update={"file": _real(file), "hub": None}))
    assert len(questions) == count
    assert questions[0].reference == first
    assert all(question.text and question.reference for question in questions)


def test_the_last_box_of_a_solution_is_its_answer() -> None:
    path = _real("math500")
    columns = {"id": "unique_id", "question": "problem"}
    boxed = load_questions(_set(path, **columns, answer="solution", final="boxed"))
    whole = load_questions(_set(path, **columns))
    same = [b.reference.replace(" ", "") == w.reference.replace(" ", "") for b, w in zip(boxed, whole, strict=True)]
    assert sum(same) >= 495


def test_parquet_holds_the_same_questions_as_json_lines(tmp_path: Path) -> None:
    declared = load_registry().question_set("addition")
    assert declared.file is not None
    pd.read_json(declared.file, lines=True, dtype=False).to_parquet(tmp_path / "q.parquet")
    again = load_questions(declared.model_copy(update={"file": tmp_path / "q.parquet"}))
    assert digest(again) == digest(load_questions(declared))


def test_a_bad_parquet_file_is_refused_and_the_row_named(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    with pytest.raises(QuestionError, match="Cannot read"):
        load_questions(_set(path))
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(QuestionError, match="not a complete Parquet file"):
        load_questions(_set(path))
    pd.DataFrame({"id": ["a", "b"], "question": ["?", None], "answer": ["!", "!"]}).to_parquet(path)
    with pytest.raises(QuestionError, match=r"Row 2 of .* does not have the column question"):
        load_questions(_set(path))


def test_questions_without_ids_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a", "answer": "#### 1"}\n{"question": "b", "answer": "so\\n#### 2,000"}')
    found = load_questions(_set(path, id="", final="hashes"))
    assert [(q.id, q.reference) for q in found] == [("00001", "1"), ("00002", "2,000")]
    path.write_text('{"question": "a", "answer": "one"}')
    with pytest.raises(QuestionError, match=r"Line 1 .* has no final answer"):
        load_questions(_set(path, id="", final="hashes"))


def test_a_data_set_that_the_hub_does_not_deliver_is_a_sentence() -> None:
    with pytest.raises(QuestionError, match="The hub did not deliver the data set 'openai/gsm8k'"):
        load_questions(load_registry().question_set("gsm8k"))


def test_the_files_of_a_data_set_are_read_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for subject, problem in (("geometry", "g"), ("algebra", "a")):
        (tmp_path / subject).mkdir()
        table = pd.DataFrame({"problem": [problem], "solution": [rf"So $\boxed{{{problem}}}$."]})
        table.to_parquet(tmp_path / subject / "test-00000-of-00001.parquet")
    monkeypatch.setattr("probing.hub.snapshot_download", lambda *args, **kwargs: str(tmp_path))
    found = load_questions(load_registry().question_set("math"))
    assert [(q.id, q.text, q.reference) for q in found] == [("00001", "a", "a"), ("00002", "g", "g")]


def test_a_set_has_one_source() -> None:
    with pytest.raises(ValueError, match="either a file or a data set"):
        QuestionSet(name="x", title="x", grading="exact")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no questions"),
        ('{"id": 1, "question": "?"', "Line 1 .* is not JSON"),
        ('{"id": 1, "question": "?"}', "Line 1 .* does not have the column answer. It has id, question"),
        ('{"id": 1, "prompt": "?"}', "Line 1 .* does not have the columns id, question, answer"),
        ("[]", "Line 1 .* is not a JSON object"),
        ('{"id": 1, "question": "a", "answer": "b"}\n\n{"id": 1, "question": "c", "answer": "d"}', "Line 3 .* repeats"),
        ('{"id": 1, "question": "a", "answer": " "}', "Line 1 .* has no final answer in its column answer"),
        ('{"id": 1, "question": "x \\ud83d y", "answer": "2"}', "Line 1 .* half a character .* in its column question"),
        ('{"id": 1, "question": "?", "answer": "\\ude00"}', "Line 1 .* half a character .* in its column answer"),
        ('{"id": "\\ud83d", "question": "?", "answer": "2"}', "Line 1 .* half a character .* in its column id"),
        ('{"id": 1, "question": "?", "answer": true}', "Line 1 .* has a truth value in its column answer"),
        ('{"id": 1, "question": "?", "answer": ["2"]}', "Line 1 .* has a list in its column answer"),
        ('{"id": [1], "question": "?", "answer": "2"}', "Line 1 .* has a list in its column id"),
        ('{"id": 1, "question": ["?"], "answer": "2"}', "Line 1 .* has a list in its column question"),
        ('{"id": 1, "question": "?", "answer": NaN}', "Line 1 .* has NaN in its column answer"),
        ('{"id": 1, "question": "?", "answer": -Infinity}', "Line 1 .* has -inf in its column answer"),
        (
            '{"id": 1, "question": "?", "answer": {"gold": "2", "style": "rule"}}',
            r"Line 1 .* a structure \(gold, style\) in its column answer\. Name .* answer\.gold",
        ),
        (
            '{"id": 1, "question": [{"role": "system", "content": ""}, {"role": "user", "content": ""}], "answer": 2}',
            r"Line 1 .* has a chat in its column question \(system, user\)",
        ),
        (
            '{"id": 1, "question": [{"role": "user", "content": [1]}], "answer": 2}',
            "Line 1 .* has a list in its column",
        ),
    ],
)
def test_a_bad_question_file_is_refused_and_the_line_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(QuestionError, match=sentence):
        load_questions(_set(path))


CASES = SHARED.parents[1] / "cases"


def _case(name: str) -> Path:
    path = CASES / name
    if not path.exists():
        pytest.skip("the file is not on this machine")
    return path


def test_marks_of_byte_order_are_passed_over_wherever_files_were_joined(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [json.dumps({"id": str(i), "question": "1+1=", "answer": "2"}) for i in range(2)]
    path.write_text("".join(f"\ufeff{row}\n" for row in rows) + "\ufeff", encoding="utf-8")
    assert load_questions(_set(path)) == [Question(str(i), "1+1=", "2") for i in range(2)]


def test_numbers_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    numbers = ["18", "-7", "3.50", "1e3", "1e999", "12345678901234567890.25", "9" * 5000]
    path.write_text("\n".join(f'{{"id": {i}, "question": "?", "answer": {n}}}' for i, n in enumerate(numbers)))
    assert [question.reference for question in load_questions(_set(path))] == numbers


def test_files_of_others_are_read_or_refused_in_a_sentence() -> None:
    assert load_questions(_set(_case("jsonl-bom/bom.jsonl"))) == [Question("1", "1+1=", "2")]
    with pytest.raises(QuestionError, match=r"Line 1 .* half a character"):
        load_questions(_set(_case("jsonl-surrogate/sur.jsonl")))
    verl = _case("verl-parquet/verl.parquet")
    with pytest.raises(QuestionError, match=r"Row 1 .* Name one of its parts, such as reward_model\.ground_truth"):
        load_questions(_set(verl, question="prompt", answer="reward_model", id=""))
    (question,) = load_questions(
        _set(verl, id="extra_info.index", question="prompt", answer="reward_model.ground_truth")
    )
    assert (question.id, question.reference) == ("0", "7")
    assert question.text == 'Tim has 3 apples and buys 4. How many? Output the final answer after "####".'


def test_the_logged_samples_of_lm_eval_are_read_once_whatever_filters_scored_them(tmp_path: Path) -> None:
    path = tmp_path / "samples_gsm8k.jsonl"
    rows = [
        {
            "doc_id": i, "doc": {"question": f"{i}+{i}=?", "answer": f"It is {2 * i}.\n#### {2 * i}"},
            "target": f"It is {2 * i}.\n#### {2 * i}", "arguments": {"gen_args_0": {"arg_0": f"Q: {i}+{i}=?\nA:"}},
            "resps": [["4"]], "filtered_resps": ["4"], "filter": name, "exact_match": float("nan"),
        }
        for name in ("strict-match", "flexible-extract")
        for i in range(3)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    for answer in ("target", "doc.answer"):
        found = load_questions(_set(path, id="doc_id", question="doc.question", answer=answer, final="hashes"))
        assert found == [Question(str(i), f"{i}+{i}=?", str(2 * i)) for i in range(3)]
    asked = load_questions(_set(path, id="doc_id", question="arguments.gen_args_0.arg_0", answer="target"))
    assert asked[2].text == "Q: 2+2=?\nA:"
    with pytest.raises(QuestionError, match=r"Line 1 .* does not have the column doc\.problem"):
        load_questions(_set(path, id="doc_id", question="doc.problem", answer="target"))


def test_a_column_whose_name_has_a_dot_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    pd.DataFrame({"id": [1], "doc.question": ["?"], "answer": [2]}).to_parquet(path)
    assert load_questions(_set(path, question="doc.question")) == [Question("1", "?", "2")]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([2, 3]), None),
        (pa.array([2.5, float("nan")]), "NaN"),
        (pa.array([2.5, float("inf")]), "inf"),
        (pa.array([True, False]), "a truth value"),
        (pa.array([["2"], ["3"]]), "a list"),
        (pa.array([b"2", b"3"]), "bytes"),
        (pa.array([{"gold": "2"}, {"gold": "3"}]), "a structure"),
        (pa.array([date(2025, 1, 1)] * 2), "a date"),
        (pa.array([b"2", b"\xed\xa0\xbd"]).view(pa.string()), "something unreadable"),
        (pa.array([Decimal("2.50"), Decimal("3.00")]), None),
        (pa.array(["2", "3"]).dictionary_encode(), None),
        (pa.array(["2", "3"], pa.large_string()), None),
    ],
)
@pytest.mark.parametrize("column", ["id", "question", "answer"])
def test_what_a_parquet_file_holds_is_text_or_a_number_or_refused_by_its_kind(
    tmp_path: Path, column: str, values: pa.Array, kind: str | None
) -> None:
    path = tmp_path / "q.parquet"
    columns = {"id": ["a", "b"], "question": ["?", "!"], "answer": ["x", "y"], "unused": values}
    pyarrow.parquet.write_table(pa.table(columns), path)
    assert len(load_questions(_set(path))) == 2, "a column that is not asked for may hold anything"
    pyarrow.parquet.write_table(pa.table(columns | {column: values}), path)
    if kind is not None:
        with pytest.raises(QuestionError, match=rf"Row [12] of .* has {kind}.* in its column {column}"):
            load_questions(_set(path))
        return
    field = {"id": "id", "question": "text", "answer": "reference"}[column]
    assert [getattr(question, field) for question in load_questions(_set(path))] == [str(v) for v in values.to_pylist()]


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
