"""What every pass over a batch of samples shares: padding, logits for answers alone, and what is made of them.

Each loss is, token by token, a rival less the chosen token's logit, and the mean of that over the scored tokens: the
logarithm of the sum of all exponentials is the negative log-likelihood's rival; the largest other logit is the
margin's, which does not vanish as a model grows sure; and the logarithm of the sum of the others' exponentials is the
log-odds', whose gradient is the likelihood's over 1 - p. What helps the chosen token lowers them all.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probing.method import Loss
from probing.sequences import Sample


def padded(rows: list[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens padded on the right, where causal attention never looks, and the mask that says so."""
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return tokens.to(device), mask.to(device)


@contextmanager
def answers_only(head: nn.Module, samples: Sequence[Sample]) -> Iterator[Float[Tensor, "sample answer"]]:
    """Let `head` compute logits only where an answer's token is predicted; yields each position's weight in the mean.

    Whatever the model does to its logits after the head (scaling, soft caps) happens as usual.
    """
    longest = max(sample.answer_length for sample in samples)
    positions = torch.zeros(len(samples), longest, dtype=torch.long)
    weights = torch.zeros(len(samples), longest, dtype=torch.float64)
    for i, sample in enumerate(samples):
        positions[i] = sample.answer_start - 1
        positions[i, : sample.answer_length] += torch.arange(sample.answer_length)
        weights[i, : sample.answer_length] = 1 / sample.answer_length

    def gather(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0]
        index = positions.to(hidden.device)[..., None].expand(-1, -1, hidden.shape[-1])
        return (hidden.gather(1, index), *args[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        yield weights
    finally:
        handle.remove()


@dataclass(frozen=True)
class Predictions:
    """What a model said of the tokens that are scored, in one pass over a batch."""

    logits: Float[Tensor, "sample answer token"]
    samples: Sequence[Sample]
    weights: Float[Tensor, "sample answer"]
    """Of each token in its sample's mean; zero where an answer is shorter."""

    @property
    def targets(self) -> Int[Tensor, "sample answer"]:
        """The tokens that are scored."""
        targets = torch.zeros(self.weights.shape, dtype=torch.long)
        for i, sample in enumerate(self.samples):
            targets[i, : sample.answer_length] = torch.tensor(sample.scored)
        return targets.to(self.logits.device)

    def losses(self, loss: Loss = "nll") -> Float[Tensor, " sample"]:
        """Each sample's loss, in nats per scored token: a difference of logits is the logarithm of a ratio."""
        targets = self.targets
        wide = self.logits if self.logits.dtype == torch.float64 else self.logits.float()
        if loss == "nll":
            each = nn.functional.cross_entropy(wide.flatten(0, 1), targets.flatten(), reduction="none")
        else:
            others = wide.scatter(-1, targets[..., None], float("-inf"))
            rival = others.amax(-1) if loss == "margin" else others.logsumexp(-1)
            each = rival - wide.gather(-1, targets[..., None])[..., 0]
        return (each.view(self.weights.shape) * self.weights.to(each)).sum(1)

    def own(self) -> Bool[Tensor, " sample"]:
        """Whether the model would say all of a sample's scored tokens by itself: each is the most likely one."""
        agree = self.logits.argmax(-1) == self.targets
        return (agree | (self.weights == 0).to(agree.device)).all(1)

    def agreement(self, tokens: Int[Tensor, "sample answer"]) -> Float[Tensor, " sample"]:
        """The share of each sample's scored tokens at which the most likely token is the one given."""
        agree = self.logits.argmax(-1) == tokens
        return (agree * self.weights.to(agree.device)).sum(1)
