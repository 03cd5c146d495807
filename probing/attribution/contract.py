"""From what a pass writes and the gradients that come back, one score for each edge, as the backward pass goes.

With D what replaces a writer's output less the output (its *change*), a score is <gradient at the reader, D>. Heads are
kept as the values that they are made of; their full-width changes are made anew, a few layers at a time, for every few
readers, which costs less than keeping them and far less than projecting every reader's gradient to the width of a head.

`norm-exact` takes the reader's norm as it is instead of its tangent: <gradient behind the norm, norm(r + D) - norm(r)>,
r being the residual that the reader reads. With u = gain·gradient, and r, D and u less their own means where the norm
is a layer norm, norm(x) = gain·x·s(x) + bias with s(x) = (|x|²/width + eps)^(-1/2) makes of it, at each position,

    (<u, r> + <u, D>)·s(r + D) - <u, r>·s(r)        with |r + D|² = |r|² + 2<r, D> + |D|²

so it needs nothing but products of the same vectors, position by position.
"""

from bisect import bisect_left
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probing.architectures import Architecture, HeadOutputs, Influence, Norm, Observer, Residual, wide
from probing.attribution.stand_ins import StandIns
from probing.errors import ModelError
from probing.fitting import KEPT_READERS, KEPT_READERS_OF_HEADS

_SMALL_REST = 0.01
"""The share of |r|² below which |r + D|² is measured on r + D itself: in float32 little is left of it otherwise."""


