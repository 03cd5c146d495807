"""Which tensors of a model, and which of their rows and columns, belong to which part of it.

At the granularity of projections the parts are the blocks of the graph. `a3` and `m3` are an attention block and an
MLP, each with the norms before and behind it and those of queries and keys; a norm through which both read goes with
`a3`. `input` is all that runs before the first block (the embedding, positions, a norm on them), `logits` all that runs
after the last one (final norm and head). Where a tensor serves both ends, as the matrix of tied embeddings does, they
are one part, `input+logits`.

By heads, an attention block falls into its nodes: `a3.h2` is the rows that make a head's query (and gate) and the
columns of the output projection that read its values; `a3.g1` the rows that make the keys and values of a group, which
are the head's own where each has a group to itself; `a3.bias` the bias of the output projection; and `a3.rest`
whatever is no head's: the block's norms, those of queries and keys, what all queries are made by way of, sinks.

Modules and rows are those that the `Architecture` found. What it did not find (a vision tower) or what is no one's (the
frequencies of rotary embeddings) belongs to no part.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from probing.architectures import Architecture
from probing.architectures.families import Block
from probing.architectures.taps import AtOutputs, Latent, LowRank, Rows, Several, Taps, matrix_of
from probing.graph import BIAS
from probing.graph.nodes import INPUT, LOGITS

BOTH_ENDS = f"{INPUT}+{LOGITS}"
"""The part that `input` and `logits` are where they share a tensor."""

REST = "rest"
"""The part of a divided attention block that is no head's."""


@dataclass(frozen=True)
class Piece:
    """A tensor of a model by its name, or some of it: those of its rows (or columns, or ...) along `dim`."""

    tensor: str
    dim: int = 0
    index: Int[Tensor, " index"] | None = None
    """None where it is all of it."""

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Its values among a model's tensors; a view where it is all of one."""
        whole = tensors[self.tensor]
        return whole if self.index is None else whole.index_select(self.dim, self.index.to(whole.device))

    @torch.no_grad()
    def put(self, tensors: Mapping[str, Tensor], values: Tensor) -> None:
        """Write values, of the shape that `of` gives, into a model's tensors."""
        whole = tensors[self.tensor]
        if self.index is None:
            whole.copy_(values)
        else:
            whole.index_copy_(self.dim, self.index.to(whole.device), values.to(whole.device))


Parts = dict[str, tuple[Piece, ...]]
"""The pieces of each part, by its name, from the input to the logits."""


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, each once, by their names."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def parts_of(architecture: Architecture) -> Parts:
    """The parts of a model, at the granularity by which it is observed. Runs it on one token."""
    names = {id(tensor): name for name, tensor in tensors_of(architecture.model).items()}
    before, after = (_pieces(modules, names, deep=False) for modules in _ends(architecture))
    parts: Parts = {INPUT: before}
    for layer, block in enumerate(architecture.blocks):
        attention, mlp = (_pieces(modules, names) for modules in block.holds)
        if architecture.divisions[layer] is None:
            parts[f"a{layer}"] = attention
        else:
            parts |= _divided(architecture, layer, block, attention, names)
        parts[f"m{layer}"] = mlp
    if {piece.tensor for piece in before} & {piece.tensor for piece in after}:
        del parts[INPUT]
        both = tuple({piece.tensor: piece for piece in (*before, *after)}.values())
        return {BOTH_ENDS: both, **parts}
    return {**parts, LOGITS: after}


def _pieces(modules: Iterable[nn.Module], names: Mapping[int, str], deep: bool = True) -> tuple[Piece, ...]:
    """All tensors of some modules, or those that are directly theirs."""
    found = (
        tensor for module in modules for some in (module.parameters, module.buffers) for tensor in some(recurse=deep)
    )
    return tuple(Piece(name) for name in dict.fromkeys(names[id(tensor)] for tensor in found))


