"""From what a pass writes and the gradients that come back, one score for each edge, as the backward pass goes.

A score is -<gradient, writer>. Heads are kept as the values that they are made of; their full-width outputs are made
anew, a few layers at a time, for every few readers, which costs less than keeping them and far less than projecting
every reader's gradient to the width of a head.
"""

from bisect import bisect_left

import torch
from jaxtyping import Float
from torch import Tensor

from probing.architectures import Architecture, HeadOutputs, Observer, WriteGradients
from probing.errors import ModelError
from probing.fitting import KEPT_READERS, KEPT_READERS_OF_HEADS


class Products(Observer):
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

    def begin(self, samples: int, positions: int) -> None:
        """Make ready for a batch."""
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


class ProductsByPosition(Products):
    """The same products, summed over the width only."""

    def _shape(self, samples: int, positions: int) -> tuple[int, ...]:
        return (samples, positions)

    def _product(
        self,
        written: Float[Tensor, "sample writer position width"],
        read: Float[Tensor, "sample reader position width"],
    ) -> Float[Tensor, "sample position writer reader"]:
        return written.transpose(1, 2) @ read.permute(0, 2, 3, 1)
