"""The proof, at load, that a model's residual stream is what its `Architecture` says.

The model must run on tokens alone and look at no later ones; the writers' sum must equal each reader's input; the hooks
must not change the logits; q, k and v must act as such; and the readers' gradients must add up to the gradient of the
first block's input. A model that fails is refused: its scores would be wrong without looking wrong.
"""

from itertools import accumulate

import torch
from torch import Tensor

from probing.architectures.families import Architecture
from probing.architectures.norms import wide
from probing.architectures.recording import Observer, WriteGradients, recording
from probing.architectures.taps import Residual
from probing.errors import ModelError
from probing.fitting import is_out_of_memory

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Largest relative difference (Frobenius norm) that rounding explains, by the weights' dtype.

transformers computes norms and rotary embeddings in float32 even where the weights are float64.
"""

_REFUSED = "Its edge scores would be wrong, so it is refused; please report the architecture."

_POSITIONS = 12


def _relative(a: Tensor, b: Tensor) -> float:
    scale = b.double().norm().clamp_min(1e-30)
    return float((a.double() - b.double()).norm() / scale)


class _Evidence(Observer):
    """Everything that a pass reports, for `prove`; what is written is kept as it was, and as it is in the graph."""

    def __init__(self, architecture: Architecture) -> None:
        self._graph = architecture.graph
        self.embedding: Residual | None = None
        self.written: dict[int, Residual] = {}
        self.attached: dict[int, Residual] = {}
        self.residuals: dict[range, Residual] = {}
        self.read_from: dict[range, Residual] = {}
        self.gradients: dict[int, Residual] = {}

    def embedded(self, embedding: Residual) -> None:
        self.embedding = embedding

    def wrote(self, writer: int, output: Residual) -> None:
        self._once(writer in self.written, self._graph.writers[writer])
        self.written[writer], self.attached[writer] = output.detach().clone(), output

    def read(self, readers: range, residual: Residual) -> None:
        self._once(readers in self.residuals, self._graph.reader_records[readers.start].node)
        self.residuals[readers], self.read_from[readers] = residual.detach().clone(), residual

    def influenced(self, readers: range, write_gradients: WriteGradients) -> None:
        samples, positions, width = self.written[0].shape
        out = wide(self.written[0]).new_empty(samples, len(readers), positions, width)
        write_gradients(out)
        self.gradients.update(zip(readers, out.unbind(1), strict=True))

    def gradients_of(self, value: Tensor, residual: Residual) -> dict[int, Residual]:
        """Those of the readers between a residual and a value."""
        self.gradients = {}
        torch.autograd.grad(value, residual, retain_graph=True)
        return self.gradients

    def _once(self, already: bool, name: str) -> None:
        if already:
            raise ModelError(f"'{name}' of this model runs more than once in a pass.", _REFUSED)


def prove(architecture: Architecture) -> None:
    """Check on short sequences that the residual stream is what `architecture` says.

    Raises:
        ModelError: the model does not run on tokens alone, or looks ahead; a block runs never or twice; the writers do
            not add up to a reader's input, and the first such reader's name; the hooks change the logits; a
            projection does not act as its name says; or gradients are missing, and of how large a part.
    """
    tolerance = TOLERANCE.get(architecture.model.dtype, 1e-4)
    tokens = _tokens(architecture)
    bare = _logits(architecture, tokens)
    if not bool(torch.isfinite(bare).all()):
        raise ModelError("This model's logits are not finite.", "Try --dtype float32; are its weights complete?")
    if not (difference := _relative(bare[0, :-1], bare[1, :-1])) <= tolerance:
        raise ModelError(
            f"This model sees the tokens after the one that it reads: the last one changes what it says before it by "
            f"{difference:.1e}.",
            "Use a causal language model.",
        )
    evidence = _Evidence(architecture)
    with recording(architecture, evidence), torch.enable_grad():
        logits = _run(architecture, tokens)
        loss = logits.float().log_softmax(-1).square().mean()
        if not (difference := _relative(logits.detach(), bare)) <= tolerance:
            raise ModelError(f"Hooking this model changes its logits by {difference:.1e}.", _REFUSED)
        _prove_sums(architecture, evidence, tolerance)
        _prove_projections(architecture, evidence, tolerance)
        evidence.gradients = {}
        assert evidence.embedding is not None
        (whole,) = torch.autograd.grad(loss, evidence.embedding)
    if len(evidence.gradients) < len(architecture.graph.readers):
        raise ModelError("Some of this model's readers have no influence on its output.", _REFUSED)
    parts = torch.stack([gradient.double() for gradient in evidence.gradients.values()]).sum(0)
    if not (difference := _relative(parts, whole)) <= 10 * tolerance:
        raise ModelError(f"The readers account for all but {difference:.1e} of the gradient.", _REFUSED)


def _tokens(architecture: Architecture) -> Tensor:
    """Two sequences that differ in the last token."""
    weight = architecture.weight
    tokens = torch.arange(_POSITIONS, device=weight.device).repeat(2, 1) * 7919 % weight.shape[0]
    tokens[1, -1] = (tokens[0, -1] + 1) % weight.shape[0]
    return tokens


def _run(architecture: Architecture, tokens: Tensor) -> Tensor:
    """Logits, asked for as they are when samples are scored."""
    return architecture.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits


def _logits(architecture: Architecture, tokens: Tensor) -> Tensor:
    """What the model says when nobody watches."""
    try:
        with torch.no_grad():
            return _run(architecture, tokens)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = (str(error).strip() or "no message").splitlines()[0][:150]
        raise ModelError(
            f"Models of type '{architecture.family}' are not supported: this one does not run on tokens alone "
            f"({type(error).__name__}: {said}).",
            "Use a causal language model.",
        ) from error


def _prove_sums(architecture: Architecture, evidence: _Evidence, tolerance: float) -> None:
    graph = architecture.graph
    silent = [name for i, name in enumerate(graph.writers) if i not in evidence.written]
    read = {reader for readers in evidence.residuals for reader in readers}
    silent += [reader.node for i, reader in enumerate(graph.reader_records) if i not in read]
    if silent:
        raise ModelError(f"'{silent[0]}' of this model did not run.", _REFUSED)
    sums = list(accumulate(evidence.written[i] for i in range(len(graph.writers))))
    for readers in sorted(evidence.residuals, key=lambda readers: readers.start):
        residual = evidence.residuals[readers]
        total = sums[graph.writers_before[readers.start] - 1].view(residual.shape).to(residual.device)
        if not (difference := _relative(total, residual)) <= tolerance:
            raise ModelError(
                f"The residual identity fails at '{graph.reader_records[readers.start].node}': what the blocks before "
                f"it write differs from what it reads by {difference:.1e} (relative; at most {tolerance:.0e} is "
                "rounding).",
                _REFUSED,
            )


def _prove_projections(architecture: Architecture, evidence: _Evidence, tolerance: float) -> None:
    """Queries must act on their own position alone, and keys must not act where a position sees only itself.

    So a wrong order of rows in a fused matrix, or another module between a projection and attention, is noticed, which
    leaves the gradients' sum as it is. Where a learned sink competes with a lone key, the key does act.
    """
    graph = architecture.graph
    for layer, block in enumerate(architecture.blocks):
        if block.whole:
            continue
        q, k, v = graph.attention_readers(layer)
        output = evidence.attached[graph.attention_writers(layer).start]
        residual = next(x for readers, x in evidence.read_from.items() if q in readers)
        generator = torch.Generator().manual_seed(layer)
        mixed = output @ torch.randn(output.shape[-1], generator=generator).to(output)
        found = evidence.gradients_of(mixed[:, -1].sum(), residual)
        own, elsewhere = found[q][:, -1].norm(), found[q][:, :-1].norm()
        if not elsewhere <= tolerance * own:
            raise ModelError(f"What 'a{layer}<q>' should be acts on other positions than its own.", _REFUSED)
        found = evidence.gradients_of(mixed[:, 0].sum(), residual)
        sinks = any("sink" in name for name, _ in block.layer.named_parameters())
        if not sinks and not found[k][:, 0].norm() <= tolerance * found[v][:, 0].norm():
            raise ModelError(f"What 'a{layer}<k>' should be acts where there is nothing to choose from.", _REFUSED)
