"""Circuits really run: each reader reads what its circuit lets through, and what stands in for the rest.

Whatever is outside a circuit is replaced in one pass: at each reader and at every position that is fed, the prompt's
included. What is inside is as it comes out in that very pass, so that it works on what the circuit has left it.
(`ablation`; EAP-IG's `evaluate_graph`.) The circuit of all edges is the model itself, and that of none reads stand-ins
alone. What such numbers say depends on the reference, the granularity and the positions, and on whether a circuit is
run or taken out (Miller et al. 2024, arXiv:2407.08734).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from probing.ablation import run_without
from probing.attribution import Attributor, Fixed, Predictions, References
from probing.fitting import batch_by_batch, batch_that_fits, free_bytes
from probing.sequences import Sample

MEASURES = ("loss", "margin", "log-odds", "agreement")
"""What is measured of each circuit and sample: per scored token, the negative log-likelihood in nats, the chosen
token's logit less the largest other one, and the logarithm of its odds; and the share of scored tokens at which the
circuit's most likely token is the whole model's."""

Measured = dict[str, Float[np.ndarray, "circuit sample"]]


def run_circuits(
    attributor: Attributor,
    samples: Sequence[Sample],
    circuits: Bool[np.ndarray, "circuit edge"],
    references: References,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Run circuits of the attributor's graph on samples; `progress` is told the number of passes done, and of all.

    Circuits that are alike run once.

    Raises:
        SequenceError: a sample that the model cannot score, or that lacks what the references need.
    """
    attributor.check(samples)
    rows: dict[bytes, list[int]] = {np.ones(circuits.shape[1], bool).tobytes(): []}  # the whole model comes first
    for row, inside in enumerate(circuits):
        rows.setdefault(inside.tobytes(), []).append(row)
    found = {measure: np.zeros((len(circuits), len(samples)), np.float32) for measure in MEASURES}
    done, total = 0, len(rows) * len(samples)

    def do(batch: list[int]) -> None:
        nonlocal done
        chosen = [samples[place] for place in batch]
        once = Fixed(references.kind, references.of(chosen))
        answer: torch.Tensor | None = None
        for passes, (inside, alike) in enumerate(rows.items()):
            progress(done + passes * len(batch), total)
            outside = np.flatnonzero(~np.frombuffer(inside, bool))
            with run_without(attributor, chosen, outside, once) as said:
                answer = said.logits.argmax(-1) if answer is None else answer
                for measure, value in _measured(said, answer).items():
                    found[measure][np.ix_(alike, batch)] = value
        done += len(rows) * len(batch)

    batch_by_batch(attributor.batches(samples, batch_size or _that_fits(attributor, samples)), do)
    return found


def _measured(said: Predictions, answer: torch.Tensor) -> dict[str, Float[np.ndarray, " sample"]]:
    """All measures of one pass, given the whole model's most likely tokens."""
    values = (said.losses(), -said.losses("margin"), -said.losses("log-odds"), said.agreement(answer))
    return {measure: value.float().cpu().numpy() for measure, value in zip(MEASURES, values, strict=True)}


def _that_fits(attributor: Attributor, samples: Sequence[Sample]) -> int:
    """Samples whose writers' outputs, and what stands in for them, fit beside all else."""
    graph, embedding = attributor.architecture.graph, attributor.architecture.weight
    each = 8 * len(graph.writers) * embedding.shape[1] * max(len(sample.fed) for sample in samples)
    fits = batch_that_fits(free_bytes(attributor.model.device), each)
    return min(fits, max(map(len, attributor.batches(samples))))
