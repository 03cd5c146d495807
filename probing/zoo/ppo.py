"""Proximal policy optimisation, in the few lines a small model needs.

Each step samples an answer to every problem of the batch, rewards the last token with 1 if the answer is right and
every token with minus the KL penalty towards the base (k1 estimate), estimates advantages with GAE, and makes a few
epochs of clipped updates of the policy and of a separate critic: a copy of the base with a scalar head.

Source: Schulman et al. 2017 (arXiv:1707.06347), equations 7 and 11; GAE: Schulman et al. 2016 (arXiv:1506.02438).
"""

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probing.zoo import task
from probing.zoo.recipes import Recipe


class Critic(nn.Module):
    """The value of every prefix of an answer: a transformer with one scalar read from its last hidden states."""

    def __init__(self, base: PreTrainedModel) -> None:
        super().__init__()
        self.body = copy.deepcopy(base.base_model)
        self.head = nn.Linear(base.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Values of shape [answer, position]."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        hidden = self.body(input_ids=tokens, attention_mask=mask, position_ids=positions).last_hidden_state
        return self.head(hidden).squeeze(-1)


def advantages(rewards: Tensor, values: Tensor, valid: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns, each [answer, token]; tokens outside `valid` count as the end."""
    estimate = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(running)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        running = (delta + gamma * lam * running) * valid[:, t]
        following = values[:, t] * valid[:, t]
        estimate[:, t] = running
    return estimate, estimate + values


def _log_probabilities(model: PreTrainedModel, tokens: Tensor, mask: Tensor, answer: int) -> tuple[Tensor, Tensor]:
    """Log-probability of each answer token, and the entropy where it was chosen: each [answer, token]."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=tokens, attention_mask=mask, position_ids=positions).logits[:, -answer - 1 : -1]
    log_p = logits.log_softmax(-1)
    chosen = log_p.gather(-1, tokens[:, -answer:, None]).squeeze(-1)
    return chosen, -(log_p.exp() * log_p).sum(-1)


def train_ppo(
    recipe: Recipe,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stream: Iterator[task.Problem],
    keep: Callable[[int, PreTrainedModel], None],
    log: Callable[[str], None],
) -> None:
    """Train `policy` in place.

    The first `critic_warmup` batches train the critic alone and are not counted as steps.
    """
    s = recipe.settings
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    critic = Critic(policy)
    policy_optimizer = torch.optim.AdamW(policy.parameters(), s["learning_rate"], weight_decay=0.0)
    critic_optimizer = torch.optim.AdamW(critic.parameters(), s["critic_learning_rate"], weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(policy_optimizer, 1.0, 0.05, s["steps"])
    if 0 in recipe.checkpoints:
        keep(0, policy)

    for batch in range(s["critic_warmup"] + s["steps"]):
        step = batch - s["critic_warmup"] + 1
        chosen = list(islice(stream, s["batch"]))
        prompts = tokenizer([p.question for p in chosen], return_tensors="pt", padding=True)
        width = prompts["input_ids"].shape[1]
        policy.eval()
        with torch.no_grad():
            tokens = policy.generate(
                **prompts, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=task.LONGEST_ANSWER
            )
        policy.train()
        answers = tokens[:, width:]
        length = answers.shape[1]
        ended = (answers == tokenizer.eos_token_id).cumsum(1)
        valid = ((ended == 0) | ((ended == 1) & (answers == tokenizer.eos_token_id))).float()
        mask = torch.cat([prompts["attention_mask"], valid.long()], 1)
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        right = torch.tensor([task.reward(t, p.answer) for t, p in zip(texts, chosen, strict=True)])

        with torch.no_grad():
            old, _ = _log_probabilities(policy, tokens, mask, length)
            start, _ = _log_probabilities(reference, tokens, mask, length)
            values = critic(tokens, mask)[:, -length - 1 : -1] * valid
        rewards = -s["kl"] * (old - start) * valid
        last = valid.sum(1).long() - 1
        rewards[torch.arange(len(chosen)), last] += right
        advantage, returns = advantages(rewards, values, valid, s["gamma"], s["lam"])
        mean = (advantage * valid).sum() / valid.sum()
        deviation = (((advantage - mean) ** 2 * valid).sum() / valid.sum()).sqrt()
        advantage = (advantage - mean) / (deviation + 1e-8)

        for _ in range(s["epochs"]):
            for rows in torch.randperm(len(chosen)).split(s["minibatch"]):
                weight = valid[rows] / valid[rows].sum()
                value = critic(tokens[rows], mask[rows])[:, -length - 1 : -1]
                critic_loss = ((value - returns[rows]) ** 2 * weight).sum()
                _descend(critic, critic_optimizer, critic_loss)
                if step < 1:
                    continue
                new, entropy = _log_probabilities(policy, tokens[rows], mask[rows], length)
                ratio = (new - old[rows]).exp()
                clipped = ratio.clamp(1 - s["clip"], 1 + s["clip"])
                gain = torch.minimum(ratio * advantage[rows], clipped * advantage[rows])
                policy_loss = -((gain + s["entropy_coef"] * entropy) * weight).sum()
                _descend(policy, policy_optimizer, policy_loss)
        if step >= 1:
            decay.step()
            if step in recipe.checkpoints:
                keep(step, policy)
        if batch % 10 == 0:
            log(f"ppo step {step}: reward {right.mean():.3f}, kl {((old - start) * valid).sum(1).mean():.3f}")


def _descend(module: nn.Module, optimizer: Any, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
