"""Answers that travel as the authors' JSON lines: out of a store, into another, and probed there like one's own."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probing.cuts import Cut
from probing.errors import PersonError, QuestionError, RolloutError
from probing.jobs.imports import import_rollouts
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Spec, spec_of
from probing.jobs.progress import silent
from probing.jobs.worker import follow
from probing.pairs import QuestionSet, load_registry
from probing.questions import VERDICTS, load_questions
from probing.rollout_files import read_rollouts, write_rollouts
from probing.rollouts import COHORTS, Answer, Criteria, cohort_of
from probing.store import Store, open_store
from probing.store.records import ComparisonRow

SPEC = Spec("grpo", "addition", (Cut(0.3),), Criteria(n=12))

ROW = {
    "idx": 3, "question": "1+2=", "base_prompt_tokens": [1, 4, 13], "base_answer_tokens": [6, 2],
    "base_answer_tokens_range": [3, 5], "rl_prompt_tokens": [1, 4, 13], "rl_answer_tokens": [6, 7, 2],
    "rl_answer_tokens_range": [3, 6],
}  # fmt: skip


def _probe(store: Store, spec: Spec) -> dict:
    job = follow(store, store.queue.submit(spec.as_json()), silent)
    assert job.status == "done", job.message
    (row,) = store.comparisons.table().to_dict("records")
    return row


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store in which both models answered, and their answers as a file."""
    folder = tmp_path_factory.mktemp("generated")
    store = open_store(folder / "store.duckdb")
    row = _probe(store, SPEC)
    rollouts = [row[f"{side}_rollout"] for side in SIDES]
    write_rollouts(folder / "answers.jsonl", store.rollouts.texts(rollouts[0]), *map(store.rollouts.answers, rollouts))
    store.close()
    return folder / "store.duckdb", folder / "answers.jsonl"


def test_imported_answers_are_scored_as_if_they_had_been_generated_here(
    generated: tuple[Path, Path], tmp_path: Path
) -> None:
    here, there = open_store(generated[0]), open_store(tmp_path / "store.duckdb")
    spec = import_rollouts(there, SPEC, load_registry(), generated[1])
    row, original = _probe(there, spec), here.comparisons.table().iloc[0]
    assert row["counts"] == original["counts"]
    for side in SIDES:
        mine, theirs = (store.runs.scores(found[f"{side}_run"]) for store, found in ((there, row), (here, original)))
        assert mine.ids == theirs.ids
        np.testing.assert_array_equal(mine.edges, theirs.edges)
        assert there.rollouts.answers(row[f"{side}_rollout"]) == here.rollouts.answers(original[f"{side}_rollout"])
    assert spec_of(ComparisonRow.of(row)) == replace(
        spec, selection=SPEC.selections()[0], device="cpu", dtype="float32", served=("no", "no")
    )
    assert make_plan(spec, load_registry()).comparison_key(SPEC.selections()[0]) != original["comparison_key"]
    there.close()
    here.close()


def _without(*columns: str) -> Callable[[dict], dict]:
    return lambda row: {key: value for key, value in row.items() if key not in columns}


