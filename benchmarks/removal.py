"""What the benchmarks that judge methods share: texts, their counterparts, every method, and edges really removed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probing.ablation import effects_by_loss
from probing.attribution import Attributor, find_references
from probing.checkpoints import find
from probing.graph import Granularity
from probing.method import ESTIMATES, Loss, Method, Reference
from probing.models import load_model, load_tokenizer, use_threads_for
from probing.sequences import Sample

LOSSES: tuple[Loss, ...] = get_args(Loss)
REMOVAL = "removal"
"""How the real thing is called where it stands among the methods."""

Effects = dict[Loss, Float[np.ndarray, "sample edge"]]


def methods(granularity: Granularity, references: Iterable[Reference]) -> Iterator[Method]:
    """Every path and loss against these references."""
    for reference in references:
        for path in ESTIMATES:
            for loss in LOSSES:
                yield Method(granularity, path, reference, loss)


def load(name: str, device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in float32, on as many threads as suit it, and its tokenizer."""
    checkpoint = find(name)
    model = load_model(checkpoint, torch.device(device), torch.float32)
    use_threads_for(model)
    return model, load_tokenizer(checkpoint)


def with_counterparts(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, each with another of the same shape for its counterpart; those that are alone of theirs are left
    out."""
    alike: dict[tuple[int, int, int], list[Sample]] = {}
    for sample in samples:
        alike.setdefault((len(sample.input_ids), sample.answer_start, sample.answer_length), []).append(sample)
    others = {
        sample.id: other.input_ids
        for group in alike.values()
        for sample, other in zip(group, [*group[1:], group[0]], strict=True)
        if other is not sample
    }
    return [replace(sample, counterpart=others[sample.id]) for sample in samples if sample.id in others]


def removed(
    attributor: Attributor,
    samples: Sequence[Sample],
    edges: Int[np.ndarray, " edge"],
    reference: Reference,
    losses: Iterable[Loss] = LOSSES,
) -> Effects:
    """What really happens to some losses when each of some edges carries the reference instead."""
    references = find_references(attributor, reference, samples)
    wanted = list(losses)
    if not wanted:
        return {}
    return dict(zip(wanted, effects_by_loss(attributor, samples, edges.tolist(), wanted, references), strict=True))
