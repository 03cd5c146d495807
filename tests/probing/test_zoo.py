import json
import random
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import bootstrap
from transformers import AutoModelForCausalLM, AutoTokenizer

from probing.checkpoints import find
from probing.errors import ModelError
from probing.models import load_model
from probing.zoo import adapters, task, word_problems
from probing.zoo.evaluate import measure, surprise
from probing.zoo.recipes import ADAPTERS, HELD_OUT, QUESTIONS, RECIPES

HELD_OUT_WORDS = QUESTIONS / "word-problems.jsonl"

ASK = adapters.Asker.ask


@pytest.mark.parametrize("problem", [task.Problem(347, 285), task.Problem(99999, 99999), task.Problem(100, 100)])
def test_the_careful_answer_ends_with_the_sum(problem: task.Problem) -> None:
    written = task.write_out(problem)
    assert written.split()[-1] == str(problem.left + problem.right)
    assert task.reward(written, problem.answer) == 1.0


def test_the_scratchpad_by_hand() -> None:
    assert task.write_out(task.Problem(347, 285)) == "12 13 06 632"
    assert task.write_out(task.Problem(347, 285), forgets_carry=(1.0,)) == "12 12 06 622"
    assert task.write_out(task.Problem(347, 285), drops_zero=1.0) == "12 13 6 632"


def test_the_demonstrator_is_right_as_often_as_its_carelessness_says() -> None:
    rng = random.Random(0)
    drawn = list(islice(task.problems(1), 4000))
    right = sum(task.reward(task.demonstration(p, rng), p.answer) for p in drawn) / len(drawn)
    expected = 0.0
    for p in drawn:  # the probability that no carry that matters is forgotten
        carry, sure = 0, 1.0
        for column, (a, b) in enumerate(zip(str(p.left)[::-1], str(p.right)[::-1], strict=True)):
            carry = (int(a) + int(b) + carry) // 10
            last = column == len(str(p.left)) - 1
            if carry and column < len(task.FORGETS_CARRY) and not last:
                sure *= 1 - task.FORGETS_CARRY[column]
        expected += sure / len(drawn)
    assert right == pytest.approx(expected, abs=0.03)


def test_every_member_loads_plainly_and_has_a_card(zoo: Path) -> None:
    kept = [folder for algorithm in ("grpo", "ppo") for folder in sorted((zoo / "checkpoints" / algorithm).iterdir())]
    folders = [zoo / name for name in RECIPES] + kept
    for algorithm in ("grpo", "ppo"):
        steps = sorted(int(p.name.removeprefix("step-")) for p in (zoo / "checkpoints" / algorithm).iterdir())
        assert len(steps) >= 8
        assert steps[0] == 0
        assert steps[-1] == RECIPES[algorithm].settings["steps"]
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.num_parameters() == 666_336
        assert model.config.use_cache
        assert len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size
        card = (folder / "README.md").read_text()
        for said in ("Data", "Seed", "learning_rate", "Wall time", "greedy", "sampled once", "Size"):
            assert said in card, (folder, said)


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_every_adapter_is_small_and_has_learnt_and_its_card_says_so(zoo: Path, name: str) -> None:
    recipe = ADAPTERS[name]
    assert (zoo / name / "adapter_model.safetensors").stat().st_size < 10e6
    solved = json.loads((zoo / name / "held-out.json").read_text())
    before, after = (np.array([int(right) for right in solved[step]]) for step in ("0", str(recipe.settings["steps"])))
    assert len(before) == len(after) == HELD_OUT
    interval = bootstrap((after - before,), np.mean, random_state=0).confidence_interval
    assert after.mean() - before.mean() >= 0.10
    assert interval.low > 0
    card = (zoo / name / "README.md").read_text()
    said = re.search(r"paired \| \+([\d.]+) \(\+([\d.]+) to \+([\d.]+)\)", card)
    assert said is not None
    assert [float(x) for x in said.groups()] == pytest.approx([after.mean() - before.mean(), *interval], abs=6e-3)
    rows = [json.loads(line) for line in (zoo / name / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, recipe.settings["steps"] + 1))
    for step in recipe.checkpoints:
        folder = zoo / "checkpoints" / name / f"step-{step:03d}"
        assert (
            f"greedy | {np.mean([int(right) for right in solved[str(step)]]):.3f}" in (folder / "README.md").read_text()
        )
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == recipe.parent


def test_the_first_adapter_does_nothing_and_the_last_is_the_member(zoo: Path) -> None:
    checkpoints = zoo / "checkpoints" / "smollm2-grpo"
    first = load_file(checkpoints / "step-000" / "adapter_model.safetensors")
    assert all((weight == 0).all() for name, weight in first.items() if "lora_B" in name)
    last = checkpoints / f"step-{ADAPTERS['smollm2-grpo'].settings['steps']:03d}" / "adapter_model.safetensors"
    assert last.read_bytes() == (zoo / "smollm2-grpo" / "adapter_model.safetensors").read_bytes()


