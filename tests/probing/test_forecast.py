"""The plan that is printed before anything is loaded."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from transformers import LlamaConfig

from probing import cli
from probing.cuts import Cut
from probing.errors import QuestionError
from probing.fitting import (
    ANSWERING,
    RUNNING,
    SCORING,
    Speed,
    Work,
    activation_bytes,
    answering,
    running,
    scoring,
)
from probing.jobs.forecast import forecast
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Numerics, Spec
from probing.jobs.tasks import Transplant
from probing.jobs.worker import follow
from probing.method import Method
from probing.pairs import load_registry
from probing.rollouts import Criteria
from probing.store import open_store
from probing.words import duration

SPEC = Spec("grpo", "addition", (Cut(0.1), Cut(0.3)), Criteria(n=20))
COMMAND = ["probe", "deepseek-math", "--questions", "math", "--alpha", "0.03", "0.1", "0.3", "0.5", "--dry-run"]


@pytest.fixture
def dry_run(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Types the command where the hub's cache and the store lie in a folder of the test's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PROBING_STORE", str(tmp_path / "store.duckdb"))

    def run() -> list[str]:
        code = cli.main(COMMAND)
        out, err = capsys.readouterr()
        assert code == 0, err
        assert not (tmp_path / "store.duckdb").exists(), "planning makes no store"
        return out.splitlines()

    return run


def test_without_a_network_the_published_shape_stands_in_and_that_is_said(dry_run: Callable[[], list[str]]) -> None:
    lines = dry_run()
    assert lines[0] == ("deepseek-math: deepseek-ai/deepseek-math-7b-instruct → deepseek-ai/deepseek-math-7b-rl (GRPO)")
    assert all("6.91 billion parameters, 30 layers, 3,691 edges" in line for line in lines[1:3])
    assert all("Its published shape is taken" in line for line in lines[1:3])
    assert "5,000 questions, answers of at most 4,096 tokens" in lines[3]
    assert sum("to be scored in batches of" in line for line in lines) == 8
    assert any("one set of answers serves all 4 cuts" in line for line in lines)


def test_configs_from_the_hub_suffice_for_sizes_and_keys_need_no_weights(
    tmp_path: Path, dry_run: Callable[[], list[str]]
) -> None:
    """A cache as the hub's client lays it out, with a config and not one byte of weights."""
    commits = {"deepseek-math-7b-instruct": "a" * 40, "deepseek-math-7b-rl": "b" * 40}
    for name, commit in commits.items():
        repo = tmp_path / "hub" / f"models--deepseek-ai--{name}"
        LlamaConfig(
            hidden_size=512, intermediate_size=1024, num_hidden_layers=7, num_attention_heads=8
        ).save_pretrained(repo / "snapshots" / commit)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(commit)
    data = tmp_path / "hub" / "datasets--EleutherAI--hendrycks_math"
    (data / "snapshots" / ("c" * 40) / "algebra").mkdir(parents=True)
    (data / "refs").mkdir()
    (data / "refs" / "main").write_text("c" * 40)
    pd.DataFrame({"problem": ["1+1?"] * 7, "solution": [r"$\boxed{2}$"] * 7}).to_parquet(
        data / "snapshots" / ("c" * 40) / "algebra" / "test-0.parquet"
    )
    lines = dry_run()
    assert "7 layers, 218 edges" in lines[1]
    assert f"hub:deepseek-ai/deepseek-math-7b-instruct@{'a' * 40}" in lines[1]
    assert "MATH: 7 questions" in lines[3]
    assert sum(line.endswith("]") for line in lines) == 10, "a key for each answer and each run"


