import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from probing.cuts import Cut
from probing.errors import QuestionError
from probing.graph import ResidualGraph
from probing.jobs import loading
from probing.jobs.crew import Alone
from probing.jobs.job import Job
from probing.jobs.keys import ground_key
from probing.jobs.loading import Models, wait_for_one
from probing.jobs.numerics import make_plan
from probing.jobs.places import place_of
from probing.jobs.plan import SIDES, Plan, Spec, spec_of
from probing.jobs.progress import silent
from probing.jobs.shipped import shipped
from probing.jobs.texts import check, texts
from probing.jobs.worker import follow, serve
from probing.method import Method
from probing.metrics import compare
from probing.models import load_tokenizer
from probing.pairs import Registry, load_registry
from probing.rollouts import ALPHAS, Answer, Criteria, select
from probing.scoring import attribute
from probing.sequences import Sample
from probing.store import Store, open_store
from probing.store.files import try_lock
from probing.store.records import ComparisonRow
from tests.conftest import ROOT
from tests.waiting import until

SPEC = Spec("grpo", "addition", (Cut(0.3),), Criteria(n=40))


def _plan(spec: Spec = SPEC) -> Plan:
    return make_plan(spec, load_registry())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the job ran to its end."""
    path = tmp_path_factory.mktemp("undisturbed") / "store.duckdb"
    store = open_store(path)
    job = follow(store, store.queue.submit(SPEC.as_json()), silent)
    store.close()
    assert job.status == "done"
    return path


def _run(store: Store, plan: Plan, selection: Criteria, side: str) -> str:
    return store.comparisons.runs(plan.comparison_key(selection))[side]


def _same_results(one: Store, other: Store) -> None:
    plan, selection = _plan(), SPEC.selections()[0]
    for side in SIDES:
        assert one.rollouts.answers(plan.rollout_key(side)) == other.rollouts.answers(plan.rollout_key(side))
        a, b = (store.runs.scores(_run(store, plan, selection, side)) for store in (one, other))
        assert a.ids == b.ids
        np.testing.assert_array_equal(a.edges, b.edges)
        np.testing.assert_array_equal(a.loss, b.loss)


def test_a_job_leaves_a_comparison_with_provenance(undisturbed: Path) -> None:
    store = open_store(undisturbed)
    (row,) = store.comparisons.table().to_dict("records")
    assert (row["pair"], row["cohort"], row["alpha"]) == ("grpo", "both_correct", 0.3)
    assert row["tuned_accuracy"] > row["base_accuracy"] + 0.2
    runs = store.runs.table()
    assert list(runs["scored"]) == [40, 40]
    assert set(runs["side"]) == set(SIDES)
    for text in runs["provenance"]:
        assert '"device": "cpu"' in text
        assert '"dtype": "float32"' in text
        assert '"torch"' in text
        assert '"batch size": "40"' in text
    result = compare(store.runs.scores(row["base_run"]), store.runs.scores(row["tuned_run"]))
    assert result["loss"].tuned < result["loss"].base
    questions = store.comparisons.questions(row["comparison_key"])
    assert len(questions) == 500
    assert questions["reason"].isna().sum() == 40
    store.close()


def test_the_texts_of_an_answers_tokens_make_the_answer(undisturbed: Path) -> None:
    store = open_store(undisturbed)
    questions = store.comparisons.questions(store.comparisons.table()["comparison_key"][0])
    for row in questions.head(50).itertuples():
        assert "".join(row.tuned_answer_pieces).removesuffix("</s>") == row.tuned_answer
        assert "".join(row.base_prompt_pieces).removeprefix("<s>") == row.prompt
        assert len(row.base_answer_pieces) == row.base_length
    store.close()


def test_scores_of_a_question_at_every_position_add_up_to_its_scores(undisturbed: Path, tmp_path: Path) -> None:
    store = open_store(Path(shutil.copy(undisturbed, tmp_path / "store.duckdb")))
    (row,) = store.comparisons.table().to_dict("records")
    scores = store.runs.scores(row["tuned_run"])
    asked = scores.ids[7]
    spec = spec_of(ComparisonRow.of(row), question=asked)
    assert _plan(spec).comparison_key(SPEC.selections()[0]) == row["comparison_key"]
    assert follow(store, store.queue.submit(spec.as_json()), silent).status == "done"
    found = store.runs.positions(row["tuned_run"], asked)
    assert found is not None
    np.testing.assert_allclose(found.sum(0), scores.edges[7], rtol=1e-3, atol=1e-7)
    assert store.runs.positions(row["base_run"], asked) is not None
    other = next(q for q in store.comparisons.questions(row["comparison_key"])["question_id"] if q not in scores.ids)
    job = follow(store, store.queue.submit(replace(spec, question=other).as_json()), silent)
    assert job.status == "failed"
    assert f"Question '{other}' is not among those that were scored" in job.message
    store.close()


def test_attention_blocks_as_one_reader_are_a_comparison_of_their_own(undisturbed: Path, tmp_path: Path) -> None:
    store = open_store(Path(shutil.copy(undisturbed, tmp_path / "store.duckdb")))
    spec = replace(SPEC, method=Method("blocks"))
    stages: list[str] = []
    job = follow(store, store.queue.submit(spec.as_json()), lambda stage, done, total: stages.append(stage))
    assert job.status == "done"
    assert not any("answers" in stage for stage in stages), "the answers are those that were there"
    table = store.comparisons.table()
    rows = table.set_index(table["graph"].map(lambda text: ResidualGraph.from_text(text).granularity))
    assert sorted(rows.index) == ["blocks", "projections"]
    assert rows["ready"].all()
    assert spec_of(ComparisonRow.of({**rows.loc["blocks"]})) == replace(
        spec, device="cpu", dtype="float32", served=("no", "no")
    )
    for side in ("base_run", "tuned_run"):
        apart, together = (store.runs.scores(rows.loc[name, side]) for name in ("projections", "blocks"))
        assert together.ids == apart.ids
        assert together.graph == apart.graph.at("blocks")
        np.testing.assert_allclose(together.edges, apart.graph.merge(apart.edges, "blocks"), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(together.loss, apart.loss, rtol=1e-5)
    asked = replace(spec, question=together.ids[0])
    assert follow(store, store.queue.submit(asked.as_json()), silent).status == "done"
    found = store.runs.positions(rows.loc["blocks", "tuned_run"], together.ids[0])
    np.testing.assert_allclose(found.sum(0), together.edges[0], rtol=1e-3, atol=1e-6)
    store.close()


def _plan_of_steps(spec: Spec, steps: Sequence[int], folder: Path) -> Plan:
    """The plan of a timeline that has only some of the pair's steps."""
    pair = load_registry().pair(spec.pair)
    folder.mkdir()
    for step in steps:
        (folder / f"step-{step}").symlink_to(pair.steps[step])
    few = pair.model_copy(update={"checkpoints": folder})
    registry = Registry(questions=load_registry().questions, pairs={pair.name: few})
    return make_plan(replace(spec, timeline=True), registry)