def _rewritten(path: Path, source: Path, change: Callable[[dict], dict]) -> Path:
    rows = [change(json.loads(line)) for line in source.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_without_a_cohort_the_question_sets_references_decide(generated: tuple[Path, Path], tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    bare = _rewritten(tmp_path / "bare.jsonl", generated[1], _without("cohort", "base_answer_tokens_range"))
    plan = make_plan(import_rollouts(store, SPEC, load_registry(), bare), load_registry())
    cohorts = [row.cohort for row in read_rollouts(generated[1])]
    answers = [store.rollouts.answers(plan.rollout_key(side)) for side in SIDES]
    assert [cohort_of(b, t) for b, t in zip(*answers, strict=True)] == cohorts
    assert len(set(cohorts)) >= 2
    store.close()


def test_a_question_that_nobody_can_grade_is_a_sentence_unless_the_file_holds_one_cohort(
    generated: tuple[Path, Path], tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store.duckdb")
    strange = _rewritten(
        tmp_path / "s.jsonl", generated[1], lambda row: _without("cohort")(row) | {"question": f"{row['idx']}?"}
    )
    with pytest.raises(RolloutError, match=r"Line 1 of .* has no cohort, and its question is not in"):
        import_rollouts(store, SPEC, load_registry(), strange)
    spec = import_rollouts(store, SPEC, load_registry(), strange, ungraded=True)
    assert json.loads(_probe(store, spec)["counts"])["both_correct"] == 500
    store.close()


def test_answers_that_are_not_in_the_store_are_asked_for(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    job = follow(store, store.queue.submit(replace(SPEC, rollouts="gone").as_json()), silent)
    assert job.status == "failed"
    assert "Import their file again" in job.message
    store.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base_answer_tokens": None}, "Line 1 of .* lacks base_answer_tokens"),
        ({"rl_prompt_tokens": [1, "2"]}, "no list of token ids in rl_prompt_tokens"),
        ({"rl_prompt_tokens": [1, -2]}, "no list of token ids"),
        ({"rl_answer_tokens": []}, "no list of token ids in rl_answer_tokens"),
        ({"base_answer_tokens_range": [0, 2]}, r"range \[0, 2\], but its answer lies at \[3, 5\]"),
        ({"cohort": "winners"}, "the cohort 'winners'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict, says: str) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps(ROW | change))
    with pytest.raises(RolloutError, match=says):
        read_rollouts(tmp_path / "r.jsonl")


def test_a_good_line_is_read_and_one_that_repeats_is_not(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(ROW))
    (row,) = read_rollouts(path)
    assert (row.id, row.tokens["base"], row.tokens["tuned"]) == ("3", ((1, 4, 13), (6, 2)), ((1, 4, 13), (6, 7, 2)))
    path.write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW)}")
    with pytest.raises(RolloutError, match=r"Line 2 of .* repeats the idx '3'"):
        read_rollouts(path)
    path.write_text("\n")
    with pytest.raises(RolloutError, match="holds no answers"):
        read_rollouts(path)


def test_tokens_that_the_model_does_not_know_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    (tmp_path / "r.jsonl").write_text(json.dumps(ROW | {"rl_answer_tokens": [6, 999, 2], "cohort": "both_wrong"}))
    with pytest.raises(RolloutError, match=r"token 999 for grpo, which knows 16"):
        import_rollouts(store, SPEC, load_registry(), tmp_path / "r.jsonl")
    store.close()


# -- cohorts from a column ---------------------------------------------------------------------------------------------


def test_the_verdicts_are_the_cohorts() -> None:
    assert tuple(VERDICTS) == COHORTS
    for cohort, (base, tuned) in VERDICTS.items():
        assert cohort_of(Answer("", (), (), "", base), Answer("", (), (), "", tuned)) == cohort


def test_questions_that_are_not_graded_name_their_cohort(tmp_path: Path) -> None:
    declared = {"name": "own", "title": "Own", "file": tmp_path / "q.jsonl", "grading": "none"}
    with pytest.raises(ValueError, match="go together"):
        QuestionSet(**declared)
    questions = QuestionSet(**declared, cohort="group")
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "12+34=", "group": "both_correct"}')
    (question,) = load_questions(questions)
    assert (question.cohort, question.reference) == ("both_correct", "")
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "12+34=", "group": "mine"}')
    with pytest.raises(QuestionError, match=r"Line 1 of .* has the cohort 'mine'"):
        load_questions(questions)
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "12+34="}')
    with pytest.raises(QuestionError, match="does not have the column group"):
        load_questions(questions)


def test_a_pair_is_probed_on_questions_that_are_not_graded(
    tmp_path: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": str(i), "question": f"{100 + i}+{200 + i}=", "group": "tuned_only"} for i in range(6)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "pairs.toml").write_text(
        f"""
        [questions.own]
        title = "Own"
        file = "q.jsonl"
        grading = "none"
        cohort = "group"
        [pairs.mine]
        title = "Mine"
        algorithm = "GRPO"
        kind = "online RL"
        base = "{zoo / "base"}"
        tuned = "{zoo / "grpo"}"
        questions = ["own"]
        """
    )
    monkeypatch.setenv("PROBING_PAIRS", str(tmp_path / "pairs.toml"))
    store = open_store(tmp_path / "store.duckdb")
    row = _probe(store, Spec("mine", "own", (Cut(0.5),), Criteria(cohort="tuned_only", n=6)))
    assert json.loads(row["counts"])["tuned_only"] == 6
    assert (row["base_accuracy"], row["tuned_accuracy"]) == (0, 1)
    store.close()


def test_the_file_cannot_be_written_where_there_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(PersonError, match="Cannot write"):
        write_rollouts(tmp_path / "none" / "r.jsonl", {}, [], [])
