"""What the members of the zoo can do, measured afresh from the files that ship."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probing.checkpoints import find
from probing.models import load_model, load_tokenizer
from probing.zoo import task
from probing.zoo.recipes import QUESTIONS, RECIPES, ZOO


@torch.inference_mode()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[str], sample: bool, batch: int = 500
) -> list[str]:
    """Answers to `questions`, greedy or sampled at temperature 1, in their order."""
    model.eval()
    answers: list[str] = []
    for start in range(0, len(questions), batch):
        prompts = tokenizer(questions[start : start + batch], return_tensors="pt", padding=True)
        tokens = model.generate(
            **prompts,
            do_sample=sample,
            **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {}),
            max_new_tokens=task.LONGEST_ANSWER,
            use_cache=True,
        )
        answers += tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


@torch.inference_mode()
def surprise(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str, answer: str) -> float:
    """Mean negative log-likelihood of an answer and its end token, in nats per token."""
    prompt = tokenizer(question)["input_ids"]
    tokens = [*tokenizer(question + answer)["input_ids"], tokenizer.eos_token_id]
    log_p = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    scored = range(len(prompt), len(tokens))
    return -float(torch.stack([log_p[i - 1, tokens[i]] for i in scored]).mean())


def measure(folder: Path, problems: list[task.Problem], seed: int = 0) -> dict[str, float]:
    """Share of `problems` that a model solves, greedily and sampled once, and its surprise at its correct answers.

    `nll_correct` is the mean over correctly answered problems of the greedy answer's mean negative log-likelihood.
    """
    checkpoint = find(str(folder))
    tokenizer = load_tokenizer(checkpoint)
    model = load_model(checkpoint, torch.device("cpu"), torch.float32)
    questions = [p.question for p in problems]
    result = {}
    for name, sample in (("greedy", False), ("sampled", True)):
        torch.manual_seed(seed)
        answers = generate(model, tokenizer, questions, sample)
        right = [bool(task.reward(a, p.answer)) for a, p in zip(answers, problems, strict=True)]
        result[name] = sum(right) / len(right)
        if not sample:
            losses = [surprise(model, tokenizer, q, a) for q, a, r in zip(questions, answers, right, strict=True) if r]
            result["nll_correct"] = sum(losses) / len(losses) if losses else float("nan")
    return result


def evaluate(root: Path | None = None) -> dict[str, dict[str, Any]]:
    """Every member's held-out accuracy and surprise.

    `{"accuracy": {"base": {"greedy": ..., "sampled": ...}, ...}, "nll_correct": {"base": ..., ...}}`
    """
    torch.set_num_threads(1)
    problems = task.read_problems(QUESTIONS / "addition.jsonl")
    measured = {name: measure((root or ZOO) / name, problems) for name in RECIPES}
    return {
        "accuracy": {name: {k: row[k] for k in ("greedy", "sampled")} for name, row in measured.items()},
        "nll_correct": {name: row["nll_correct"] for name, row in measured.items()},
    }
