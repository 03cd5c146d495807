"""A model made ready, batches of samples through it, and their scores."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedModel

from probing.architectures import Written, architecture_of, prove, recording, resumable, watching
from probing.attribution.contract import ExactNorms, Products
from probing.attribution.passes import Predictions, answers_only, padded
from probing.attribution.stand_ins import ZERO, References
from probing.errors import ModelError, SequenceError
from probing.fitting import activation_bytes, batch_that_fits, free_bytes, shape_of
from probing.graph import Granularity
from probing.method import PAPERS, Method
from probing.scores import Scores
from probing.sequences import Sample, by_length

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
        self._products: dict[type[Products], Products] = {}
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
        return by_length(samples, batch_size or self.batch_that_fits(samples))

    def batch_that_fits(self, samples: Sequence[Sample]) -> int:
        """How many samples as long as the longest of these fit into the device's memory at once."""
        each = activation_bytes(
            shape_of(self.model.config, 0),
            max(len(sample.fed) for sample in samples),
            max(sample.answer_length for sample in samples),
            self.model.dtype.itemsize,
            self.model.config._attn_implementation == "eager",
            self.graph.granularity == "heads",
        )
        return batch_that_fits(free_bytes(self.model.device), each)

    @cached_property
    def resumable(self) -> tuple[bool, ...]:
        """For each layer, and for what is behind the last, whether a pass may go on from there."""
        with self._lock:
            return resumable(self.architecture)

    def score(self, samples: Sequence[Sample], method: Method = PAPERS, references: References = ZERO) -> Scores:
        """Scores of one batch, which it must be possible to run at once.

        The granularity of `method` is the attributor's, whatever it says, and `references` are of its kind.

        Raises:
            SequenceError: a sample that this model cannot score.
            ModelError: the scores are not finite, or the method does not know one of the model's norms.
        """
        kind = ExactNorms if method.path == "norm-exact" else Products
        if kind not in self._products:
            self._products[kind] = kind(self.architecture)
        edges, loss = self._pass(samples, self._products[kind], method, references)
        return Scores(self.graph, tuple(sample.id for sample in samples), edges, loss, method=method)

    def score_positions(
        self, sample: Sample, method: Method = PAPERS, references: References = ZERO
    ) -> Float[np.ndarray, "position edge"]:
        """The scores of one sample before they are summed over the positions that it feeds.

        Raises:
            SequenceError: this model cannot score the sample, or it has too many positions for so many edges.
            ModelError: as `score` does.
            ValueError: the method is no estimate.
        """
        size = 4 * len(sample.fed) * self.architecture.graph.mask.size
        if size > LARGEST_BY_POSITION:
            raise SequenceError(
                f"At each of its {len(sample.fed):,} positions, this sample has scores of {self.graph.size:,} edges: "
                f"{size / 2**30:.1f} GiB.",
                "Take it token by token at a coarser granularity.",
            )
        kind = ExactNorms if method.path == "norm-exact" else Products
        return self._pass([sample], kind(self.architecture, by_position=True), method, references)[0][0]

    @contextmanager
    def running(self, samples: Sequence[Sample], hooks: AbstractContextManager) -> Iterator[Predictions]:
        """Run one batch under some hooks, which stay until the end; yields what the model says of what is scored.

        Raises:
            SequenceError: a sample that this model cannot score.
        """
        self.check(samples)
        tokens, mask = padded([sample.fed for sample in samples], self.model.device)
        with self._lock, answers_only(self.architecture.head, samples) as weights, hooks:
            logits = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
            yield Predictions(logits, samples, weights)

    def watch(self, samples: Sequence[Sample], written: Written) -> None:
        """Run one batch forward, and tell what is written.

        Raises:
            SequenceError: a sample that this model cannot be fed.
        """
        with torch.no_grad(), self.running(samples, watching(self.architecture, written)):
            pass

    def _pass(
        self, samples: Sequence[Sample], products: Products, method: Method, references: References
    ) -> tuple[np.ndarray, np.ndarray]:
        """One forward and one backward pass, or several on the way: what `products` makes of them, and each sample's
        negative log-likelihood, whatever loss the scores are of.

        The way's points are 1, 1 - 1/m, ..., 1/m: the clean end is among them, so that one step is no step at all; the
        other is not, where a reference of zero leaves norms nothing to divide by.
        """
        if method.path == "exact":
            raise ValueError("edges that are really removed have no scores of one pass")
        if references.kind != method.reference:
            raise ValueError(f"these references are of {references.kind}, and the method's of {method.reference}")
        products.begin(len(samples), max(len(sample.fed) for sample in samples), references.of(samples))
        steps = method.steps if method.path == "eap-ig" else 1
        loss = np.zeros(len(samples), np.float32)
        for step in range(steps, 0, -1):
            products.pass_at(step / steps)
            hooks = recording(self.architecture, products)
            with torch.enable_grad(), self.running(samples, hooks) as said:
                said.losses(method.loss).sum().backward()
                products.finish_pass()
                if step == steps:
                    loss = said.losses().detach().float().cpu().numpy()
        scores = products.finish()
        if not bool(torch.isfinite(scores).all()):
            raise ModelError("This model's gradients overflow, so its scores are not finite.", "Try --dtype float32.")
        walked = self.architecture.graph
        return walked.merge(walked.to_edges(scores.cpu().numpy()), self.graph.granularity), loss
