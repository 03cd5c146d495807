"""The callback in real trainings: GRPO of the base that ships, of a few steps of a few seconds."""

import json
import logging
import random
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from probing.attribution import Attributor
from probing.callback import CircuitCallback, _undisturbed
from probing.checkpoints import find
from probing.errors import PersonError
from probing.jobs.places import place_of
from probing.jobs.plan import Spec
from probing.jobs.worker import Worker
from probing.models import answer, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.scoring import attribute
from probing.sequences import Sample
from probing.store import Store, open_store
from probing.store.records import Subject
from probing.zoo import task

QUESTIONS = 8
TOKENS = 8


@pytest.fixture(scope="module")
def questions(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = (zoo.parent / "questions" / "addition.jsonl").read_text().splitlines(keepends=True)[:QUESTIONS]
    file = tmp_path_factory.mktemp("questions") / "few.jsonl"
    file.write_text("".join(lines))
    return file


def train(
    base: Path,
    folder: Path,
    callbacks: list[TrainerCallback],
    steps: int,
    resume: bool = False,
    peft_config: Any = None,
    **settings: Any,
) -> torch.nn.Module:
    """A short GRPO run as a person would write it."""
    problems = task.problems(seed=5)
    rows = [{"prompt": p.question, "answer": p.answer} for p, _ in zip(problems, range(64), strict=False)]

    def right(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [task.reward(c, a) for c, a in zip(completions, answer, strict=True)]

    config = {
        "max_steps": steps, "per_device_train_batch_size": 16, "num_generations": 8, "max_completion_length": 24,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "seed": 4, "use_cpu": True, "bf16": False,
        "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "gradient_checkpointing": False,
    }  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        reward_funcs=right,
        args=GRPOConfig(output_dir=str(folder), **{**config, **settings}),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(base),
        callbacks=callbacks,
        peft_config=peft_config,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model


def asked(questions: Path, **settings: Any) -> CircuitCallback:
    how = {"every": 2, "grading": "last-number", "max_new_tokens": 24, "tokens": TOKENS}
    return CircuitCallback("My run", questions, **{**how, **settings})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROBING_STORE", str(tmp_path / "store.duckdb"))
    return tmp_path


def newest(store: Store) -> pd.Series:
    return store.comparisons.table().query("ready").iloc[0]


def sides(store: Store) -> list[str]:
    return list(store.comparisons.steps(newest(store)["comparison_key"])["side"])


@pytest.fixture
def store(here: Path) -> Iterator[Store]:
    opened = open_store()
    yield opened
    opened.close()


def independently(folder: Path, base: Path, questions: Path) -> tuple[np.ndarray, int]:
    """The scores of a checkpoint on what the base answers, and how many answers of its own are right; without a job."""
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    tokenizer = load_tokenizer(find(str(base)))
    prompts = [tuple(tokenizer(row["question"])["input_ids"]) for row in rows]
    models = [load_model(find(str(place)), torch.device("cpu"), torch.float32) for place in (base, folder)]
    said, own = (answer(model, tokenizer, prompts, 24) for model in models)
    samples = [
        Sample(row["id"], prompt + tokens[:TOKENS], len(prompt), len(tokens[:TOKENS]))
        for row, prompt, (tokens, _) in zip(rows, prompts, said, strict=True)
    ]
    right = sum(task.reward(text, row["answer"]) for row, (_, text) in zip(rows, own, strict=True))
    return attribute(Attributor(models[1]), samples).edges, int(right)


def test_a_training_fills_its_timeline_with_what_scoring_its_checkpoints_gives(
    here: Path, zoo: Path, questions: Path, store: Store
) -> None:
    bare = train(zoo / "base", here / "bare", [], 3)
    callback = asked(questions, keep=True)
    scored = train(zoo / "base", here / "run", [callback], 3)
    for (name, one), other in zip(bare.named_parameters(), scored.parameters(), strict=True):
        assert torch.equal(one, other), f"{name}: the training went as it would have without"

    row = newest(store)
    runs = store.comparisons.runs(row["comparison_key"])
    steps = store.comparisons.steps(row["comparison_key"]).set_index("side")
    assert list(steps.index) == ["step-000000", "step-000002", "step-000003"]
    assert runs["step-000003"] == runs["tuned"]
    for side in ("step-000000", "step-000003"):
        edges, right = independently(here / "run" / "circuits" / side, zoo / "base", questions)
        np.testing.assert_allclose(store.runs.scores(runs[side]).edges, edges, rtol=1e-4, atol=1e-7)
        assert (steps.loc[side, "correct"], steps.loc[side, "asked"]) == (right, QUESTIONS)
    assert len({store.runs.scores(run).edges.tobytes() for run in runs.values()}) == 3, "the start is the base"
    assert store.runs.table()["run_key"].nunique() == 4, "nothing is scored twice"
    assert len(store.comparisons.table()) == 1, "earlier steps' comparisons are gone"
    metrics = store.summaries.metrics()
    assert set(metrics["comparison_key"]) == {row["comparison_key"]}
    assert set(callback.seconds) == {0, 2, 3}

    pair = load_registry().pair("my-run")
    assert (pair.algorithm, pair.kind, pair.tuned) == ("GRPO", "online RL", pair.steps[3])


def test_a_training_that_goes_on_goes_on_with_its_timeline(
    here: Path, zoo: Path, questions: Path, store: Store
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1}
    store.queue.submit(Spec("grpo", "addition").as_json())  # waits for a worker that never comes
    train(zoo / "base", here / "run", [asked(questions, every=1)], 1, **saving)
    assert sides(store) == ["step-000000", "step-000001"]
    first = newest(store)["comparison_key"]
    before, keys = store.comparisons.runs(first), set(store.runs.table()["run_key"])
    subject = Subject("my-run", "my-run-questions", first, "tuned")
    store.evaluations.start("more", "ablation", subject, {}, ["input->logits"], ["add-0000"])

    train(zoo / "base", here / "run", [asked(questions, every=1)], 2, resume=True, **saving)
    assert sides(store) == ["step-000000", "step-000001", "step-000002"]
    after = store.comparisons.runs(newest(store)["comparison_key"])
    assert before.items() - {("tuned", before["tuned"])} <= after.items()
    assert set(store.runs.table()["run_key"]) == keys | {after["step-000002"]}, "one step is new"
    kept = [folder.name for folder in (here / "run" / "circuits").iterdir()]
    assert kept == ["step-000002"], "the weights of the latest step alone"
    assert list(store.comparisons.table()["comparison_key"])[1:] == [first], "of which more was measured"

    train(zoo / "base", here / "run", [asked(questions)], 1)
    assert sides(store) == ["step-000000", "step-000001"], "a new training of the name takes the place of the old"


class Trouble(TrainerCallback):
    """Something is in the way at a step, and gone at the next."""

    def __init__(self, places: dict[int, Path]) -> None:
        self.places = places

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step + 1
        if (place := self.places.get(step - 1)) is not None:
            place.unlink()
        if (place := self.places.get(step)) is not None:
            shutil.rmtree(place, ignore_errors=True)
            place.write_text("no folder")


def test_what_goes_wrong_is_said_and_training_goes_on(
    here: Path, zoo: Path, questions: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = Trouble({1: here / "run" / "circuits", 2: store.spool.folder})
    with caplog.at_level(logging.WARNING, "probing"):
        train(zoo / "base", here / "run", [trouble, asked(questions, every=1)], 3)
    said = [record.message for record in caplog.records if record.name == "probing.callback"]
    assert [message.partition(":")[0] for message in said] == [
        f"Step {step} is not scored, and training goes on" for step in (1, 2)
    ]
    assert sides(store) == ["step-000000", "step-000002", "step-000003"], "what was saved is scored with the next"


def test_a_worker_scores_what_training_queues(here: Path, zoo: Path, questions: Path, store: Store) -> None:
    train(zoo / "base", here / "run", [asked(questions, queue=True)], 1)
    place = place_of(store)
    assert place is not None
    with place:  # somebody else is at work: training does not wait
        train(zoo / "base", here / "run", [asked(questions, every=1)], 2)
    assert store.comparisons.table().empty
    worker = Worker(store)
    while worker.work():
        pass
    assert list(store.queue.jobs()["status"]) == ["done"]
    assert sides(store) == ["step-000000", "step-000001", "step-000002"]


def test_what_cannot_be_scored_is_refused_before_training_begins(here: Path, zoo: Path, questions: Path) -> None:
    for wrong, said in (
        ({"grading": None}, "it must be known how to grade"),
        ({"base": str(here / "nowhere")}, "There is no folder"),
    ):
        with pytest.raises(PersonError, match=said):
            train(zoo / "base", here / "run", [asked(questions, **wrong)], 1)
    with pytest.raises(PersonError, match="every 0 steps"):
        asked(questions, every=0)


def test_an_adapter_is_scored_on_its_base(here: Path, zoo: Path, questions: Path, store: Store) -> None:
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    with chdir(zoo.parent):  # the adapter's base is named by a path relative to where training ran
        train(Path("zoo/base"), here / "run", [asked(questions, every=1)], 1, peft_config=config)
    assert sides(store) == ["step-000000", "step-000001"]
    runs = store.comparisons.runs(newest(store)["comparison_key"])
    edges, _ = independently(here / "run" / "circuits" / "step-000001", zoo / "base", questions)
    np.testing.assert_allclose(store.runs.scores(runs["step-000001"]).edges, edges, rtol=1e-4, atol=1e-7)
    base, start, end = (store.runs.scores(runs[side]).edges for side in ("base", "step-000000", "step-000001"))
    assert np.array_equal(base, start)
    assert not np.array_equal(start, end)


def test_scoring_leaves_the_trainings_luck_and_threads_alone() -> None:
    def drawn() -> tuple[Any, ...]:
        return torch.get_num_threads(), random.random(), float(np.random.rand()), float(torch.rand(()))

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = drawn()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    with _undisturbed():
        torch.set_num_threads(2)
        drawn()
    assert drawn() == expected
