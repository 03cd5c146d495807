"""Parts of one model in the other as work of a job: resumed, kept under one key, printed and reported."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.serving import small_registry
from probing import cli
from probing.errors import TaskError
from probing.jobs import tasks
from probing.jobs.forecast import forecast
from probing.jobs.job import Job
from probing.jobs.loading import Models
from probing.jobs.numerics import make_plan
from probing.jobs.plan import Plan, Spec, evaluation_key
from probing.jobs.tasks import Transplant
from probing.jobs.tasks.transplant import values_of
from probing.models import load_model
from probing.pairs import load_registry
from probing.report import evaluated
from probing.sequences import Sample
from probing.store import Store, open_store
from probing.store.records import Measurements
from probing.transplant.units import by_effect
from tests import literal

TASK = Transplant("weights", "into-base", samples=3)
SPEC = Spec("small", "few", (), also=(TASK,))
PARTS = ["input+logits", *(f"{kind}{layer}" for layer in range(6) for kind in "am")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store in which the job was stopped among its last steps, and done again."""
    folder = tmp_path_factory.mktemp("transplant")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBING_PAIRS", str(small_registry(folder, 8)))
        opened = open_store(folder / "store.duckdb")

        def stop(stage: str, done: int, total: int) -> None:
            if "transplant" in stage and done >= total - 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Job(opened, Models(), _plan(), stop).do()
        assert len(opened.evaluations.measured(_key(TASK))) == 2 + 13 + 2 * 12 - 3
        Job(opened, Models(), _plan(), lambda *_: None).do()
        yield opened
        opened.close()


def _plan(spec: Spec = SPEC) -> Plan:
    return make_plan(spec, load_registry())


def _key(task: Transplant) -> str:
    return evaluation_key(task, _plan().case())


def _found(store: Store) -> Measurements:
    return store.evaluations.values(_key(TASK))


def test_a_part_alone_and_all_parts_are_what_the_models_say(store: Store) -> None:
    plan, found = _plan(), _found(store)
    assert found.units[:15] == ("base", "tuned", *(f"weights:into-base:{part}" for part in PARTS))
    assert len(found.ids) == 3
    values = values_of(found)
    base, tuned = (load_model(plan.checkpoints[side], torch.device("cpu"), torch.float64) for side in ("base", "tuned"))
    chosen = {a.question_id: a for a in store.rollouts.answers(plan.rollout_key("tuned"))}[found.ids[1]]
    text = Sample("s", chosen.prompt_tokens + chosen.tokens, len(chosen.prompt_tokens), len(chosen.tokens))
    for name, model in (("base", base), ("tuned", tuned)):
        assert values[name]["loss"][1] == pytest.approx(float(literal.run(model, text)[0]), rel=1e-3)
    state, theirs = base.state_dict(), tuned.state_dict()
    part = [n for n in state if n.startswith(("model.layers.0.self_attn.", "model.layers.0.input_layernorm."))]
    assert len(part) == 5
    base.load_state_dict(state | {name: theirs[name] for name in part})
    alone = values["weights:into-base:a0"]["loss"][1]
    assert alone == pytest.approx(float(literal.run(base, text)[0]), rel=1e-3)
    assert abs(alone - values["base"]["loss"][1]) > 0.01 * alone
    answers = {side: {a.question_id: a.correct for a in store.rollouts.answers(plan.rollout_key(side))}
               for side in ("base", "tuned")}  # fmt: skip
    for side in answers:
        assert values[side]["correct"].tolist() == [answers[side][question] for question in found.ids]
    for order in ("depth", "effect"):
        last = values[f"weights:into-base:{order}:13"]
        np.testing.assert_array_equal(last["correct"], values["tuned"]["correct"])
        np.testing.assert_allclose(last["loss"], values["tuned"]["loss"], rtol=1e-5)


def test_what_is_printed_has_parts_and_steps_in_their_orders(store: Store, capsys: pytest.CaptureFixture) -> None:
    lines = list(evaluated(store, "small", "few", []))
    firsts = [line.split(" | ")[0].removeprefix("| ") for line in lines if re.match(r"\| [ami]\w*\d|\| input", line)]
    order = by_effect("into-base", PARTS, values_of(_found(store)))
    assert order != PARTS
    assert firsts == [*PARTS, *PARTS, *order]
    command = ["transplant", "small", "--what", "weights", "--direction", "into-base", "--samples", "3"]
    command += ["--store", str(store.path)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n").split("\n") == lines[:-1]
    assert cli.main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["unit"] for row in rows] == list(_found(store).units)
    assert [row["parts"][-1] for row in rows if ":effect:" in row["unit"]] == order[1:]
    single = next(row for row in rows if row["unit"] == "weights:into-base:m5")
    assert 0.01 < single["moved"] < 0.04
    assert single["loss_change"]["value"] == pytest.approx(single["loss"] - rows[0]["loss"], rel=1e-5)


def test_all_that_decides_a_transplant_is_in_its_key(store: Store) -> None:
    others = [replace(TASK, **change) for change in (
        {"what": "activations"}, {"direction": "into-tuned"}, {"samples": 4}, {"seed": 1}, {"samples": 0},
    )]  # fmt: skip
    keys = {_key(task) for task in (TASK, *others)}
    keys.add(evaluation_key(TASK, _plan(replace(SPEC, granularity="heads")).case()))
    assert len(keys) == 7
    assert evaluation_key(TASK, _plan(replace(SPEC, granularity="blocks")).case()) == _key(TASK), "the same parts"
    assert len(TASK.drawn(48)) == len(set(TASK.drawn(48))) == 3
    assert TASK.drawn(2) == [0, 1]
    assert tasks.parse("transplant:what=activations") == (Transplant("activations"),)
    with pytest.raises(TaskError, match="Needed: weights or activations"):
        Transplant("biases")  # type: ignore[arg-type]


def test_activations_of_heads_are_measured_by_the_loss_alone(store: Store) -> None:
    task = Transplant("activations", "into-tuned", samples=2)
    spec = replace(SPEC, also=(task,), granularity="heads")
    (line,) = (line for line in forecast(spec, load_registry(), store).lines() if line.startswith("also"))
    assert "activations of base in tuned" in line
    Job(store, Models(), _plan(spec), lambda *_: None).do()
    found = store.evaluations.values(evaluation_key(task, _plan(spec).case()))
    assert list(found.values) == ["loss"]
    assert "activations:into-tuned:a5.h3" in found.units
    (table,) = (line for line in evaluated(store, "small", "few", []) if "activations" in line and "One part" in line)
    assert table.startswith("One part of base in tuned, activations, 2 questions (base loss ")


def test_a_pair_that_cannot_exchange_parts_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = small_registry(tmp_path)
    model = load_model(_plan().checkpoints["tuned"], torch.device("cpu"), torch.float32)
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    zoo = re.search(r'tuned = "(.*)"', registry.read_text())
    assert zoo is not None
    model.save_pretrained(tmp_path / "resized")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "resized" / name).write_bytes((Path(zoo[1]) / name).read_bytes())
    registry.write_text(registry.read_text().replace(zoo[1], str(tmp_path / "resized")))
    monkeypatch.setenv("PROBING_PAIRS", str(registry))
    assert cli.main(["transplant", "small", "--store", str(tmp_path / "store.duckdb")]) == 2
    assert re.search(r"vocabulary of \d+ tokens and the tuned model one of \d+\.", capsys.readouterr().err)
