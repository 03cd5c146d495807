"""What every pass over a batch of samples shares: padding, logits for answers alone, and the loss."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

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


def losses(
    logits: Float[Tensor, "sample answer token"],
    samples: Sequence[Sample],
    weights: Float[Tensor, "sample answer"],
) -> Float[Tensor, " sample"]:
    """Each sample's mean negative log-likelihood over its scored tokens."""
    targets = torch.zeros(weights.shape, dtype=torch.long)
    for i, sample in enumerate(samples):
        targets[i, : sample.answer_length] = torch.tensor(sample.scored)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    surprise = nn.functional.cross_entropy(wide.flatten(0, 1), targets.to(logits.device).flatten(), reduction="none")
    return (surprise.view(weights.shape) * weights.to(surprise)).sum(1)
