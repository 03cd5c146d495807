"""Training of the zoo's members: SFT, GRPO and DPO with TRL's trainers, PPO with the loop in `ppo`.

Everything is seeded and runs on one thread, so a rerun on the same machine gives the same weights. Needs
requirements-zoo.txt.
"""

import logging
import random
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from probing.errors import ModelError
from probing.zoo import task
from probing.zoo.adapters import train as train_adapter
from probing.zoo.cards import write_card
from probing.zoo.evaluate import generate, measure
from probing.zoo.network import new_model, new_tokenizer, save
from probing.zoo.ppo import train_ppo
from probing.zoo.recipes import ADAPTERS, HELD_OUT, QUESTIONS, RECIPES, RL_PROBLEMS_SEED, ZOO, Recipe

log = logging.getLogger(__name__)

_QUIET: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "fp16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "dataloader_pin_memory": False,
    "save_strategy": "no",
    "logging_steps": 10,
    "disable_tqdm": True,
}

Keep = Callable[[int, PreTrainedModel], None]


def held_out() -> dict[str, list[task.Problem]]:
    """The two disjoint held-out sets, written to data/questions on the first call: one to tune on, one to report."""
    paths = {name: QUESTIONS / f"{name}.jsonl" for name in ("addition", "addition-tuning")}
    if not all(path.exists() for path in paths.values()):
        stream = task.problems(seed=0)
        unique = list(dict.fromkeys(islice(stream, 3 * HELD_OUT)))
        task.write_problems(paths["addition"], unique[:HELD_OUT])
        task.write_problems(paths["addition-tuning"], unique[HELD_OUT : 2 * HELD_OUT])
    return {name: task.read_problems(path) for name, path in paths.items()}


