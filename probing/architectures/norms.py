"""Gradients at a norm's output, pulled back to its input in closed form.

Several readers may share a norm (q, k and v do), and each is to have a gradient of its own. Running the norm once for
each would do it, but as many times as slowly.
"""

import copy
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """An elementwise gain after division by the root mean square, after standardisation, or no norm at all.

    Of an unknown kind are norms of a single reader that do something else: autograd alone goes through them.
    """

    kind: Literal["rms", "layer", "none", "unknown"]
    eps: float = 0.0
    gain: Float[Tensor, " width"] | None = None

    def pull_back(
        self, residual: Float[Tensor, "sample position width"], out: Float[Tensor, "sample reader position width"]
    ) -> None:
        """Turn the gradients in `out`, at the norm's output, into those at its input `residual`.

        With x̂ = s·(x - μ), s = (mean (x - μ)² + eps)^(-1/2) and u = gain·dL/dy, a layer norm has
        dL/dx = s·(u - mean u - x̂·mean(u·x̂)); a root-mean-square norm has μ = 0 and no mean of u.
        """
        if self.kind == "none":
            return
        assert self.gain is not None
        x = wide(residual)[:, None]
        gain = self.gain.to(x)
        if self.kind == "layer":
            x = x - x.mean(-1, keepdim=True)
        width = x.shape[-1]
        s = (torch.linalg.vecdot(x, x)[..., None] / width + self.eps).rsqrt()
        overlap = torch.linalg.vecdot(out, x * gain)[..., None]
        if self.kind == "layer":
            means = torch.linalg.vecdot(out, gain.expand_as(x))[..., None] / width
            out.mul_(s * gain).sub_(s * means)
        else:
            out.mul_(s * gain)
        out.addcmul_(x, overlap * (s**3 / -width))


NO_NORM, UNKNOWN_NORM = Norm("none"), Norm("unknown")


def wide(tensor: Tensor) -> Tensor:
    """In float32, or float64 where it is that already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@torch.no_grad()
def norm_of(module: nn.Module, width: int) -> Norm | None:
    """What a module does, as read off its responses to a few vectors; None if it is no norm of the two kinds.

    A gain that is stored with an offset (1 + weight) is thus the one that the module applies, and a kind is not
    believed by its name.
    """
    if isinstance(module, nn.Identity):
        return NO_NORM
    tensor = next(chain(module.parameters(), module.buffers()), torch.empty(0))
    like = torch.empty(0, dtype=torch.promote_types(tensor.dtype, torch.float32), device=tensor.device)
    copied = copy.deepcopy(module).to(like.dtype)

    def respond(x: Tensor) -> Tensor:
        response = copied.forward(x[None, None])
        if not isinstance(response, Tensor) or response.numel() != width:
            raise ValueError("not one vector for another")
        return response.flatten().to(like.dtype)

    x = torch.ones(width).to(like)
    x[1::2] = -1
    if width % 2:
        x[-1] = -1 if width == 1 else -2  # without a mean, and nowhere zero
    if width % 2 and width > 1:
        x[-2] = x[-3] = 1
    try:
        there, back, shifted = respond(x), respond(-x), respond(x + 3)
        eps = _epsilon(copied)
        gain = (there - back) / 2 / x * (x.square().mean() + eps).sqrt()
        bias = (there + back) / 2
        centred = torch.linalg.vector_norm(shifted - there) < 1e-2 * torch.linalg.vector_norm(there)
        norm = Norm("layer" if centred else "rms", eps, gain)
        trial = torch.linspace(-1, 2, width).to(like).flip(0) * 1e-2
        about = trial - trial.mean() if centred else trial
        expected = gain * about * (about.square().mean() + eps).rsqrt() + bias
        miss = torch.linalg.vector_norm(respond(trial) - expected) / torch.linalg.vector_norm(expected)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return None
    return norm if miss < 1e-3 else None


def _epsilon(module: nn.Module) -> float:
    """As the module names it; the one of OLMo's, which has no name, is 1e-5, and the trial in `norm_of` checks it."""
    names = (getattr(module, name, None) for name in ("variance_epsilon", "eps", "epsilon"))
    return next((float(eps) for eps in names if isinstance(eps, float | int)), 1e-5)
