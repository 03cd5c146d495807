"""Planted pairs: a tuned model that differs from its base in one head or one MLP, so that what changed is known.

A copy of a member is trained for a few seconds on correct answers while everything else in it is frozen: of a head, its
own rows of q, k and v and its own columns of the output projection; of an MLP, its three matrices. Whatever claims to
say where two models differ can be judged by whether it says so here. Everything is seeded, and the same on one machine.
"""

import copy
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probing.attribution.passes import Predictions, answers_only, padded
from probing.graph import Writer
from probing.sequences import Sample
from probing.zoo import task

PLANTS = ("a0.h2", "a2.h1", "a4.h0", "m0", "m2", "m4")
"""What is tuned, each in a pair of its own: heads and MLPs of early, middle and late layers."""

STEPS, BATCH, LEARNING_RATE, SEED = 30, 32, 3e-3, 11


def _own(model: PreTrainedModel, node: str) -> dict[str, Tensor]:
    """The parameters of a Llama that are a head's or an MLP's own: of each a mask, True where it is.

    A head that shares its keys and values with others has theirs too.
    """
    writer, config = Writer.of(node), model.config
    prefix = f"model.layers.{writer.layer}.{'mlp' if writer.head is None else 'self_attn'}."
    if writer.head is None:
        parameters = model.named_parameters()
        return {name: torch.ones_like(p, dtype=torch.bool) for name, p in parameters if name.startswith(prefix)}
    group = writer.head * config.num_key_value_heads // config.num_attention_heads
    found = {}
    for name, number in {"q_proj": writer.head, "k_proj": group, "v_proj": group, "o_proj": writer.head}.items():
        matrix = model.get_parameter(f"{prefix}{name}.weight")
        mask = torch.zeros_like(matrix, dtype=torch.bool)
        rows = mask.T if name == "o_proj" else mask
        rows[number * config.head_dim : (number + 1) * config.head_dim] = True
        found[f"{prefix}{name}.weight"] = mask
    return found


def plant(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, node: str, steps: int = STEPS) -> PreTrainedModel:
    """A copy of a member of the zoo in which one head (`a2.h1`) or MLP (`m2`) was tuned to add without mistakes."""
    model = copy.deepcopy(base).requires_grad_(False)
    trained = []
    for name, mask in _own(model, node).items():
        parameter = model.get_parameter(name).requires_grad_(True)
        parameter.register_hook(mask.mul)  # Adam leaves alone what never has a gradient
        trained.append(parameter)
    optimizer = torch.optim.Adam(trained, LEARNING_RATE)
    stream = task.problems(SEED)
    for _ in range(steps):
        optimizer.zero_grad()
        samples = demonstrations(list(islice(stream, BATCH)), tokenizer)
        tokens, mask = padded([sample.fed for sample in samples], model.device)
        with answers_only(model.get_output_embeddings(), samples) as weights:
            logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        Predictions(logits, samples, weights).losses().mean().backward()
        optimizer.step()
    return model.requires_grad_(False)


def demonstrations(problems: Sequence[task.Problem], tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """The correct answers to problems, with their end, as what is scored."""
    made = []
    for problem in problems:
        prompt = tokenizer(problem.question)["input_ids"]
        whole = [*tokenizer(problem.question + task.write_out(problem))["input_ids"], tokenizer.eos_token_id]
        made.append(Sample(problem.question, tuple(whole), len(prompt), len(whole) - len(prompt)))
    return made
