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
from probing.checkpoints import find
from probing.errors import TaskError
from probing.jobs import tasks
from probing.jobs.crew import Alone
from probing.jobs.forecast import forecast
from probing.jobs.job import Job
from probing.jobs.numerics import make_plan
from probing.jobs.plan import Plan, Spec, evaluation_key, make_request
from probing.jobs.shipped import is_done
from probing.jobs.tasks import Transplant
from probing.jobs.tasks.transplant import values_of
from probing.method import Method
from probing.models import answer, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.questions import encode, grade
from probing.report import evaluated
from probing.sequences import Sample
from probing.store import Store, open_store
from probing.store.records import Measurements
from probing.transplant.units import by_effect
from tests import literal

CPU = torch.device("cpu")
TASK = Transplant("weights", "into-base", samples=6)
SPEC = Spec("small", "few", (), also=(TASK,))
PARTS = ["input+logits", "a0", "m0", "a1", "m1", "a2", "m2"]
LAYERS = 3


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pair of what is left of two models that ship after their first layers, and questions that the tuned one
    answers right, whatever it says."""
    folder = tmp_path_factory.mktemp("pair")
    path = small_registry(folder, 24)
    text = path.read_text()
    for zoo in re.findall(r'"(/.*)"', text):
        model, cut = load_model(find(zoo), CPU, torch.float32), folder / Path(zoo).name
        model.model.layers = model.model.layers[:LAYERS]
        model.config.num_hidden_layers = LAYERS
        model.save_pretrained(cut)
        for file in Path(zoo).glob("tokenizer*"):
            (cut / file.name).write_bytes(file.read_bytes())
        text = text.replace(zoo, str(cut))
    path.write_text(f"{text}max_new_tokens = 3\n")
    rows = [json.loads(line) for line in (folder / "few.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(find(str(folder / "grpo")))
    said = answer(model, tokenizer, [encode(row["question"], tokenizer) for row in rows], 3)
    answered = zip(rows, said, strict=True)
    asked = [json.dumps({**row, "answer": text}) for row, (_, text) in answered if grade(text, text, "last-number")]
    (folder / "few.jsonl").write_text("\n".join(asked[:8]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBING_PAIRS", str(path))
        yield path


@pytest.fixture(scope="module")
def store(registry: Path) -> Iterator[Store]:
    """A store in which the job was stopped among its last steps, and done again."""
    opened = open_store(registry.with_name("store.duckdb"))

    def stop(stage: str, done: int, total: int) -> None:
        if "transplant" in stage and done >= total - 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Job(opened, Alone(), _plan(), stop).do()
    assert len(opened.evaluations.measured(_key(TASK))) == 2 + 7 + 2 * 6 - 3
    Job(opened, Alone(), _plan(), lambda *_: None).do()
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
    assert found.units[:9] == ("base", "tuned", *(f"weights:into-base:{part}" for part in PARTS))
    assert len(found.ids) == 6
    values = values_of(found)
    base, tuned = (load_model(plan.checkpoints[side], CPU, torch.float64) for side in ("base", "tuned"))
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
    assert abs(alone - values["base"]["loss"][1]) > 0.005 * alone
    answers = {side: {a.question_id: a.correct for a in store.rollouts.answers(plan.rollout_key(side))}
               for side in ("base", "tuned")}  # fmt: skip
    assert values["tuned"]["correct"].all()
    assert not values["base"]["correct"].all()
    for side in answers:
        assert values[side]["correct"].tolist() == [answers[side][question] for question in found.ids]
    for order in ("depth", "effect"):
        last = values[f"weights:into-base:{order}:7"]
        np.testing.assert_array_equal(last["correct"], values["tuned"]["correct"])
        np.testing.assert_allclose(last["loss"], values["tuned"]["loss"], rtol=1e-5)


def test_what_is_printed_has_parts_and_steps_in_their_orders(store: Store, capsys: pytest.CaptureFixture) -> None:
    lines = list(evaluated(store, "small", "few", []))
    said = [line for line in lines if line.startswith("By ")]
    assert [line.split(":")[0] for line in said] == ["By right answers, weights", "By the loss, weights"]
    assert all(line.endswith(".") and "taken out" not in line for line in said)
    firsts = [line.split(" | ")[0].removeprefix("| ") for line in lines if re.match(r"\| [ami]\w*\d|\| input", line)]
    order = by_effect("into-base", PARTS, values_of(_found(store)))
    assert order != PARTS
    assert firsts == [*PARTS, *PARTS, *order]
    command = ["transplant", "small", "--what", "weights", "--direction", "into-base", "--samples", "6"]
    command += ["--store", str(store.path)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n").split("\n") == lines[:-1]
    assert cli.main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["unit"] for row in rows] == list(_found(store).units)
    assert [row["parts"][-1] for row in rows if ":effect:" in row["unit"]] == order[1:]
    single = next(row for row in rows if row["unit"] == "weights:into-base:m1")
    assert 0.01 < single["moved"] < 0.04
    assert single["loss_change"]["value"] == pytest.approx(single["loss"] - rows[0]["loss"], rel=1e-5)


def test_all_that_decides_a_transplant_is_in_its_key(store: Store) -> None:
    others = [replace(TASK, **change) for change in (
        {"what": "activations"}, {"direction": "into-tuned"}, {"samples": 4}, {"seed": 1}, {"samples": 0},
    )]  # fmt: skip
    keys = {_key(task) for task in (TASK, *others)}
    keys.add(evaluation_key(TASK, _plan(replace(SPEC, method=Method("heads"))).case()))
    assert len(keys) == 7
    assert evaluation_key(TASK, _plan(replace(SPEC, method=Method("blocks"))).case()) == _key(TASK), "the same parts"
    assert len(TASK.drawn(48)) == len(set(TASK.drawn(48))) == 6
    assert TASK.drawn(2) == [0, 1]
    assert tasks.parse("transplant:what=activations") == (Transplant("activations"),)
    with pytest.raises(TaskError, match="Needed: weights or activations"):
        Transplant("biases")  # type: ignore[arg-type]


def test_a_transplant_is_done_for_the_models_and_parts_that_it_is_of(store: Store) -> None:
    request = make_request(SPEC, load_registry())
    assert is_done(store, request), "whatever device it was made on"
    tuned = replace(request.checkpoints["tuned"], identity="trained anew")
    assert not is_done(store, replace(request, checkpoints=request.checkpoints | {"tuned": tuned}))
    assert not is_done(store, replace(request, spec=replace(SPEC, method=Method("heads"))))


def test_activations_of_heads_are_measured_by_the_loss_alone(store: Store) -> None:
    task = Transplant("activations", "into-tuned", samples=2)
    spec = replace(SPEC, also=(task,), method=Method("heads"))
    (line,) = (line for line in forecast(spec, load_registry(), store).lines() if line.startswith("also"))
    assert "activations of base in tuned" in line
    Job(store, Alone(), _plan(spec), lambda *_: None).do()
    found = store.evaluations.values(evaluation_key(task, _plan(spec).case()))
    assert list(found.values) == ["loss"]
    assert "activations:into-tuned:a1.h3" in found.units
    (table,) = (line for line in evaluated(store, "small", "few", []) if "activations" in line and "One part" in line)
    assert table.startswith("One part of base in tuned, activations, 2 questions (base loss ")


def test_a_pair_that_cannot_exchange_parts_is_refused_in_a_sentence(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = registry.with_name("grpo")
    model = load_model(find(str(tuned)), CPU, torch.float32)
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    model.save_pretrained(tmp_path / "resized")
    for file in tuned.glob("tokenizer*"):
        (tmp_path / "resized" / file.name).write_bytes(file.read_bytes())
    other = registry.with_name("other.toml")
    other.write_text(registry.read_text().replace(str(tuned), str(tmp_path / "resized")))
    monkeypatch.setenv("PROBING_PAIRS", str(other))
    assert cli.main(["transplant", "small", "--store", str(tmp_path / "store.duckdb")]) == 2
    assert re.search(r"vocabulary of \d+ tokens and the tuned model one of \d+\.", capsys.readouterr().err)