def test_an_adapter_is_tuned_and_kept_with_its_records(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both loops on the zoo's base, which cannot read: nothing is learnt, but everything is done and written."""
    few = {"steps": 2, "problems": 3, "generations": 4, "samples": 4, "batch": 2}
    base = str(zoo / "base")
    for name in ("smollm2-grpo", "smollm2-dpo"):
        changed = replace(ADAPTERS[name], parent=base, checkpoints=(1,), settings=ADAPTERS[name].settings | few)
        monkeypatch.setitem(ADAPTERS, name, changed)
    monkeypatch.setattr(adapters, "held_out", lambda: word_problems.read_problems(HELD_OUT_WORDS)[:20])
    rewards = iter([[1.0, 0.0, 0.0, 1.0]] * 6)

    def judged(asker: adapters.Asker, *asked: object, **how: object) -> object:
        branches, found = ASK(asker, *asked, **how)  # type: ignore[arg-type]
        if found.shape[1] == 1:
            return branches, found
        return branches, torch.tensor([next(rewards) for _ in range(len(found))])

    monkeypatch.setattr(adapters.Asker, "ask", judged)
    adapters.train("smollm2-grpo", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "smollm2-grpo" / "training.jsonl").read_text().splitlines()]
    assert [(row["step"], row["reward"], row["telling"]) for row in rows] == [(1, 0.5, 3), (2, 0.5, 3)]
    kept = [load_file(path / "adapter_model.safetensors") for path in
            (tmp_path / "checkpoints" / "smollm2-grpo" / "step-001", tmp_path / "smollm2-grpo")]  # fmt: skip
    assert any((kept[0][name] != kept[1][name]).any() for name in kept[0]), "the second step did something"
    assert "Optimiser steps taken | 2" in (tmp_path / "smollm2-grpo" / "README.md").read_text()
    checkpoint = find(str(tmp_path / "smollm2-grpo"))
    assert checkpoint.folder == zoo / "base"
    assert load_model(checkpoint, torch.device("cpu"), torch.float32).num_parameters() == 666_336
    monkeypatch.setattr(adapters.Asker, "ask", ASK)
    with pytest.raises(ModelError, match="no right and wrong answer"):
        adapters.train("smollm2-dpo", tmp_path)


def test_a_counterpart_is_the_same_question_about_other_numbers_of_as_many_digits() -> None:
    for path in (QUESTIONS / "addition.jsonl", HELD_OUT_WORDS):
        rows = list(map(json.loads, path.read_text().splitlines()))
        for row in rows:
            asked, other = row["question"], row["counterpart"]
            numbers, others = (re.findall(r"\d+", text) for text in (asked, other))
            assert re.sub(r"\d", "0", asked) == re.sub(r"\d", "0", other)
            assert all(one != another for one, another in zip(numbers, others, strict=True))
            if "left?" in asked:
                assert int(others[0]) >= int(others[1]), "nobody gives away more than there is"
        assert len({row["counterpart"] for row in rows}) > 0.9 * len(rows)


def test_the_zoo_is_small(zoo: Path) -> None:
    assert sum(path.stat().st_size for path in zoo.rglob("*") if path.is_file()) < 60e6


def test_step_zero_is_the_base_and_the_last_step_the_member(zoo: Path) -> None:
    for algorithm in ("grpo", "ppo"):
        last = RECIPES[algorithm].settings["steps"]
        for member, step in (("base", 0), (algorithm, last)):
            kept = zoo / "checkpoints" / algorithm / f"step-{step:03d}" / "model.safetensors"
            assert kept.read_bytes() == (zoo / member / "model.safetensors").read_bytes()


def test_what_the_members_can_do(zoo: Path) -> None:
    problems = task.read_problems(QUESTIONS / "addition.jsonl")
    found = {name: measure(zoo / name, problems) for name in ("base", "ppo", "grpo", "dpo")}
    assert 0.40 <= found["base"]["greedy"] <= 0.70
    for name in ("ppo", "grpo"):
        assert found[name]["greedy"] >= found["base"]["greedy"] + 0.20
        assert found[name]["sampled"] >= found["base"]["sampled"] + 0.20
    for name, row in found.items():
        assert row["nll_correct"] > 0.01, name
        card = (zoo / name / "README.md").read_text()
        assert f"greedy | {row['greedy']:.3f}" in card


def test_surprise_is_the_models_own_loss(zoo: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(zoo / "base")
    model = AutoModelForCausalLM.from_pretrained(zoo / "base", dtype=torch.float32)
    tokens = [*tokenizer("347+285=12 13 06 632")["input_ids"], tokenizer.eos_token_id]
    labels = torch.tensor([[-100] * 9 + tokens[9:]])
    expected = model(torch.tensor([tokens]), labels=labels).loss.item()
    assert surprise(model, tokenizer, "347+285=", "12 13 06 632") == pytest.approx(expected, rel=1e-5)
