"""A model made ready, batches of samples through it, and their scores."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from probing.architectures import architecture_of, prove, recording
from probing.attribution.contract import Products, ProductsByPosition
from probing.attribution.passes import answers_only, losses, padded
from probing.errors import ModelError, SequenceError
from probing.fitting import activation_bytes, batch_by_batch, batch_that_fits, free_bytes, shape_of
from probing.graph import Granularity
from probing.scores import Scores
from probing.sequences import Sample

LARGEST_BY_POSITION = 2**29
"""Bytes that the scores of a sample at every position may take."""


class Attributor:
    """A model made ready for scoring: parameters frozen, architecture found and proved, use guarded by a lock.

    Its scores are of the edges of `graph`, which has the granularity asked for.

    Raises:
        ModelError: the architecture is unknown or its residual identity fails.
    """

    def __init__(self, model: PreTrainedModel, granularity: Granularity = "projections") -> None:
        self.model = model.requires_grad_(False).eval()
        found = architecture_of(model)
        self.architecture = found.of_heads if granularity == "heads" else found
        self.graph = self.architecture.graph.at(granularity)
        self._lock = threading.Lock()
        self._products = Products(self.architecture)
        prove(self.architecture)

    def check(self, samples: Sequence[Sample]) -> None:
        """Raise a SequenceError for the first sample that this model cannot score."""
        vocabulary = self.architecture.weight.shape[0]
        context = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        for sample in samples:
            sample.check(vocabulary, context)

    def batches(self, samples: Sequence[Sample], batch_size: int | None = None) -> list[list[int]]:
        """Indices of `samples` in batches of like length, the same for the same samples and size.

        Without a `batch_size`, as many as fit (`fitting.batch_that_fits`).
        """
        order = sorted(range(len(samples)), key=lambda i: (len(samples[i].fed), i))
        if batch_size is None:
            each = activation_bytes(
                shape_of(self.model.config, 0),
                max(len(sample.fed) for sample in samples),
                max(sample.answer_length for sample in samples),
                self.model.dtype.itemsize,
                self.model.config._attn_implementation == "eager",
                self.graph.granularity == "heads",
            )
            batch_size = batch_that_fits(free_bytes(self.model.device), each)
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    def score(self, samples: Sequence[Sample]) -> Scores:
        """Scores of one batch, which it must be possible to run at once.

        Raises:
            SequenceError: a sample that this model cannot score.
            ModelError: the scores are not finite.
        """
        edges, loss = self._pass(samples, self._products)
        return Scores(self.graph, tuple(sample.id for sample in samples), edges, loss)

    def score_positions(self, sample: Sample) -> Float[np.ndarray, "position edge"]:
        """The scores of one sample before they are summed over the positions that it feeds.

        Raises:
            SequenceError: this model cannot score the sample, or it has too many positions for so many edges.
            ModelError: the scores are not finite.
        """
        size = 4 * len(sample.fed) * self.architecture.graph.mask.size
        if size > LARGEST_BY_POSITION:
            raise SequenceError(
                f"At each of its {len(sample.fed):,} positions, this sample has scores of {self.graph.size:,} edges: "
                f"{size / 2**30:.1f} GiB.",
                "Take it token by token at a coarser granularity.",
            )
        return self._pass([sample], ProductsByPosition(self.architecture))[0][0]

    @contextmanager
    def running(self, samples: Sequence[Sample], hooks: AbstractContextManager) -> Iterator[Float[Tensor, " sample"]]:
        """Run one batch under some hooks, which stay until the end; yields each sample's loss.

        Raises:
            SequenceError: a sample that this model cannot score.
        """
        self.check(samples)
        tokens, mask = padded([sample.fed for sample in samples], self.model.device)
        with self._lock, answers_only(self.architecture.head, samples) as weights, hooks:
            logits = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
            yield losses(logits, samples, weights)

    def _pass(self, samples: Sequence[Sample], products: Products) -> tuple[np.ndarray, np.ndarray]:
        """One forward and one backward pass: what `products` makes of them, and each sample's loss."""
        products.begin(len(samples), max(len(sample.fed) for sample in samples))
        with torch.enable_grad(), self.running(samples, recording(self.architecture, products)) as loss:
            loss.sum().backward()
            scores = products.finish()
        if not bool(torch.isfinite(scores).all()):
            raise ModelError("This model's gradients overflow, so its scores are not finite.", "Try --dtype float32.")
        walked = self.architecture.graph
        edges = walked.merge(walked.to_edges(scores.cpu().numpy()), self.graph.granularity)
        return edges, loss.detach().float().cpu().numpy()


def attribute(
    attributor: Attributor,
    samples: Sequence[Sample],
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Scores of all `samples` in their order; `progress` is told the number finished after each batch."""
    attributor.check(samples)
    graph = attributor.graph
    edges = np.zeros((len(samples), graph.size), np.float32)
    loss = np.zeros(len(samples), np.float32)
    done = 0

    def do(batch: list[int]) -> None:
        nonlocal done
        part = attributor.score([samples[i] for i in batch])
        edges[batch], loss[batch] = part.edges, part.loss
        done += len(batch)
        progress(done)

    batch_by_batch(attributor.batches(samples, batch_size), do)
    return Scores(graph, tuple(sample.id for sample in samples), edges, loss)
