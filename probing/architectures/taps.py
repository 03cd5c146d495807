"""Where the gradients of readers that share a norm are taken apart: behind it, where each goes a way of its own.

Each kind of tap registers hooks for one pass and reports, part by part, the gradient at the norm's output through that
part alone. What comes back through several modules of one part adds up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from probing.architectures.norms import Norm, wide
from probing.errors import ModelError

Residual = Float[Tensor, "sample position width"]


@dataclass(frozen=True)
class Gradient:
    """The gradient at a norm's output through each of some parts: `given`, pulled back through `matrix` if need be."""

    given: Float[Tensor, "sample part position row"]
    matrix: Float[Tensor, "part row width"] | None = None

    def add_to(self, out: Float[Tensor, "sample part position width"], first: bool) -> None:
        """Write it into a tensor, or add it to what is there already."""
        value = self.given if self.matrix is None else self.given @ self.matrix.to(self.given)
        if first:
            out.copy_(value)
        else:
            out.add_(value.to(out.device))


Take = Callable[[range, Gradient], None]
"""Told some parts, and the gradient at the norm's output through each."""


Instead = Callable[[int], Residual | None]
"""Asked for a part, gives what it reads instead of what the norm gives out; None if it reads just that."""


class Taps(Protocol):
    """How some parts read what a norm gives out."""

    @property
    def parts(self) -> int:
        """How many."""

    def hooks(self, take: Take) -> list[Any]:
        """Hooks that take the gradients, registered for one pass."""

    def rewriting_hooks(self, instead: Instead) -> list[Any]:
        """Hooks that let each part read something else, registered for one pass."""


