"""Samples in, one score for each edge and sample out: edge attribution patching with zero ablation.

Removing writer O from what reader H reads changes the loss, to first order, by

    I(O -> H) = -<dL/dH, O>        summed over positions (the prompt's included) and the model's width

so a positive score means that removing the edge raises the loss. L is a sample's mean negative log-likelihood over
its own answer's tokens given all before them. One forward and one backward pass give every O and every gradient of a
batch, and batched matrix products give the scores, in float32 and for each sample by itself.

Source: arXiv:2509.21044, section 2; Syed et al. 2023 (arXiv:2310.10348) for the method.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from probing.architectures import (
    Architecture,
    HeadOutputs,
    Observer,
    WriteGradients,
    architecture_of,
    prove,
    recording,
)
from probing.errors import ModelError, SequenceError
from probing.fitting import (
    KEPT_READERS,
    KEPT_READERS_OF_HEADS,
    activation_bytes,
    batch_by_batch,
    batch_that_fits,
    free_bytes,
    shape_of,
)
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
        self._products = _Products(self.architecture)
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
        return self._pass([sample], _ProductsByPosition(self.architecture))[0][0]

    def _pass(self, samples: Sequence[Sample], products: "_Products") -> tuple[np.ndarray, np.ndarray]:
        """One forward and one backward pass: what `products` makes of them, and each sample's loss."""
        self.check(samples)
        tokens, mask = _pad([sample.fed for sample in samples], self.model.device)
        with (
            self._lock,
            _answers_only(self.architecture.head, samples) as weights,
            recording(self.architecture, products),
            torch.enable_grad(),
        ):
            products.begin(tokens.shape)
            logits = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
            loss = _loss(logits, samples, weights)
            del logits
            loss.sum().backward()
            scores = products.finish()
        if not bool(torch.isfinite(scores).all()):
            raise ModelError("This model's gradients overflow, so its scores are not finite.", "Try --dtype float32.")
        walked = self.architecture.graph
        edges = walked.merge(walked.to_edges(scores.cpu().numpy()), self.graph.granularity)
        return edges, loss.detach().float().cpu().numpy()


def _pad(rows: list[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens padded on the right, where causal attention never looks, and the mask that says so."""
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return tokens.to(device), mask.to(device)


@contextmanager
def _answers_only(head: nn.Module, samples: Sequence[Sample]) -> Iterator[Float[Tensor, "sample answer"]]:
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


def _loss(
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


class _Products(Observer):
    """-<gradient, writer> for every edge and sample: a matrix product for every few readers as the backward pass goes.

    What is observed is copied, while it is in the processor's cache, into two buffers that serve batch after batch;
    the model's own tensors are free to go.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.graph = architecture.graph
        self._like = architecture.weight
        self._buffers = torch.empty(0)
        layers = [layer for layer, division in enumerate(architecture.divisions) if division is not None]
        parts = {place for layer in layers for place in self.graph.attention_writers(layer)}
        self._kept = [place for place in range(len(self.graph.writers)) if place not in parts]
        self._slots = {place: slot for slot, place in enumerate(self._kept)}
        self._at_once = KEPT_READERS_OF_HEADS if layers else KEPT_READERS

    def begin(self, shape: torch.Size) -> None:
        """Make ready for a batch of [sample, position]."""
        samples, positions = shape
        rows = [len(self._kept), self._at_once, self._at_once if len(self._kept) < len(self.graph.writers) else 0]
        size = samples * sum(rows) * positions * self._like.shape[1]
        if self._buffers.numel() < size:
            wide = torch.promote_types(self._like.dtype, torch.float32)
            self._buffers = torch.empty(size, dtype=wide, device=self._like.device)
        parts = self._buffers[:size].split([samples * count * positions * self._like.shape[1] for count in rows])
        self._written, self._read, self._made = (
            part.view(samples, count, positions, self._like.shape[1]) for part, count in zip(parts, rows, strict=True)
        )
        self._divided: list[tuple[range, HeadOutputs]] = []
        self._scores = self._written.new_zeros(*self._shape(samples, positions), *self.graph.mask.shape)
        self._waiting: list[int] = []
        self._seen = 0

    def _shape(self, samples: int, positions: int) -> tuple[int, ...]:
        """What there is a matrix of scores for."""
        return (samples,)

    def wrote(self, writer: int, output: Float[Tensor, "sample position width"]) -> None:
        """Keep what a writer wrote."""
        self._written[:, self._slots[writer]].copy_(output.detach())

    def divided(self, writers: range, outputs: HeadOutputs, whole: Float[Tensor, "sample position width"]) -> None:
        """Keep what a block's heads are made of."""
        self._divided.append((writers, outputs))

    def influenced(self, readers: range, write_gradients: WriteGradients) -> None:
        """Use the gradients of some readers."""
        if len(self._waiting) + len(readers) > self._at_once:
            self._multiply()
        start = len(self._waiting)
        write_gradients(self._read[:, start : start + len(readers)])
        self._waiting.extend(readers)

    def finish(self) -> Float[Tensor, "*sample writer reader"]:
        """The scores of the batch, zero where there is no edge."""
        self._multiply()
        if self._seen != len(self.graph.readers):
            raise ModelError(
                f"Only {self._seen} of this model's {len(self.graph.readers)} readers got a gradient.",
                "Its scores would be incomplete, so there are none; please report the architecture.",
            )
        mask = torch.from_numpy(self.graph.mask).to(self._scores.device)
        return self._scores.where(mask, self._scores.new_zeros(()))

    def _multiply(self) -> None:
        if self._waiting:
            before = int(self.graph.writers_before[self._waiting].max())
            slots = bisect_left(self._kept, before)
            self._multiply_by(self._kept[:slots], self._written[:, :slots])
            self._multiply_by_heads(before)
            self._seen += len(self._waiting)
            self._waiting.clear()

    def _multiply_by_heads(self, before: int) -> None:
        """Make the outputs of heads that wrote before, as many layers' as there is room for, and use them."""
        places: list[int] = []
        for writers, outputs in self._divided:
            if writers.start >= before:
                break
            if len(places) + len(writers) > self._made.shape[1]:
                self._multiply_by(places, self._made[:, : len(places)])
                places = []
            outputs.write(self._made[:, len(places) : len(places) + len(writers)])
            places.extend(writers)
        if places:
            self._multiply_by(places, self._made[:, : len(places)])

    def _multiply_by(self, writers: list[int], written: Float[Tensor, "sample writer position width"]) -> None:
        products = self._product(written, self._read[:, : len(self._waiting)])
        self._scores[..., torch.tensor(writers)[:, None], torch.tensor(self._waiting)] = -products

    def _product(
        self,
        written: Float[Tensor, "sample writer position width"],
        read: Float[Tensor, "sample reader position width"],
    ) -> Float[Tensor, "*sample writer reader"]:
        return torch.bmm(written.flatten(2), read.flatten(2).transpose(1, 2))


class _ProductsByPosition(_Products):
    """The same products, summed over the width only."""

    def _shape(self, samples: int, positions: int) -> tuple[int, ...]:
        return (samples, positions)

    def _product(
        self,
        written: Float[Tensor, "sample writer position width"],
        read: Float[Tensor, "sample reader position width"],
    ) -> Float[Tensor, "sample position writer reader"]:
        return written.transpose(1, 2) @ read.permute(0, 2, 3, 1)


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
