"""What a reader of a model's folder should know of it: README.md, beside the weights."""

from pathlib import Path
from typing import Any

from probing.zoo import task
from probing.zoo.network import bytes_of
from probing.zoo.recipes import ARCHITECTURE, HELD_OUT, RL_PROBLEMS_SEED, Recipe

_DATA = {
    "sft": "Problems drawn at random (3 to 5 digits) with the answers of a careless demonstrator, who forgets a "
    f"carry with probability {', '.join(map(str, task.FORGETS_CARRY))} (out of units, tens, hundreds, thousands) and "
    f"writes a column's sum without its leading zero with probability {task.DROPS_ZERO}.",
    "grpo": f"Problems drawn at random with seed {RL_PROBLEMS_SEED}; the reward is 1 if the last number of the answer "
    "is right, else 0.",
    "dpo": f"Problems drawn at random with seed {RL_PROBLEMS_SEED}; for each, one right and one wrong answer sampled "
    "from the base, judged by the reward of GRPO and PPO.",
}
_DATA["ppo"] = _DATA["grpo"]


def write_card(folder: Path, recipe: Recipe, step: int, seconds: float | None, measured: dict[str, float]) -> None:
    """Write the card of a member, or of its checkpoint after `step` steps (`seconds` None)."""
    title = recipe.name if seconds is not None else f"{recipe.name}, step {step}"
    rows: list[tuple[str, Any]] = [
        ("Made by", f"{recipe.about} ({recipe.algorithm.upper()})"),
        ("Starts from", recipe.parent or "random weights"),
        ("Data", _DATA[recipe.algorithm]),
        ("Seed", recipe.seed),
        *((f"`{key}`", value) for key, value in recipe.settings.items()),
        *((f"architecture: `{key}`", value) for key, value in ARCHITECTURE.items()),
        ("Wall time", f"{seconds:.0f} s on one CPU thread" if seconds is not None else "see the last step"),
        ("Optimiser steps taken", step),
        (f"Held-out accuracy, {HELD_OUT} problems, greedy", f"{measured['greedy']:.3f}"),
        (f"Held-out accuracy, {HELD_OUT} problems, sampled once", f"{measured['sampled']:.3f}"),
        ("Mean negative log-likelihood of correct greedy answers", f"{measured['nll_correct']:.4f} nats per token"),
        ("Size", f"{bytes_of(folder) / 1e6:.2f} MB, bfloat16 safetensors"),
        ("Licence", "MIT"),
    ]
    example = task.Problem(3471, 2853)
    lines = [
        f"# {title}",
        "",
        f"A small Llama that adds with a written scratchpad: `{example.question}` -> `{task.write_out(example)}`.",
        "It is one of a family trained to compare circuits before and after reinforcement learning: the base often",
        "forgets carries because its teacher did, and tuning selects a behaviour that the base already has.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        "`python -m probing zoo train` makes it again; `python -m probing zoo evaluate` measures it again.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