def _ends(architecture: Architecture) -> tuple[list[nn.Module], list[nn.Module]]:
    """The modules with parameters of their own that run before the first block, and those that run after it and in
    none."""
    model, blocks = architecture.model, architecture.blocks
    inside = {module for block in blocks for module in block.layer.modules()}
    ends: tuple[list[nn.Module], list[nn.Module]] = ([], [])
    begun = False

    def begin(module: nn.Module, args: tuple) -> None:
        nonlocal begun
        begun = True

    def runs(module: nn.Module, args: tuple) -> None:
        ends[begun].append(module)

    outside = [m for m in model.modules() if m not in inside and any(True for _ in m.parameters(recurse=False))]
    handles = [module.register_forward_pre_hook(runs) for module in outside]
    handles.append(blocks[0].layer.register_forward_pre_hook(begin))
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return ends


# -- heads -------------------------------------------------------------------------------------------------------------


def _divided(
    architecture: Architecture, layer: int, block: Block, whole: tuple[Piece, ...], names: Mapping[int, str]
) -> Parts:
    """The nodes of an attention block whose heads are told apart, and its rest."""
    graph, division = architecture.graph, block.division
    assert division is not None
    readers, name = graph.attention_readers(layer), f"a{layer}"
    found: dict[str, list[Piece]] = {node: [] for node in graph.nodes[name]}
    for part, module, rows in _makers(division.taps):
        node = graph.reader_records[readers.start + part].node
        found[node] += _outputs(module, rows, names)
    output = division.output
    columns = torch.arange(matrix_of(output).shape[1]).view(division.heads.queries, -1)
    for head, index in enumerate(columns):
        found[f"{name}.h{head}"].append(Piece(names[id(output.weight)], int(isinstance(output, nn.Linear)), index))
    if division.heads.bias:
        found[f"{name}.{BIAS}"].append(Piece(names[id(output.bias)]))
    claimed: dict[str, list[Piece]] = {}
    for piece in (piece for pieces in found.values() for piece in pieces):
        claimed.setdefault(piece.tensor, []).append(piece)
    tensors = tensors_of(architecture.model)
    left = (_left(piece, tensors[piece.tensor], claimed.get(piece.tensor, [])) for piece in whole)
    found[f"{name}.{REST}"] = [piece for piece in left if piece is not None]
    return {node: tuple(pieces) for node, pieces in found.items() if pieces}


def _makers(taps: Taps) -> Iterator[tuple[int, nn.Module, Int[Tensor, " row"] | None]]:
    """What makes the queries, keys and values of each part: some outputs of a module, or all of it."""
    if isinstance(taps, Several):
        for each in taps.taps:
            yield from _makers(each)
    elif isinstance(taps, Latent):
        yield from _makers(taps.queries)
        for module in (taps.down, taps.between, taps.up):  # keys and values of the one group that all heads are
            yield taps.queries.parts, module, None
    else:
        assert isinstance(taps, AtOutputs | LowRank)
        every: tuple[Rows, ...] = taps.rows if isinstance(taps, AtOutputs) else (taps.up,)
        for rows in every:
            for part, index in zip(rows.parts, rows.rows, strict=True):
                yield part, rows.module, index


def _outputs(module: nn.Module, rows: Int[Tensor, " row"] | None, names: Mapping[int, str]) -> list[Piece]:
    """What makes some outputs of a linear module, its bias with it; all of a module without `rows`."""
    if rows is None:
        return list(_pieces([module], names))
    pieces = [Piece(names[id(module.weight)], int(not isinstance(module, nn.Linear)), rows)]
    if getattr(module, "bias", None) is not None:
        pieces.append(Piece(names[id(module.bias)], 0, rows))
    return pieces


def _left(piece: Piece, tensor: Tensor, claimed: list[Piece]) -> Piece | None:
    """What others have left of a whole tensor; None if that is nothing."""
    if not claimed:
        return piece
    dim, free = claimed[0].dim, count_of(tensor, claimed) == 0
    return Piece(piece.tensor, dim, free.nonzero().flatten()) if bool(free.any()) else None


def count_of(tensor: Tensor, claimed: list[Piece]) -> Int[Tensor, " index"]:
    """How many of some pieces of a tensor, all along one dimension or whole, hold each of its rows (columns, ...)."""
    count = torch.zeros(tensor.shape[claimed[0].dim] if tensor.dim() else 1, dtype=torch.long)
    for piece in claimed:
        if piece.index is None:
            count += 1
        else:
            count.index_add_(0, piece.index.cpu(), torch.ones_like(piece.index.cpu()))
    return count