class _KeepWeights(TrainerCallback):
    """Hands the model to `keep` after the chosen optimiser steps, step 0 included."""

    def __init__(self, steps: tuple[int, ...], keep: Keep) -> None:
        self.steps, self.keep = steps, keep

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if 0 in self.steps:
            self.keep(0, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self.keep(state.global_step, model)


def _sft(recipe: Recipe, model: PreTrainedModel, tokenizer: Any, stream: Any, folder: str, keep: Keep) -> None:
    s = recipe.settings
    rng = random.Random(recipe.seed)
    chosen = list(islice(stream, s["examples"]))
    rows = [{"prompt": p.question, "completion": task.demonstration(p, rng)} for p in chosen]
    config = SFTConfig(
        output_dir=folder,
        max_steps=s["steps"],
        per_device_train_batch_size=s["batch"],
        learning_rate=s["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=s["warmup"],
        weight_decay=s["weight_decay"],
        completion_only_loss=True,
        seed=recipe.seed,
        **_QUIET,
    )
    SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()


def _grpo(recipe: Recipe, model: PreTrainedModel, tokenizer: Any, stream: Any, folder: str, keep: Keep) -> None:
    s = recipe.settings
    rows = [{"prompt": p.question, "answer": p.answer} for p in islice(stream, s["problems"])]
    config = GRPOConfig(
        output_dir=folder,
        max_steps=s["steps"],
        per_device_train_batch_size=s["batch"],
        num_generations=s["generations"],
        max_completion_length=task.LONGEST_ANSWER,
        learning_rate=s["learning_rate"],
        lr_scheduler_type="linear",
        warmup_steps=s["warmup"],
        beta=s["beta"],
        entropy_coef=s["entropy_coef"],
        temperature=1.0,
        top_k=0,
        loss_type="dapo",
        seed=recipe.seed,
        **_QUIET,
    )

    def right(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [task.reward(c, a) for c, a in zip(completions, answer, strict=True)]

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=right,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[_KeepWeights(recipe.checkpoints, keep)],
    )
    trainer.train()


def _dpo(recipe: Recipe, model: PreTrainedModel, tokenizer: Any, stream: Any, folder: str, keep: Keep) -> None:
    s = recipe.settings
    chosen = list(islice(stream, s["problems"]))
    rng = random.Random(recipe.seed)
    torch.manual_seed(recipe.seed)
    repeated = [p for p in chosen for _ in range(s["samples"])]
    answers = generate(model, tokenizer, [p.question for p in repeated], sample=True)
    rows = []
    for i, problem in enumerate(chosen):
        own = answers[i * s["samples"] : (i + 1) * s["samples"]]
        rights = [a for a in own if task.reward(a, problem.answer)]
        wrongs = [a for a in own if not task.reward(a, problem.answer)]
        if rights and wrongs:
            rows.append({"prompt": problem.question, "chosen": rng.choice(rights), "rejected": rng.choice(wrongs)})
    config = DPOConfig(
        output_dir=folder,
        max_steps=s["steps"],
        per_device_train_batch_size=s["batch"],
        learning_rate=s["learning_rate"],
        lr_scheduler_type="cosine",
        beta=s["beta"],
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, s["sft_weight"]],
        seed=recipe.seed,
        **_QUIET,
    )
    DPOTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()


def _ppo(recipe: Recipe, model: PreTrainedModel, tokenizer: Any, stream: Any, folder: str, keep: Keep) -> None:
    train_ppo(recipe, model, tokenizer, stream, keep, log.info)


_ALGORITHMS = {"sft": _sft, "grpo": _grpo, "dpo": _dpo, "ppo": _ppo}


def train(name: str, root: Path = ZOO) -> None:
    """Train the member `name` into `root`/`name`, its checkpoints beside it, each with its card."""
    recipe = RECIPES[name]
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    sets = held_out()
    exclude = frozenset(p for chosen in sets.values() for p in chosen)
    seed = 1000 + recipe.seed if recipe.algorithm == "sft" else RL_PROBLEMS_SEED
    stream = task.problems(seed, exclude)
    if recipe.parent is None:
        tokenizer = new_tokenizer()
        model = new_model(recipe.seed, tokenizer)
    else:
        tokenizer = AutoTokenizer.from_pretrained(root / recipe.parent)
        model = AutoModelForCausalLM.from_pretrained(root / recipe.parent, dtype=torch.float32)
    kept: dict[int, Path] = {}

    def keep(step: int, trained: PreTrainedModel) -> None:
        kept[step] = root / "checkpoints" / name / f"step-{step:03d}"
        save(trained, tokenizer, kept[step])

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        _ALGORITHMS[recipe.algorithm](recipe, model, tokenizer, stream, folder, keep)
    seconds = time.monotonic() - started
    steps = recipe.settings["steps"]
    if recipe.checkpoints:
        keep(steps, model)
    save(model, tokenizer, root / name)
    write_card(root / name, recipe, steps, seconds, measure(root / name, sets["addition"]))
    for step, folder_of_step in kept.items():
        write_card(folder_of_step, recipe, step, None, measure(folder_of_step, sets["addition"]))


def train_all(root: Path | None = None, only: list[str] | None = None) -> None:
    """Train the members named in `only`, or all, parents first.

    Raises:
        ModelError: there is no such member, or a parent has not been trained.
    """
    root = root or ZOO
    unknown = sorted(set(only or ()) - {*RECIPES, *ADAPTERS})
    if unknown:
        raise ModelError(f"There is no member '{unknown[0]}'.", f"Members: {', '.join((*RECIPES, *ADAPTERS))}.")
    for name, recipe in RECIPES.items():
        if only and name not in only:
            continue
        if recipe.parent and not (root / recipe.parent / "config.json").is_file():
            raise ModelError(f"'{name}' starts from '{recipe.parent}', which is not in {root}.", "Train that first.")
        log.info("training %s", name)
        train(name, root)
    for name in ADAPTERS:
        if not only or name in only:
            log.info("training %s", name)
            train_adapter(name, root)
