"""Where the gradients of readers that share a norm are taken apart: behind it, where each goes a way of its own.

Each kind of tap registers hooks for one pass and reports, part by part, the gradient at the norm's output through that
part alone. What comes back through several modules of one part adds up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probing.architectures.norms import Norm, wide
from probing.errors import ModelError

Residual = Float[Tensor, "sample position width"]

Take = Callable[[int, Residual], None]
"""Told a part, and the gradient at the norm's output through it."""


class Taps(Protocol):
    """How some parts read what a norm gives out."""

    @property
    def parts(self) -> int:
        """How many."""

    def hooks(self, take: Take) -> list[Any]:
        """Registered for one pass."""


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
            def read(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
                return replaced(args, kwargs, own_view(given(args, kwargs), lambda gradient: take(part, gradient)))

            return read

        return [
            module.register_forward_pre_hook(hook(part), with_kwargs=True)
            for part, modules in enumerate(self.modules)
            for module in modules
        ]


@dataclass(frozen=True)
class Fused:
    """One module makes q, k and v; `rows` of its output tell them apart."""

    module: nn.Module
    rows: tuple[Int[Tensor, " row"], ...]
    parts: int = 3

    def hooks(self, take: Take) -> list[Any]:
        """At its output, from where each part is pulled back through its rows of the matrix."""

        def made(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            def back(gradient: Tensor) -> None:
                for part, rows in enumerate(self.rows):
                    rows = rows.to(gradient.device)
                    take(part, gradient[..., rows] @ _matrix(module)[rows])

            return own_view(output, back)

        return [self.module.register_forward_hook(made)]


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2): k and v are made from one latent vector, k's rotary part beside it.

    `down` makes [latent | rotary], `norm` normalises the latent, `up` makes k and v of it. What comes back from the
    rows of `up` that make v is pulled back through `up` and `norm`: that is v's share of the gradient at `down`'s
    output. The rest, the rotary part with it, is k's.
    """

    queries: tuple[nn.Module, ...]
    down: nn.Module
    norm: Norm
    up: nn.Module
    value_rows: Int[Tensor, " row"]
    parts: int = 3

    def hooks(self, take: Take) -> list[Any]:
        """At the queries' inputs and both projections' outputs."""
        width = _matrix(self.up).shape[1]
        latent, through_value = torch.empty(0), torch.empty(0)

        def raised(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            def back(gradient: Tensor) -> None:
                nonlocal through_value
                rows = self.value_rows.to(gradient.device)
                at_norm = (gradient[..., rows] @ _matrix(module)[rows]).view(*latent.shape)
                through_value = wide(at_norm)[:, None]
                self.norm.pull_back(latent, through_value)

            return own_view(output, back)

        def lowered(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            nonlocal latent
            latent = output[..., :width].detach()

            def back(gradient: Tensor) -> None:
                value = torch.zeros_like(gradient)
                value[..., :width] = through_value[:, 0]
                take(1, (gradient - value) @ _matrix(module))
                take(2, value @ _matrix(module))

            return own_view(output, back)

        return [
            *Apart((self.queries,)).hooks(take),
            self.down.register_forward_hook(lowered),
            self.up.register_forward_hook(raised),
        ]


def _matrix(module: nn.Module) -> Float[Tensor, "out width"]:
    """The matrix of a linear layer; transformers' Conv1D keeps its transpose."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight if isinstance(module, nn.Linear) else weight.T


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
