"""Hooks that change what readers read, each on its own, as a forward pass goes.

Where several readers share a norm, it runs for each on what that one reads, and so does what makes q, k and v. Every
later block is computed as the model does it, from what was changed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from probing.architectures.families import Architecture, Reading
from probing.architectures.taps import Residual, given, replaced
from probing.architectures.writing import Written, hooked


class Intervention(Written):
    """Told what is written, says what is read."""

    def reads(self, readers: range, residual: Residual) -> Mapping[int, Residual]:
        """What some of these readers, by their indices in `ResidualGraph.readers`, read instead of the residual."""
        return {}


@contextmanager
def rewriting(architecture: Architecture, intervention: Intervention) -> Iterator[None]:
    """Hook the model for the one pass made inside; the hooks are gone afterwards, whatever happens.

    Raises:
        ModelError: by the pass inside, as `writing_hooks` says.
    """

    def reading_hooks(readers: range, reading: Reading) -> list[Any]:
        return _Rewritten(readers, reading, intervention).hooks()

    with hooked(architecture, intervention, reading_hooks):
        yield


class _Rewritten:
    """Readers of one residual."""

    def __init__(self, readers: range, reading: Reading, intervention: Intervention) -> None:
        self._readers, self._reading, self._intervention = readers, reading, intervention
        self._normed: dict[int, Residual] = {}

    def hooks(self) -> list[Any]:
        """The hooks, registered."""
        handles = [self._reading.place.register_forward_pre_hook(self._read, with_kwargs=True)]
        first = 0
        for taps in self._reading.taps:
            handles += taps.rewriting_hooks(lambda part, first=first: self._normed.get(first + part))  # type: ignore[misc]
            first += taps.parts
        return handles

    def _read(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        residual = given(args, kwargs)
        others = self._intervention.reads(self._readers, residual)
        if not self._reading.taps:
            return replaced(args, kwargs, others[self._readers.start]) if others else None
        norm = (lambda x: x) if self._reading.norm.kind == "none" else module.forward
        self._normed = {reader - self._readers.start: norm(other) for reader, other in others.items()}
        return None
