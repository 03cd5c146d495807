"""Gradients at a norm's output, pulled back to its input in closed form.

q, k and v share a norm, and each is to have a gradient of its own. Running the norm three times would do it, but three
times as slowly.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """An elementwise gain after division by the root mean square, after standardisation, or no norm at all."""

    kind: Literal["rms", "layer", "none"]
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
        if self.kind == "layer":
            x = x - x.mean(-1, keepdim=True)
        width = x.shape[-1]
        s = (torch.linalg.vecdot(x, x)[..., None] / width + self.eps).rsqrt()
        overlap = torch.linalg.vecdot(out, x * self.gain)[..., None]
        if self.kind == "layer":
            means = torch.linalg.vecdot(out, self.gain.expand_as(x))[..., None] / width
            out.mul_(s * self.gain).sub_(s * means)
        else:
            out.mul_(s * self.gain)
        out.addcmul_(x, overlap * (s**3 / -width))


def wide(tensor: Tensor) -> Tensor:
    """In float32, or float64 where it is that already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def norm_of(module: nn.Module | None, width: int) -> Norm:
    """What a module does, its epsilon, and its gain as read off its response to a vector.

    A gain that is stored with an offset (1 + weight) is thus the one that the module applies.
    """
    if module is None:
        return Norm("none")
    if isinstance(module, nn.LayerNorm):
        gain = module.weight if module.weight is not None else torch.ones(width)
        return Norm("layer", float(module.eps), wide(gain.detach()))
    eps = getattr(module, "variance_epsilon", None)
    eps = float(module.eps if eps is None else eps)  # type: ignore[arg-type]
    (weight,) = module.parameters()
    with torch.no_grad():
        response = module.forward(torch.ones(width, dtype=weight.dtype, device=weight.device))
    return Norm("rms", eps, wide(response) * (1 + eps) ** 0.5)