class Products(Observer):
    """<gradient, change> for every edge and sample: a matrix product for every few readers as the backward pass goes.

    What is observed is copied, while it is in the processor's cache, into two buffers that serve batch after batch;
    the model's own tensors are free to go. A batch may have several passes, each with the embedding at another share
    of its way from what stands in for it: changes are those of the first pass, which has the embedding itself, and
    gradients add up.
    """

    rows_beside = 0
    """How many rows a group of readers has beside its own."""

    def __init__(self, architecture: Architecture, by_position: bool = False) -> None:
        self.graph = architecture.graph
        self._by_position = by_position
        """Whether scores stay apart by position."""
        self._like = architecture.weight
        self._buffers = torch.empty(0)
        layers = [layer for layer, division in enumerate(architecture.divisions) if division is not None]
        parts = {place for layer in layers for place in self.graph.attention_writers(layer)}
        self._kept = [place for place in range(len(self.graph.writers)) if place not in parts]
        self._slots = {place: slot for slot, place in enumerate(self._kept)}
        most = max(len(readers) for readers, _ in architecture.readings) + self.rows_beside
        self._at_once = max(most, KEPT_READERS_OF_HEADS if layers else KEPT_READERS)

    def begin(self, samples: int, positions: int, stand_ins: StandIns) -> None:
        """Make ready for a batch."""
        rows = [len(self._kept), self._at_once, self._at_once if len(self._kept) < len(self.graph.writers) else 0]
        size = samples * sum(rows) * positions * self._like.shape[1]
        if self._buffers.numel() < size:
            kind = torch.promote_types(self._like.dtype, torch.float32)
            self._buffers = self._changes = self._read = self._made = torch.empty(0)  # the last ones go first
            self._buffers = torch.empty(size, dtype=kind, device=self._like.device)
        parts = self._buffers[:size].split([samples * count * positions * self._like.shape[1] for count in rows])
        self._changes, self._read, self._made = (
            self._laid_out(part, samples, count, positions) for part, count in zip(parts, rows, strict=True)
        )
        whose = (samples, positions) if self._by_position else (samples,)
        self._scores = self._changes.new_zeros(*whose, *self.graph.mask.shape)
        self._stand_ins = stand_ins
        self._divided: list[tuple[range, HeadOutputs]] = []
        self._embedding: Residual | None = None
        self._waiting: list[int] = []
        self._rows = self._seen = self._passes = 0

    def _laid_out(
        self, buffer: Float[Tensor, " any"], samples: int, count: int, positions: int
    ) -> Float[Tensor, "sample row position width"]:
        """A buffer as vectors, beside each other in the order in which products are taken of them."""
        if not self._each_position:
            return buffer.view(samples, count, positions, self._like.shape[1])
        return buffer.view(samples, positions, count, self._like.shape[1]).transpose(1, 2)

    @property
    def _each_position(self) -> bool:
        """Whether products are taken position by position."""
        return self._by_position

    def pass_at(self, share: float) -> None:
        """Make ready for a pass with the embedding at this share of the way; the first has all of it."""
        self._share = share
        self._passes += 1

    # -- what is observed ------------------------------------------------------------------------------------------

    def starts(self, embedding: Residual) -> Residual:
        """The embedding at the share of its way."""
        if self._passes == 1:
            self._embedding = embedding.detach()
            return embedding
        assert self._embedding is not None
        whole = wide(self._embedding)
        return (whole + (1 - self._share) * self._stand_ins.change(0, whole)).to(embedding.dtype)

    def wrote(self, writer: int, output: Residual) -> None:
        """Keep the change of what a writer wrote."""
        if self._passes == 1:
            self._changes[:, self._slots[writer]].copy_(self._stand_ins.change(writer, wide(output.detach())))

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        """Keep what the changes of a block's heads are made of."""
        if self._passes == 1:
            self._divided.append((writers, self._stand_ins.change_of_heads(writers, outputs)))

    def influenced(self, influence: Influence) -> None:
        """Use the gradients of some readers."""
        influence.write(self._room_for(influence, len(influence.readers)))

    def _room_for(self, influence: Influence, rows: int) -> Float[Tensor, "sample row position width"]:
        """Rows for what readers read, after products have been taken of what waits if there is no room."""
        if self._rows + rows > self._at_once:
            self._multiply()
        start, self._rows = self._rows, self._rows + rows
        self._waiting.extend(influence.readers)
        return self._read[:, start : self._rows]

    def finish_pass(self) -> None:
        """Use what waits."""
        self._multiply()
        if self._seen != len(self.graph.readers) * self._passes:
            raise ModelError(
                f"Only {self._seen} of this model's {len(self.graph.readers)} readers got a gradient.",
                "Its scores would be incomplete, so there are none; please report the architecture.",
            )

    def finish(self) -> Float[Tensor, "*sample writer reader"]:
        """The scores of the batch, means over its passes; zero where there is no edge."""
        mask = torch.from_numpy(self.graph.mask).to(self._scores.device)
        return self._scores.where(mask, self._scores.new_zeros(())) / self._passes

    # -- products --------------------------------------------------------------------------------------------------

    def _multiply(self) -> None:
        if self._waiting:
            before = int(self.graph.writers_before[self._waiting].max())
            slots = bisect_left(self._kept, before)
            self._multiply_by(self._kept[:slots], self._changes[:, :slots])
            self._multiply_by_heads(before)
            self._seen += len(self._waiting)
            self._waiting.clear()
            self._rows = 0

    def _multiply_by_heads(self, before: int) -> None:
        """Make the changes of heads that wrote before, as many layers' as there is room for, and use them."""
        places: list[int] = []
        for writers, changes in self._divided:
            if writers.start >= before:
                break
            if len(places) + len(writers) > self._made.shape[1]:
                self._multiply_by(places, self._made[:, : len(places)])
                places = []
            changes.write(self._made[:, len(places) : len(places) + len(writers)])
            places.extend(writers)
        if places:
            self._multiply_by(places, self._made[:, : len(places)])

    def _multiply_by(self, writers: list[int], changes: Float[Tensor, "sample writer position width"]) -> None:
        products = self._products(changes, self._read[:, : self._rows])
        self._scores[..., torch.tensor(writers)[:, None], torch.tensor(self._waiting)] += products

    def _products(
        self,
        changes: Float[Tensor, "sample writer position width"],
        read: Float[Tensor, "sample row position width"],
    ) -> Float[Tensor, "*sample writer row"]:
        if not self._each_position:
            return torch.bmm(changes.flatten(2), read.flatten(2).transpose(1, 2))
        return changes.transpose(1, 2) @ read.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class _Behind:
    """Readers behind one norm: where their rows are, that of the residual after them, and what the norm does."""

    norm: Norm
    first: int
    end: int
    reads: Float[Tensor, "sample position reader"]
    """<u, r>."""
    squares: Float[Tensor, "sample position 1"]
    """|r|² + width·eps."""


