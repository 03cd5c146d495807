"""The proof, at load, that a model's residual stream is what its `Architecture` says.

The writers' sum must equal each reader's input, the hooks must not change the logits, and the readers' gradients must
add up to the gradient of the first block's input. A model that fails is refused: its scores would be wrong without
looking wrong.
"""

from itertools import accumulate

import torch
from torch import Tensor

from probing.architectures.families import Architecture
from probing.architectures.norms import wide
from probing.architectures.recording import Observer, Residual, WriteGradients, recording
from probing.errors import ModelError
from probing.residual_graph import node_of

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Largest relative difference (Frobenius norm) that rounding explains, by the weights' dtype.

transformers computes norms and rotary embeddings in float32 even where the weights are float64.
"""


def _relative(a: Tensor, b: Tensor) -> float:
    scale = b.double().norm().clamp_min(1e-30)
    return float((a.double() - b.double()).norm() / scale)


class _Evidence(Observer):
    """Everything that a pass reports, for `prove`."""

    def __init__(self) -> None:
        self.embedding: Residual | None = None
        self.written: dict[int, Residual] = {}
        self.residuals: list[Residual] = []
        self.gradients: dict[int, Residual] = {}

    def embedded(self, embedding: Residual) -> None:
        self.embedding = embedding

    def wrote(self, writer: int, output: Residual) -> None:
        self.written[writer] = output

    def read(self, residual: Residual) -> None:
        self.residuals.append(residual)

    def influenced(self, readers: range, write_gradients: WriteGradients) -> None:
        samples, positions, width = self.written[0].shape
        out = wide(self.written[0]).new_empty(samples, len(readers), positions, width)
        write_gradients(out)
        self.gradients.update(zip(readers, out.unbind(1), strict=True))


def prove(architecture: Architecture) -> None:
    """Check on a short sequence that the residual stream is what `architecture` says.

    Raises:
        ModelError: the writers do not add up to a reader's input, and the first such reader's name; or the hooks
            change the logits; or gradients are missing, and of how large a part.
    """
    model = architecture.model
    weight = architecture.weight
    tokens = torch.arange(12, device=weight.device)[None] * 7919 % weight.shape[0]
    tolerance = TOLERANCE.get(model.dtype, 1e-4)
    refused = "Its edge scores would be wrong, so it is refused; please report the architecture."
    with torch.no_grad():
        bare = model(input_ids=tokens, use_cache=False).logits
    evidence = _Evidence()
    with recording(architecture, evidence), torch.enable_grad():
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = logits.float().log_softmax(-1).square().mean()
        if evidence.embedding is None:
            raise ModelError("This model's first block did not run.", refused)
        (whole,) = torch.autograd.grad(loss, evidence.embedding)
    if (difference := _relative(logits.detach(), bare)) > tolerance:
        raise ModelError(f"Hooking this model changes its logits by {difference:.1e}.", refused)
    graph = architecture.graph
    if len(evidence.written) != len(graph.writers) or len(evidence.residuals) != len(graph.writers):
        raise ModelError("Some of this model's blocks did not run exactly once.", refused)
    sums = list(accumulate(evidence.written[i] for i in range(len(graph.writers))))
    readers = [r for r in range(len(graph.readers)) if r % 4 in (0, 3)]  # of an attention block the first: q
    for reader, residual in zip(readers, evidence.residuals, strict=True):
        if not (difference := _relative(sums[graph.writers_before[reader] - 1], residual)) <= tolerance:
            raise ModelError(
                f"The residual identity fails at '{node_of(graph.readers[reader])}': what the blocks before it write "
                f"differs from what it reads by {difference:.1e} (relative; at most {tolerance:.0e} is rounding).",
                refused,
            )
    if len(evidence.gradients) < len(graph.readers):
        raise ModelError("Some of this model's readers have no influence on its output.", refused)
    parts = torch.stack([gradient.double() for gradient in evidence.gradients.values()]).sum(0)
    if not (difference := _relative(parts, whole)) <= 10 * tolerance:
        raise ModelError(f"The readers account for all but {difference:.1e} of the gradient.", refused)