def test_what_has_been_computed_is_said_with_the_keys_of_the_job(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    before = list(forecast(SPEC, load_registry(), store).lines())
    assert not any("already computed" in line for line in before)
    job = follow(store, store.queue.submit(replace(SPEC, cuts=(Cut(0.3),)).as_json()), lambda *_: None)
    assert job.status == "done"
    after = list(forecast(SPEC, load_registry(), store).lines())
    plan = make_plan(SPEC, load_registry())
    runs = store.comparisons.runs(plan.comparison_key(SPEC.selections()[1]))
    for side in SIDES:
        assert f"answers    {side}: already computed [{plan.rollout_key(side)}]" in after
        assert f"α 0.3      {side}: already computed [{runs[side]}]" in after
    assert sum("to be scored" in line for line in after) == 2
    store.close()


def test_prompts_are_measured_with_the_models_own_tokenizer() -> None:
    # a long one is as "12345+67890=": twelve characters, each a token of the zoo's, behind its beginning
    assert forecast(SPEC, load_registry(), None).prompt == 13
    registry = load_registry()
    chats = registry.pairs["grpo"].model_copy(update={"template": "chat"})
    with pytest.raises(QuestionError, match="has no chat template"):
        forecast(SPEC, registry.model_copy(update={"pairs": registry.pairs | {"grpo": chats}}), None)


def test_times_by_hand() -> None:
    shape = load_registry().pair("mistral").shape
    assert shape is not None
    assert Work(1e12, 1e11, 1e5).seconds(Speed(1e12, 1e11, 1e-5), Work(2, 3, 4)) == pytest.approx(2 + 3 + 4)
    p, layers, width = shape.parameters, 32, 4096
    # Ten questions in batches of 4 are three rounds, each of 50 steps and the reading of prompts.
    work = answering(shape, 10, 100, 50, 4, 2)
    attention = 4 * layers * width  # with each token before
    assert work.operations == pytest.approx(10 * (100 * (2 * p + attention * 100) + 50 * (2 * p + attention * 125)))
    kept = 2 * layers * 8 * 128 * 125 * 2 + 8 * 32000  # of an answer in its middle
    assert work.bytes == pytest.approx(50 * (3 * 2 * p + 3 * 10 * kept))
    assert work.calls == 51 * 3 * layers
    work = running(shape, 30, 200, 4, 2)
    assert work.operations == pytest.approx(30 * 200 * (2 * p + attention * 200))
    assert (work.bytes, work.calls) == (30 * 200 * 2 * layers * (10 * width + 4 * 14336), 8 * layers)
    work = scoring(shape, 8, 200, 50, 3)
    products = 2 * 65 * 129 * width
    assert work.operations == pytest.approx(8 * 200 * (4 * p + 3 * attention * 200 + products))
    assert (work.bytes, work.calls) == (8 * activation_bytes(shape, 200, 50), 3 * layers)
    heads, groups = shape.heads, shape.kv_heads
    writers, readers = layers * (heads + 1) + 1, layers * (heads + 2 * groups + 1) + 1
    again = 2 * layers * heads * shape.head_width * width * math.ceil((readers - 1) / 144)
    products = 2 * writers * readers * width + again
    work = scoring(shape, 8, 200, 50, 3, by_heads=True)
    assert work.operations == pytest.approx(8 * 200 * (4 * p + 3 * attention * 200 + products))
    assert [duration(s) for s in (3, 119, 121, 7300, 200_000, 9e9)] == [
        "3 seconds", "119 seconds", "2 minutes", "2 hours", "2 days", "285 years",
    ]  # fmt: skip


def test_a_method_that_removes_each_edge_says_so_and_runs_the_model_without_each() -> None:
    there = forecast(replace(SPEC, cuts=(Cut(0.3),)), load_registry(), None)
    slow = replace(there, numerics=Numerics("cpu", "float32", "float32", "eager"), speed=Speed(1e6, 1e30, 0))
    exact = replace(slow, spec=replace(slow.spec, method=Method(path="exact")))
    lines = [next(line for line in each.lines() if line.startswith("α 0.3")) for each in (slow, exact)]
    assert "method     each edge really removed" in [*exact.lines()]
    assert "to be scored in batches of" in lines[0]
    assert "20 questions of at most 22 tokens to be run without each of 163 edges in batches of" in lines[1]
    weights, attention = 666_336, 4 * 6 * 96 * 22  # 6 layers, 96 numbers wide
    once = SCORING.operations * 20 * 22 * (4 * weights + 3 * attention + 2 * 13 * 25 * 96) / 1e6
    assert f"at most {duration(once)}" in lines[0]
    without = RUNNING.operations * 20 * 22 * 164 * (2 * weights + attention) / 1e6
    assert f"at most {duration(without)}" in lines[1], "163 passes forward, and one more"
    assert without > 2 * 3600


def test_models_that_exchange_parts_answer_in_the_dtype_of_scores() -> None:
    there = forecast(replace(SPEC, cuts=(), also=(Transplant(samples=1),)), load_registry(), None)
    slow = replace(there, numerics=Numerics("cpu", "bfloat16", "float32", "eager"), speed=Speed(1e30, 1e3, 0))
    shape = slow.models["base"].shape
    assert shape is not None
    (line,) = (line for line in slow.lines() if line.startswith("also"))
    # 42 answers of 32 tokens in one batch read 666,336 weights 32 times, at 4 bytes each and 1,000 bytes a second, and
    # three times what is kept in the middle of an answer: keys and values of 13 + 16 tokens, and logits. 42 passes over
    # 45 tokens write what layers make of them.
    kept = 4 * 2 * shape.layers * shape.kv_heads * shape.head_width * 29 + 8 * shape.vocabulary
    passes = RUNNING.bytes * 42 * 45 * 4 * 6 * (10 * 96 + 4 * shape.mlp) / 1e3
    seconds = passes + ANSWERING.bytes * 32 * (666_336 * 4 + 3 * 42 * kept) / 1e3
    assert f"42 answers, both models at once, 5.33 MB of weights, at most {duration(seconds)}" in line


def test_a_file_of_questions_that_is_wrong_is_not_planned_around(tmp_path: Path) -> None:
    registry = load_registry()
    missing = registry.questions["addition"].model_copy(update={"file": tmp_path / "none.jsonl"})
    broken = registry.model_copy(update={"questions": registry.questions | {"addition": missing}})
    with pytest.raises(QuestionError, match="Cannot read"):
        forecast(SPEC, broken, None)