def test_the_answers_of_each_side_and_step_are_read_once_whatever_the_number_of_cuts(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(Path(shutil.copy(undisturbed, tmp_path / "store.duckdb")))
    plan = _plan_of_steps(replace(SPEC, cuts=ALPHAS, selection=Criteria(n=4)), [20], tmp_path / "checkpoints")
    reads: list[str] = []
    read = store.rollouts.answers
    monkeypatch.setattr(store.rollouts, "answers", lambda key: [reads.append(key), read(key)][1])
    Job(store, Alone(), plan, silent).do()
    assert reads == [plan.rollout_key(side) for side in (*SIDES, "step-000020")]
    assert sum(store.runs.table()["samples"] == 4) == 3 * len(ALPHAS)
    store.close()


def test_a_timeline_compares_every_checkpoint_on_the_questions_of_the_pair(undisturbed: Path, tmp_path: Path) -> None:
    store = open_store(Path(shutil.copy(undisturbed, tmp_path / "store.duckdb")))
    plan = _plan_of_steps(SPEC, [0, 20, 120], tmp_path / "checkpoints")
    assert plan.steps == ["step-000000", "step-000020", "step-000120"]
    spec = plan.spec
    Job(store, Alone(), plan, silent).do()
    key = plan.comparison_key(spec.selections()[0])
    steps = store.comparisons.steps(key).set_index("side")
    assert list(steps["asked"]) == [500, 500, 500]
    accuracy = steps["correct"] / steps["asked"]
    assert accuracy["step-000000"] < 0.7 < 0.95 < accuracy["step-000120"]
    (row,) = store.comparisons.table().to_dict("records")
    assert store.comparisons.settled(plan.request_key(spec.selections()[0]), plan.steps)
    # Step 0 is the base, the last step the tuned model: their numbers must be those of the pair.
    metrics = store.summaries.metrics().set_index(["side", "metric"])
    for metric in ("activation_intensity", "loss", "gini"):
        assert metrics.loc[("step-000000", metric), "difference"] == pytest.approx(0, abs=1e-9)
        final, tuned = (metrics.loc[(side, metric), "tuned"] for side in ("step-000120", "tuned"))
        assert final == pytest.approx(tuned, rel=1e-6)
    base = store.runs.scores(row["base_run"])
    assert store.runs.scores(_run(store, plan, spec.selections()[0], "step-000020")).ids == base.ids
    store.close()


def test_a_pair_with_other_tokenizers_is_compared_with_a_note(tmp_path: Path, zoo: Path) -> None:
    shutil.copytree(zoo / "grpo", tmp_path / "grpo")
    (tmp_path / "grpo" / "chat_template.jinja").write_text("{{ messages }}")
    pair = load_registry().pair("grpo").model_copy(update={"tuned": str(tmp_path / "grpo"), "checkpoints": None})
    plan = make_plan(SPEC, Registry(questions=load_registry().questions, pairs={"grpo": pair}))
    store = open_store(tmp_path / "store.duckdb")
    Job(store, Alone(), plan, silent).do()
    (row,) = store.comparisons.table().to_dict("records")
    assert row["ready"]
    assert row["warning"].startswith("The two models' tokenizers differ in their chat templates. Each model is scored")
    store.close()


def test_nothing_is_computed_twice(undisturbed: Path) -> None:
    store = open_store(undisturbed)
    before = store.runs.table()
    stages: list[str] = []
    job = follow(store, store.queue.submit(SPEC.as_json()), lambda stage, done, total: stages.append(stage))
    assert job.status == "done"
    assert stages == []
    assert store.runs.table().equals(before)
    assert store.comparisons.settled(_plan().request_key(SPEC.selections()[0]))
    store.close()


def test_comparisons_that_need_the_same_scores_share_them(undisturbed: Path, tmp_path: Path) -> None:
    store = open_store(Path(shutil.copy(undisturbed, tmp_path / "store.duckdb")))
    laxer = replace(SPEC, selection=replace(SPEC.selection, gamma=100.0))  # no answer is that long, nor one less
    stages: list[str] = []
    job = follow(store, store.queue.submit(laxer.as_json()), lambda stage, done, total: stages.append(stage))
    assert job.status == "done"
    assert not [stage for stage in stages if "edges" in stage or "answers" in stage]
    one, other = store.comparisons.table().to_dict("records")
    assert one["comparison_key"] != other["comparison_key"]
    assert one["ready"]
    assert other["ready"]
    assert [one[f"{side}_run"] for side in SIDES] == [other[f"{side}_run"] for side in SIDES]
    table = store.runs.table()
    assert (len(table), table["run_key"].nunique()) == (4, 2), "a row for each comparison that it serves"
    store.close()


def test_a_cohort_without_questions_is_settled_with_the_reason(undisturbed: Path) -> None:
    store = open_store(undisturbed)
    spec = replace(SPEC, selection=Criteria(cohort="both_wrong"))
    job = follow(store, store.queue.submit(spec.as_json()), silent)
    assert job.status == "done"
    table = store.comparisons.table()
    (row,) = table[table["cohort"] == "both_wrong"].to_dict("records")
    assert row["failure"].startswith("No question is both wrong")
    assert store.comparisons.settled(_plan(spec).request_key(spec.selections()[0]))
    store.close()


def test_every_setting_is_in_the_key() -> None:
    plan = _plan()
    selection = SPEC.selections()[0]
    keys = {plan.comparison_key(selection)}
    for change in ({"at": Cut(0.1)}, {"at": Cut(3, "tokens")}, {"beta": 0.4}, {"gamma": 1.6}, {"delta": 0.6},
                   {"n": 41}, {"seed": 1}, {"mean_length": "mean"}, {"cohort": "base_only"}):  # fmt: skip
        keys.add(plan.comparison_key(replace(selection, **change)))
    for spec in (replace(SPEC, dtype="bfloat16"), replace(SPEC, attention="eager"), replace(SPEC, pair="ppo"),
                 replace(SPEC, method=Method("blocks"))):  # fmt: skip
        keys.add(_plan(spec).comparison_key(selection))
    assert len(keys) == 14
    assert Spec.from_json(SPEC.as_json()) == SPEC


def test_a_runs_key_is_that_of_its_model_samples_and_method_whoever_asks() -> None:
    plan, other = _plan(), _plan(replace(SPEC, pair="ppo", selection=Criteria(n=40, beta=0.4)))
    answers = [Answer(f"q{i}", (1,), (2,) * 10, "", True) for i in range(8)]
    selected = select(answers, answers, Criteria(Cut(0.3), n=8))
    key = plan.run_keys(selected)["base"]
    assert other.run_keys(replace(selected, selection=Criteria(Cut(0.35))))["base"] == key
    assert other.comparison_key(selected.selection) != plan.comparison_key(selected.selection)
    fewer = replace(selected, outcomes=selected.outcomes[1:])
    keys = {key, *(p.run_keys(selected)["tuned"] for p in (plan, other)), plan.run_keys(fewer)["base"]}
    keys.add(plan.run_keys(replace(selected, cut=selected.cut + 1))["base"])
    methods = (Method("blocks"), Method(path="norm-exact"), Method(loss="margin"), Method(reference="patch"),
               Method(path="eap-ig"), Method(path="eap-ig", steps=7), Method(text="shared-tuned"),
               Method(text="shared-reference"))  # fmt: skip
    for change in (
        {"dtype": "bfloat16"},
        {"attention": "eager"},
        {"rollouts": "made"},
        *({"method": m} for m in methods),
    ):
        keys.add(_plan(replace(SPEC, **change)).run_keys(selected)["base"])
    assert len(keys) == 16
    assert _plan(replace(SPEC, method=Method(text="shared"))).run_keys(selected)["base"] == key, "it is the base's text"


def test_a_spec_that_an_earlier_version_kept_is_the_same_job() -> None:
    row = SPEC.as_json()
    del row["method"]
    assert Spec.from_json({**row, "granularity": "blocks"}) == replace(SPEC, method=Method("blocks"))
    assert Spec.from_json(row) == SPEC


def test_both_models_are_scored_on_one_text_against_its_counterparts(undisturbed: Path, tmp_path: Path) -> None:
    store = open_store(Path(shutil.copy(undisturbed, tmp_path / "store.duckdb")))
    method = Method(path="norm-exact", reference="patch", loss="margin", text="shared-tuned")
    spec = replace(SPEC, method=method, selection=Criteria(n=6))
    job = follow(store, store.queue.submit(spec.as_json()), silent)
    assert (job.status, job.message) == ("done", "")
    plan = _plan(spec)
    answers = {answer.question_id: answer for answer in store.rollouts.answers(plan.rollout_key("tuned"))}
    counterparts = {question.id: question.counterpart for question in plan.questions}
    row = next(row for row in store.comparisons.table().to_dict("records") if row["settings"].count("norm-exact"))
    for side in SIDES:
        found = store.runs.scores(row[f"{side}_run"])
        assert found.method.words == ["norms taken exactly", "against a counterpart", "margin as loss"]
        attributor, tokenizer = Models().load(plan.wanted(side), silent)
        made = []
        for name in found.ids:
            prompt, answer = answers[name].prompt_tokens, answers[name].tokens[: row["cut"]]
            other = tuple(tokenizer(f"<s>{counterparts[name]}", add_special_tokens=False).input_ids)
            made.append(Sample(name, prompt + answer, len(prompt), len(answer), other + answer))
        expected = attribute(attributor, made, method=method)
        np.testing.assert_allclose(found.edges, expected.edges, rtol=1e-3, atol=1e-5)
    store.close()


def test_other_counterparts_make_another_comparison_where_they_are_read() -> None:
    selection = SPEC.selections()[0]
    for method, alike in ((Method(), True), (Method(reference="patch"), False)):
        plan = _plan(replace(SPEC, method=method))
        first, *rest = plan.questions
        other = replace(plan, questions=[replace(first, counterpart="9+8="), *rest])
        assert first.counterpart != "9+8="
        assert (plan.comparison_key(selection) == other.comparison_key(selection)) is alike
        assert (plan.request_key(selection) == other.request_key(selection)) is alike


def test_a_text_that_is_not_there_is_asked_for_in_vain(undisturbed: Path, tmp_path: Path) -> None:
    plan, other = _plan(replace(SPEC, method=Method(reference="patch"))), _plan()
    answers = [Answer("add-0000", (1,) * 11, (2,) * 10, "", True)]
    selected = select(answers, answers, Criteria(Cut(0.3), n=1))
    assert texts(other, "base", answers, [selected])[0][1][0].counterpart is None
    ((_, (sample,)),) = texts(plan, "base", answers, [selected])
    assert sample.counterpart is not None and sample.counterpart[11:] == sample.input_ids[11:]
    short = [replace(answers[0], prompt_tokens=(1,) * 9)]
    with pytest.raises(QuestionError, match="has 9 tokens, and its counterpart's 11"):
        texts(plan, "base", short, [selected])
    bare = [replace(question, counterpart=None) for question in plan.questions]
    with pytest.raises(QuestionError, match="'add-0000' has no counterpart"):
        texts(replace(plan, questions=bare), "base", answers, [selected])
    with pytest.raises(QuestionError, match="'add-0000' has no counterpart"):
        check(replace(plan, questions=bare))
    with pytest.raises(QuestionError, match="whose answers were made elsewhere"):
        check(replace(plan, questions=[]))
    check(plan)
    reference = replace(plan, spec=replace(SPEC, method=Method(text="shared-reference")))
    ((_, (sample,)),) = texts(reference, "tuned", answers, [replace(selected, cut=3)])
    assert load_tokenizer(plan.checkpoints["base"]).decode(sample.scored) == "955"


def test_a_method_is_a_value_that_goes_into_keys_and_into_words() -> None:
    assert Method.from_json(Method("blocks").as_json()) == Method("blocks")
    assert Method.from_json({"granularity": "projections", "version": 1}) == Method(), "as earlier versions said it"
    first = {"model": "m", "method": {"granularity": "projections", "version": 1}}
    assert ground_key(first) == ground_key(first | {"method": Method().as_json()}), "nor did they name a reference"
    assert Method().words == []
    assert Method("blocks").words == ["attention blocks as one reader"]
    kept = {"method": "eap", "reference": "zero", "granularity": "projections", "version": 1}
    assert Method().as_json() == kept, "keys of stores out there are made of it"


def test_shipped_jobs_cover_every_pair_that_needs_nothing_more_the_default_cut_first() -> None:
    specs = shipped(load_registry())
    pairs = ("grpo", "ppo", "dpo", "sft-more", "seed", "seed3", "seed-2-3", "grpo-seed2")
    assert {(spec.pair, alpha) for spec in specs for alpha in spec.cuts} == {
        (pair, alpha) for pair in pairs for alpha in ALPHAS
    }
    assert all(spec.cuts == (Cut(0.3),) for spec in specs[: len(pairs)])


def test_a_job_that_names_no_pair_fails_with_the_sentence(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    job = follow(store, store.queue.submit(replace(SPEC, pair="nope").as_json()), silent)
    assert job.status == "failed"
    assert "There is no pair 'nope'" in job.message
    store.close()


# -- sudden deaths -----------------------------------------------------------------------------------------------------


def _worker(path: Path, parent: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "probing", "worker", "--store", str(path), "--parent", str(parent)]
    return subprocess.Popen(command, cwd=ROOT)


@cache
def _keys() -> tuple[list[str], str]:
    """Of the answers, and of the comparison."""
    plan, selection = _plan(), SPEC.selections()[0]
    return [plan.rollout_key(side) for side in SIDES], plan.comparison_key(selection)


def _progress(store: Store) -> tuple[int, int]:
    """Answers and scores in the store."""
    rollouts, comparison = _keys()
    answers = sum(len(store.rollouts.answered(key)) for key in rollouts)
    return answers, sum(len(store.runs.scored(run)) for run in store.comparisons.runs(comparison).values())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_loses_no_finished_batch_and_the_next_resumes(
    workers: int, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_WORKERS", str(workers))
    store = open_store(tmp_path / "store.duckdb")
    job = store.queue.submit(SPEC.as_json())
    kept = (0, 0)
    for enough in ((64, 0), (600, 0)):
        together = [_worker(store.path, os.getpid()) for _ in range(workers)]
        until(lambda enough=enough: _progress(store) >= enough)
        for worker in together:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        store.batches.ingest()
        assert _progress(store) >= max(kept, enough)
        kept = _progress(store)
    assert kept[0] < 1000, "the job was over before it was killed: the test tested nothing"
    assert store.queue.job(job).status == "running"
    assert follow(store, job, silent).status == "done"
    other = open_store(undisturbed)
    _same_results(store, other)
    other.close()
    store.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_owner_loses_no_finished_batch_and_the_next_resumes(
    workers: int, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_WORKERS", str(workers))
    path = tmp_path / "store.duckdb"
    program = (
        "import subprocess, sys, os, time\nfrom pathlib import Path\nfrom probing.store import open_store\n"
        "from probing.jobs.plan import Spec\nfrom probing.rollouts import DEFAULT_CUT, Criteria\n"
        f"store = open_store(Path({str(path)!r}))\nstore.queue.submit(Spec('grpo', 'addition', (DEFAULT_CUT,), "
        "Criteria(n=40)).as_json())\n"
        f"command = [sys.executable, '-m', 'probing', 'worker', '--store', {str(path)!r}, '--parent', str(os.getpid())]"
        f"\nworkers = [subprocess.Popen(command) for _ in range({workers})]\n"
        "print(*(worker.pid for worker in workers), flush=True)\ntime.sleep(120)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = owner.stdout.readline().split()
    watcher = open_store(path)
    until(lambda: _progress(watcher)[0] >= 256)
    seen = _progress(watcher)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert _progress(watcher) >= seen
    (job,) = watcher.queue.jobs()["job_id"]
    assert follow(watcher, int(job), silent).status == "done"
    other = open_store(undisturbed)
    _same_results(watcher, other)
    other.close()
    watcher.close()


def test_only_one_worker_works_at_a_time(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    first = place_of(store)
    assert first is not None
    assert place_of(store) is None
    first.close()
    second = place_of(store)
    assert second is not None
    second.close()
    store.close()


def test_a_gpu_is_waited_for_until_the_worker_that_has_it_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "gpu.lock"
    hold = "import sys, time; from pathlib import Path; from probing.store.files import try_lock\n"
    hold += "held = try_lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold, str(lock)], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said: list[str] = []

        def report(stage: str, done: int, total: int) -> None:
            said.append(stage)
            if len(said) == 3:
                holder.kill()
                holder.wait()

        wait_for_one([lock], report, pause=0.05)[1].close()
    assert said[:3] == ["waiting for the GPU"] * 3


def test_small_models_are_kept_beside_each_other_and_a_large_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    models, plan = Models(), _plan()
    base, tuned = (models.load(plan.wanted(side), silent) for side in SIDES)
    assert models.load(plan.wanted("base"), silent) is base
    torch.set_num_threads(2)  # as for a large model that was loaded in between
    assert models.load(plan.wanted("tuned"), silent) is tuned
    assert torch.get_num_threads() == 1, "a small model has one thread, whatever was loaded since"
    monkeypatch.setattr(loading, "SMALL", 1)
    models.load(plan.wanted("base", "bfloat16"), silent)
    left = [weakref.ref(attributor.model) for attributor, _ in (base, tuned)]
    del base, tuned
    gc.collect()
    assert [ref() for ref in left] == [None, None], "nothing stands beside a model that is not small"
    assert models.provenance()["dtype"] == "bfloat16", "that of the last"


def test_as_many_large_models_are_kept_as_one_wants_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    models, plan = Models(large=2), _plan()
    small = models.load(plan.wanted("base", "float64"), silent)
    monkeypatch.setattr(loading, "SMALL", 1)
    base, tuned = (models.load(plan.wanted(side), silent) for side in SIDES)
    for _ in range(2):
        assert models.load(plan.wanted("base"), silent) is base
        assert models.load(plan.wanted("tuned"), silent) is tuned
    assert len(models._loaded) == 2, "the first counts as large by now"
    assert small not in models._loaded.values()


def test_a_worker_that_rests_lets_its_model_go_and_loads_it_when_it_is_asked_again() -> None:
    models, plan = Models(), _plan()
    models.let_go()
    wanted = (plan.wanted("base"), silent)
    first = models.load(*wanted)
    assert models.load(*wanted) is first, "it is kept meanwhile"
    left = weakref.ref(first[0].model)
    assert models.provenance()["device"] == "cpu"
    del first
    models.let_go()
    assert left() is None
    assert models.provenance() == {}
    assert models.load(*wanted)[0].graph.layers == 6


def test_a_gpu_that_was_taken_for_a_model_that_did_not_load_is_left_to_others(tmp_path: Path) -> None:
    lock = tmp_path / "gpu.lock"
    models = Models(_gpus=dict([wait_for_one([lock], silent)]))
    models.let_go()
    other = try_lock(lock)
    assert other is not None
    other.close()


def test_a_worker_ends_when_there_is_nothing_to_do_and_when_its_parent_is_gone(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    started = time.monotonic()
    serve(store, parent=os.getppid(), idle=1.0, pause=0.05)
    assert 1.0 < time.monotonic() - started < 5.0
    serve(store, parent=1_000_000_000, pause=0.05)
    store.close()