@dataclass(frozen=True)
class Apart:
    """Each part has modules of its own: `q_proj`, `k_proj`, `v_proj`, or an MLP, or an attention block as one."""

    modules: tuple[tuple[nn.Module, ...], ...]

    @property
    def parts(self) -> int:
        """How many."""
        return len(self.modules)

    def hooks(self, take: Take) -> list[Any]:
        """At each module's input."""

        def hook(part: int) -> Callable:
            def back(gradient: Tensor) -> None:
                take(range(part, part + 1), Gradient(gradient[:, None]))

            def read(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
                return replaced(args, kwargs, own_view(given(args, kwargs), back))

            return read

        return self._before_each(hook)

    def rewriting_hooks(self, instead: Instead) -> list[Any]:
        """At each module's input."""

        def hook(part: int) -> Callable:
            def read(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
                other = instead(part)
                return None if other is None else replaced(args, kwargs, other.view(given(args, kwargs).shape))

            return read

        return self._before_each(hook)

    def _before_each(self, hook: Callable[[int], Callable]) -> list[Any]:
        return [
            module.register_forward_pre_hook(hook(part), with_kwargs=True)
            for part, modules in enumerate(self.modules)
            for module in modules
        ]


@dataclass(frozen=True)
class Rows:
    """Outputs of a linear module that belong to some parts, equally many to each."""

    module: nn.Module
    first: int
    """The first of the parts."""
    rows: Int[Tensor, "part row"]

    @property
    def parts(self) -> range:
        """Whose they are."""
        return range(self.first, self.first + len(self.rows))

    def pulled_back(self, gradient: Float[Tensor, "sample position out"]) -> Gradient:
        """The gradient at the module's input through each part, from that at its output."""
        matrix, rows = matrix_of(self.module), self.rows
        if self._is_all:
            own, matrix = gradient.unflatten(-1, rows.shape), matrix.unflatten(0, rows.shape)
        else:
            rows = rows.to(gradient.device)
            own, matrix = gradient[..., rows], matrix[rows.to(matrix.device)]
        return Gradient(own.transpose(1, 2), matrix)

    @cached_property
    def _is_all(self) -> bool:
        """Whether they are all outputs of the module, in order, so that nothing need be picked out."""
        return torch.equal(self.rows.flatten(), torch.arange(matrix_of(self.module).shape[0]))

    def rewritten(self, output: Tensor, instead: Instead) -> Tensor:
        """The module's output as it would be if each part had read what it is to read."""
        matrix, bias = matrix_of(self.module), getattr(self.module, "bias", None)
        for part, rows in zip(self.parts, self.rows, strict=True):
            if (other := instead(part)) is not None:
                made = nn.functional.linear(other, matrix[rows], None if bias is None else bias[rows])
                output = output.index_copy(-1, rows.to(output.device), made)
        return output


@dataclass(frozen=True)
class AtOutputs:
    """Parts that are told apart by the outputs of the modules that read for them.

    One module may make q, k and v (`query_key_value`), and each makes those of all heads.
    """

    rows: tuple[Rows, ...]

    @property
    def parts(self) -> int:
        """How many."""
        return max(rows.parts.stop for rows in self.rows)

    def hooks(self, take: Take) -> list[Any]:
        """At each module's output."""

        def hook(mine: list[Rows]) -> Callable:
            def back(gradient: Tensor) -> None:
                for rows in mine:
                    take(rows.parts, rows.pulled_back(gradient))

            def made(module: nn.Module, args: tuple, output: Tensor) -> None:
                if output.requires_grad:
                    output.register_hook(back)  # of itself: it may be changed in place, which a view would not notice

            return made

        return self._after_each(hook)

    def rewriting_hooks(self, instead: Instead) -> list[Any]:
        """At each module's output."""

        def hook(mine: list[Rows]) -> Callable:
            def made(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
                for rows in mine:
                    output = rows.rewritten(output, instead)
                return output

            return made

        return self._after_each(hook)

    def _after_each(self, hook: Callable[[list[Rows]], Callable]) -> list[Any]:
        modules = dict.fromkeys(rows.module for rows in self.rows)
        return [
            module.register_forward_hook(hook([rows for rows in self.rows if rows.module is module]))
            for module in modules
        ]


@dataclass(frozen=True)
class LowRank:
    """Queries of heads that are made by way of fewer numbers (DeepSeek-V2): `down` makes them, `norm` normalises them,
    and `up` makes the queries."""

    down: nn.Module
    between: nn.Module
    norm: Norm
    """What `between` does."""
    up: Rows

    @property
    def parts(self) -> int:
        """How many."""
        return len(self.up.parts)

    def hooks(self, take: Take) -> list[Any]:
        """At both modules' outputs."""
        latent = torch.empty(0)

        def lowered(module: nn.Module, args: tuple, output: Tensor) -> None:
            nonlocal latent
            latent = output.detach()

        def raised(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            def back(gradient: Tensor) -> None:
                pulled = self.up.pulled_back(gradient)
                through = wide(latent).new_empty(latent.shape[0], self.parts, *latent.shape[1:])
                pulled.add_to(through, first=True)
                self.norm.pull_back(latent, through)
                take(self.up.parts, Gradient(through, matrix_of(self.down)[None]))

            return own_view(output, back)

        return [self.down.register_forward_hook(lowered), self.up.module.register_forward_hook(raised)]

    def rewriting_hooks(self, instead: Instead) -> list[Any]:
        """At the output of what makes the queries."""

        def lowered(part: int) -> Tensor | None:
            other = instead(part)
            return None if other is None else self.between.forward(self.down.forward(other))

        def raised(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            return self.up.rewritten(output, lowered)

        return [self.up.module.register_forward_hook(raised)]


@dataclass(frozen=True)
class Several:
    """Taps of the same parts side by side: queries and the gates on them."""

    taps: tuple[Taps, ...]

    @property
    def parts(self) -> int:
        """How many."""
        return max(taps.parts for taps in self.taps)

    def hooks(self, take: Take) -> list[Any]:
        """Those of each."""
        return [handle for taps in self.taps for handle in taps.hooks(take)]

    def rewriting_hooks(self, instead: Instead) -> list[Any]:
        """Those of each."""
        return [handle for taps in self.taps for handle in taps.rewriting_hooks(instead)]


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2): k and v are made from one latent vector, k's rotary part beside it.

    `down` makes [latent | rotary], `norm` normalises the latent, `up` makes k and v of it. What comes back from the
    rows of `up` that make v is pulled back through `up` and `norm`: that is v's share of the gradient at `down`'s
    output. The rest, the rotary part with it, is k's.
    """

    queries: Taps
    down: nn.Module
    between: nn.Module
    norm: Norm
    """What `between` does."""
    up: nn.Module
    value_rows: Int[Tensor, " row"]

    @property
    def parts(self) -> int:
        """Those of the queries, then k and v, which all heads share."""
        return self.queries.parts + 2

    def hooks(self, take: Take) -> list[Any]:
        """At the queries' inputs and both projections' outputs."""
        width, key = matrix_of(self.up).shape[1], self.queries.parts
        latent, through_value = torch.empty(0), torch.empty(0)

        def raised(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            def back(gradient: Tensor) -> None:
                nonlocal through_value
                rows = self.value_rows.to(gradient.device)
                at_norm = (gradient[..., rows] @ matrix_of(module)[rows]).view(*latent.shape)
                through_value = wide(at_norm)[:, None]
                self.norm.pull_back(latent, through_value)

            return own_view(output, back)

        def lowered(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            nonlocal latent
            latent = output[..., :width].detach()

            def back(gradient: Tensor) -> None:
                value = torch.zeros_like(gradient)
                value[..., :width] = through_value[:, 0]
                both = torch.stack([gradient - value, value], 1)
                take(range(key, key + 2), Gradient(both, matrix_of(module)[None]))

            return own_view(output, back)

        return [
            *self.queries.hooks(take),
            self.down.register_forward_hook(lowered),
            self.up.register_forward_hook(raised),
        ]

    def rewriting_hooks(self, instead: Instead) -> list[Any]:
        """At the queries, and at both projections' outputs."""
        width, key = matrix_of(self.up).shape[1], self.queries.parts

        def lowered(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            if (other := instead(key)) is None:
                return output
            return torch.cat([output[..., :width], self.down.forward(other)[..., width:]], -1)

        def raised(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            is_value = torch.zeros(output.shape[-1], dtype=torch.bool, device=output.device)
            is_value[self.value_rows] = True
            for part, mine in ((key, ~is_value), (key + 1, is_value)):
                if (other := instead(part)) is not None:
                    latent = self.between.forward(self.down.forward(other)[..., :width])
                    output = torch.where(mine, self.up.forward(latent), output)
            return output

        return [
            *self.queries.rewriting_hooks(instead),
            self.down.register_forward_hook(lowered),
            self.up.register_forward_hook(raised),
        ]


def matrix_of(module: nn.Module) -> Float[Tensor, "out width"]:
    """The matrix of a linear layer; transformers' Conv1D keeps its transpose."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight if isinstance(module, nn.Linear) else weight.T


def bare(module: nn.Module) -> nn.Module:
    """A linear module that is all there is in another (Moshi), or the module itself."""
    children = list(module.children())
    return children[0] if len(children) == 1 and is_linear(children[0]) and not is_linear(module) else module


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix, and perhaps a bias."""
    return isinstance(module, nn.Linear | Conv1D)


def own_view(read: Tensor, take: Callable[[Tensor], None]) -> Tensor:
    """The same numbers, whose gradient is that of who reads them here."""
    view = read.view_as(read)
    if view.requires_grad:
        view.register_hook(take)
    return view


def given(args: tuple, kwargs: dict) -> Tensor:
    """What a module reads: its first argument, or its `hidden_states`.

    Raises:
        ModelError: neither is there.
    """
    read = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(read, Tensor):
        raise ModelError("A block of this model is not called with what it reads first.", "It is not supported.")
    return read


def replaced(args: tuple, kwargs: dict, read: Tensor) -> tuple[tuple, dict]:
    """The same arguments with another thing to read."""
    return ((read, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": read})