class ExactNorms(Products):
    """<gradient behind the norm, norm(r + change) - norm(r)> for every edge and sample."""

    behind_norms = True
    rows_beside = 1

    @property
    def _each_position(self) -> bool:
        return True

    def begin(self, samples: int, positions: int, stand_ins: StandIns) -> None:
        """Make ready for a batch."""
        super().begin(samples, positions, stand_ins)
        self._groups: list[_Behind] = []

    def influenced(self, influence: Influence) -> None:
        """Use the gradients of some readers behind their norm."""
        norm, count = influence.norm, len(influence.readers)
        if norm.kind == "unknown":
            raise ModelError(
                f"What stands before '{self.graph.readers[influence.readers.start]}' is no norm that is known, so it "
                "cannot be taken exactly.",
                "Choose --method eap or eap-ig.",
            )
        rows = self._room_for(influence, count + self.rows_beside)
        first = self._rows - len(rows[0])
        u, residual = rows[:, :count], rows[:, count]
        influence.write_behind(u)
        if norm.kind == "none":
            residual.zero_()
        else:
            assert norm.gain is not None
            residual.copy_(influence.residual.view(residual.shape))
            u.mul_(norm.gain.to(u))
            if norm.kind == "layer":
                residual.sub_(residual.mean(-1, keepdim=True))
                u.sub_(u.mean(-1, keepdim=True))
        reads = torch.linalg.vecdot(u, residual[:, None]).transpose(1, 2)
        squares = residual.square().sum(-1, keepdim=True) + residual.shape[-1] * norm.eps
        self._groups.append(_Behind(norm, first, first + count, reads, squares))

    def _multiply(self) -> None:
        super()._multiply()
        self._groups = []

    def _products(
        self,
        changes: Float[Tensor, "sample writer position width"],
        read: Float[Tensor, "sample row position width"],
    ) -> Float[Tensor, "*sample writer reader"]:
        products = super()._products(changes, read)
        squares = torch.linalg.vecdot(changes, changes).transpose(1, 2)
        parts = [self._behind(group, products, squares, changes, read) for group in self._groups]
        return torch.cat(parts, -1)

    def _behind(
        self,
        group: _Behind,
        products: Float[Tensor, "sample position writer row"],
        squares: Float[Tensor, "sample position writer"],
        changes: Float[Tensor, "sample writer position width"],
        read: Float[Tensor, "sample row position width"],
    ) -> Float[Tensor, "*sample writer reader"]:
        """The scores of one group's readers.

        With t = (|r + D|² - |r|²) / (|r|² + width·eps), s(r + D) is s(r)·(1 + t)^(-1/2), whose difference from s(r) is
        taken without losing digits.
        """
        through, width = products[..., group.first : group.end], changes.shape[-1]
        if group.norm.kind != "none":
            if group.norm.kind == "layer":
                squares = squares - width * changes.mean(-1).square().transpose(1, 2)
            t = (2 * products[..., group.end] + squares) / group.squares
            grown = torch.expm1(-0.5 * torch.log1p(t.clamp_min(_SMALL_REST - 1)))
            scale = (width / group.squares).sqrt()
            through = ((1 + grown)[..., None] * through + grown[..., None] * group.reads[:, :, None]) * scale[..., None]
            self._measure_rests(group, t < _SMALL_REST - 1, changes, read, scale, through)
        return through if self._by_position else through.sum(1)

    def _measure_rests(
        self,
        group: _Behind,
        small: Tensor,
        changes: Float[Tensor, "sample writer position width"],
        read: Float[Tensor, "sample row position width"],
        scale: Float[Tensor, "sample position 1"],
        through: Float[Tensor, "sample position writer reader"],
    ) -> None:
        """Write the scores where a change leaves next to nothing of the residual: `input` is all that `a0` reads."""
        sample, position, writer = small.nonzero(as_tuple=True)
        if not len(sample):
            return
        rest = read[sample, group.end, position] + changes[sample, writer, position]
        if group.norm.kind == "layer":
            rest = rest - rest.mean(-1, keepdim=True)
        u = read[sample, group.first : group.end, position]
        after = (rest.square().mean(-1, keepdim=True) + group.norm.eps).rsqrt() * (u @ rest[..., None])[..., 0]
        through[sample, position, writer] = after - group.reads[sample, position] * scale[sample, position]
