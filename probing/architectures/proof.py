"""The proof, at load, that a model's residual stream is what its `Architecture` says.

The model must run on tokens alone and look at no later ones; the writers' sum must equal each reader's input; the hooks
must not change the logits; q, k and v must act as such; and the readers' gradients must add up to the gradient of the
first block's input. A model that fails is refused: its scores would be wrong without looking wrong.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn

from probing.architectures.families import Architecture
from probing.architectures.heads import HeadOutputs
from probing.architectures.norms import wide
from probing.architectures.recording import Influence, Observer, recording
from probing.architectures.taps import Residual
from probing.errors import ModelError
from probing.fitting import is_out_of_memory

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Largest relative difference (Frobenius norm) that rounding explains, by the weights' dtype.

transformers computes norms and rotary embeddings in float32 even where the weights are float64.
"""

_REFUSED = "Its edge scores would be wrong, so it is refused; please report the architecture."

_POSITIONS = 12


def difference_of(a: Tensor, b: Tensor) -> float:
    """Relative to the second, by Frobenius norms."""
    scale = b.double().norm().clamp_min(1e-30)
    return float((a.double() - b.double()).norm() / scale)


class _Evidence(Observer):
    """Everything that a pass reports, for `prove`; what is written is kept as it was, and as it is in the graph."""

    def __init__(self, architecture: Architecture, tolerance: float) -> None:
        self._graph, self._tolerance = architecture.graph, tolerance
        self.embedding: Residual | None = None
        self.written: dict[int, Residual] = {}
        self.attached: dict[int, Residual] = {}
        self.residuals: dict[range, Residual] = {}
        self.read_from: dict[range, Residual] = {}
        self.gradients: dict[int, Residual] = {}
        self.mixed: dict[int, Tensor] = {}

    @contextmanager
    def of_heads(self, architecture: Architecture) -> Iterator[None]:
        """Keep, of each layer that is divided, what its heads mixed, side by side."""

        def keep(layer: int, module: nn.Module, args: tuple) -> None:
            self.mixed[layer] = args[0]

        handles = [
            division.mixed.register_forward_pre_hook(partial(keep, layer))
            for layer, division in enumerate(architecture.divisions)
            if division is not None
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def starts(self, embedding: Residual) -> Residual:
        self.embedding = embedding
        return embedding

    def wrote(self, writer: int, output: Residual) -> None:
        self._once(writer in self.written, self._graph.writers[writer])
        self.written[writer], self.attached[writer] = output.detach().clone(), output

    def divided(self, writers: range, outputs: HeadOutputs, whole: Residual) -> None:
        block = self._graph.writer_records[writers.start].block
        self._once(writers.start in self.written, block)
        parts = wide(whole).new_empty(whole.shape[0], len(writers), *whole.shape[1:])
        outputs.write(parts)
        self.written.update(zip(writers, parts.unbind(1), strict=True))
        if not (difference := difference_of(parts.sum(1), whole.detach())) <= self._tolerance:
            raise ModelError(f"The heads of '{block}' do not add up to it: they miss {difference:.1e}.", _REFUSED)

    def read(self, readers: range, residual: Residual) -> None:
        self._once(readers in self.residuals, self._graph.reader_records[readers.start].node)
        self.residuals[readers], self.read_from[readers] = residual.detach().clone(), residual

    def influenced(self, influence: Influence) -> None:
        samples, positions, width = self.written[0].shape
        out = wide(self.written[0]).new_empty(samples, len(influence.readers), positions, width)
        influence.write(out)
        self.gradients.update(zip(influence.readers, out.unbind(1), strict=True))

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
    if not (difference := difference_of(bare[0, :-1], bare[1, :-1])) <= tolerance:
        raise ModelError(
            f"This model sees the tokens after the one that it reads: the last one changes what it says before it by "
            f"{difference:.1e}.",
            "Use a causal language model.",
        )
    evidence = _Evidence(architecture, tolerance)
    with evidence.of_heads(architecture), recording(architecture, evidence), torch.enable_grad():
        logits = run_tokens(architecture, tokens)
        loss = logits.float().log_softmax(-1).square().mean()
        if not (difference := difference_of(logits.detach(), bare)) <= tolerance:
            raise ModelError(f"Hooking this model changes its logits by {difference:.1e}.", _REFUSED)
        _prove_sums(architecture, evidence, tolerance)
        _prove_projections(architecture, evidence, tolerance)
        evidence.gradients = {}
        assert evidence.embedding is not None
        (whole,) = torch.autograd.grad(loss, evidence.embedding)
    if len(evidence.gradients) < len(architecture.graph.readers):
        raise ModelError("Some of this model's readers have no influence on its output.", _REFUSED)
    parts = torch.stack([gradient.double() for gradient in evidence.gradients.values()]).sum(0)
    if not (difference := difference_of(parts, whole)) <= 10 * tolerance:
        raise ModelError(f"The readers account for all but {difference:.1e} of the gradient.", _REFUSED)


def _tokens(architecture: Architecture) -> Tensor:
    """Two sequences that differ in the last token."""
    weight = architecture.weight
    tokens = torch.arange(_POSITIONS, device=weight.device).repeat(2, 1) * 7919 % weight.shape[0]
    tokens[1, -1] = (tokens[0, -1] + 1) % weight.shape[0]
    return tokens


def run_tokens(architecture: Architecture, tokens: Tensor) -> Tensor:
    """Logits, asked for as they are when samples are scored."""
    return architecture.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits


def _logits(architecture: Architecture, tokens: Tensor) -> Tensor:
    """What the model says when nobody watches."""
    try:
        with torch.no_grad():
            return run_tokens(architecture, tokens)
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
    together = evidence.written[0].device  # blocks may be on several
    sums = list(accumulate(evidence.written[i].to(together) for i in range(len(graph.writers))))
    for readers in sorted(evidence.residuals, key=lambda readers: readers.start):
        residual = evidence.residuals[readers]
        total = sums[graph.writers_before[readers.start] - 1].view(residual.shape).to(residual.device)
        if not (difference := difference_of(total, residual)) <= tolerance:
            raise ModelError(
                f"The residual identity fails at '{graph.reader_records[readers.start].node}': what the blocks before "
                f"it write differs from what it reads by {difference:.1e} (relative; at most {tolerance:.0e} is "
                "rounding).",
                _REFUSED,
            )


@dataclass(frozen=True)
class _Mixed:
    """What one query mixes together, and the readers that may have made it so."""

    value: Residual
    query: int
    key: int
    output: int


def _mixed(architecture: Architecture, evidence: _Evidence, layer: int) -> _Mixed:
    """What a layer's attention mixes: where it is divided, one of its heads, another in each layer."""
    graph, division = architecture.graph, architecture.divisions[layer]
    places = graph.attention_readers(layer)
    if division is None:
        return _Mixed(evidence.attached[graph.attention_writers(layer).start], *places)
    heads = division.heads
    head = layer % heads.queries
    group = head // (heads.queries // heads.groups)
    values = evidence.mixed[layer].flatten(2).unflatten(-1, (heads.queries, -1))[:, :, head]
    keys = places.start + heads.queries
    return _Mixed(values, places.start + head, keys + group, keys + heads.groups + group)


def _prove_projections(architecture: Architecture, evidence: _Evidence, tolerance: float) -> None:
    """Queries must act on their own position alone, and keys must not act where a position sees only itself.

    So a wrong order of rows in a fused matrix, or another module between a projection and attention, is noticed, which
    leaves the gradients' sum as it is. Where a learned sink competes with a lone key, the key does act. What a head
    mixes must be moved by its own query, and its own group's keys and values, and by no others.
    """
    graph = architecture.graph
    for layer, block in enumerate(architecture.blocks):
        if block.whole:
            continue
        mixed, division = _mixed(architecture, evidence, layer), architecture.divisions[layer]
        residual = next(x for readers, x in evidence.read_from.items() if mixed.query in readers)
        generator = torch.Generator().manual_seed(layer)
        value = mixed.value @ torch.randn(mixed.value.shape[-1], generator=generator).to(mixed.value)
        found = evidence.gradients_of(value[:, -1].sum(), residual)
        own, elsewhere = found[mixed.query][:, -1].norm(), found[mixed.query][:, :-1].norm()
        if not elsewhere <= tolerance * own:
            name = graph.readers[mixed.query]
            raise ModelError(f"What '{name}' should be acts on other positions than its own.", _REFUSED)
        for reader in graph.attention_readers(layer):
            mine = reader in (mixed.query, mixed.key, mixed.output)
            joint = division is not None and graph.reader_records[reader].kind in division.joint
            if not (mine or joint) and not found[reader].norm() <= tolerance * max(own, found[mixed.output].norm()):
                raise ModelError(f"What '{graph.readers[reader]}' should be acts on another head.", _REFUSED)
        found = evidence.gradients_of(value[:, 0].sum(), residual)
        sinks = any("sink" in name for name, _ in block.layer.named_parameters())
        if not sinks and not found[mixed.key][:, 0].norm() <= tolerance * found[mixed.output][:, 0].norm():
            name = graph.readers[mixed.key]
            raise ModelError(f"What '{name}' should be acts where there is nothing to choose from.", _REFUSED)
