"""Whether a model would have given answers that a server gave as its own: one forward pass over prompt and answer.

Given the prompt and an answer's earlier tokens, a greedy model says its most likely token. A server that computes in
another dtype, or in other batches, rounds otherwise and now and then takes the second of two that are as good as equal;
another model takes some that are far from the best.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from probing.errors import ServerError

SAMPLE = 32
"""Answers of which a model is asked, spread evenly over the questions."""

FAR = 0.25
"""Nats by which a token must be less likely than the most likely one to be no matter of rounding."""

TOLERATED = 0.01
"""The share of tokens that may be far from what the model says."""


@dataclass(frozen=True)
class Agreement:
    """How many tokens of served answers the model itself would have said."""

    tokens: int = 0
    other: int = 0
    """Those that are not the model's most likely."""
    far: int = 0
    """Those less likely by more than `FAR`."""

    def __add__(self, more: "Agreement") -> "Agreement":
        """Of the answers of both."""
        return Agreement(self.tokens + more.tokens, self.other + more.other, self.far + more.far)

    def check(self, name: str, url: str) -> None:
        """Raise a ServerError if another model must have answered."""
        if self.far > max(1.0, TOLERATED * self.tokens):
            raise ServerError(
                f"The answers from {url} are not {name}'s: of {self.tokens} tokens it would say {self.other} "
                f"otherwise, {self.far} of them by far.",
                "Serve that model there, unquantised, or give the URL of the server that does.",
            )


def sampled(total: int) -> range:
    """The places of the answers that are looked at, of so many."""
    return range(0, total, max(1, total // SAMPLE))


@torch.inference_mode()
def agreement(model: PreTrainedModel, answers: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Agreement:
    """How far a model agrees with answers, given as the tokens of a prompt and of what was said; each is read alone."""
    tokens = other = far = 0
    for prompt, said in answers:
        read = torch.tensor([[*prompt, *said]], device=model.device)
        logits = model(input_ids=read, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        gap = logits.max(-1).values - logits.gather(-1, read[0, len(prompt) :, None].to(logits.device))[:, 0]
        tokens, other, far = tokens + len(said), other + int((gap > 0).sum()), far + int((gap > FAR).sum())
    return Agreement(tokens, other, far)
