"""A transformer written by hand, whose circuit is known: it continues what it has read before (induction).

A sequence is distinct random tokens and the same tokens again. Where the second half has token t, its successor in the
first half is to be predicted, by two heads that work together (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"; Olsson et al. 2022, arXiv:2209.11895):

- `a0.h0` attends to the position before its own, and writes which token stands there into a space of its own;
- `a1.h0` looks for the position whose predecessor was the present token, and writes the token there where the logits
  are read.

So seven edges are needed, `CIRCUIT`, and no other. Whatever else there is does something, but nothing that the two
heads or the logits read: three more heads in each layer, the output projections' biases and both MLPs have random
weights, read everything, and write into a space that they alone read.

It is a GPT-2. Spaces are sets of orthonormal directions, each orthogonal to the vector of ones, so the layer norms'
centring does nothing, and what is written into them has the same length at every position, nearly, so their scale is
the same throughout. It is not the same without an edge: a reader that loses what it does not need reads the rest
louder. Attention and logits become sharper by that, so a removal may lower the loss by what little there is of it, and
only removals of the circuit's edges raise it.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Block

from probing.sequences import Sample

VOCABULARY, LENGTH = 24, 12
"""Tokens that there are, and of each half of a sequence."""

HEADS, WIDTH = 4, 128

BY_POSITION = frozenset({"input->a0.h0<q>", "input->a0.h0<k>"})
"""What the first head attends by: positions alone, which are the same in every sequence of that length."""

CIRCUIT = BY_POSITION | {
    "input->a0.h0<v>",
    "input->a1.h0<q>",
    "a0.h0->a1.h0<k>",
    "input->a1.h0<v>",
    "a1.h0->logits",
}
"""The edges without which the model cannot do it: against zero or the mean. What replaces a writer by its value in
another sequence of that length leaves `BY_POSITION` as it was."""

_SHARPNESS = 7.0
"""By how much the attention's logit at the right position exceeds all others."""

_CONFIDENCE = 7.0
"""By how much the right token's logit exceeds all others, where only its position is attended to."""

_PREVIOUS_LENGTH = 0.7
"""Length of what the first head writes; a token's and a position's embedding have the length 1."""

_USELESS_LENGTH = 0.35
"""Length of what a part without a use writes, roughly."""

_SQUARES = (2.0, 2.5, 3.5)
"""Squared length of what each layer and the logits read, without what has no use."""

Random = Callable[..., Tensor]


def hand_built(seed: int = 0) -> GPT2LMHeadModel:
    """The model; the seed draws the directions and the weights of what has no use."""
    generator = torch.Generator().manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=2 * LENGTH, n_embd=WIDTH, n_inner=WIDTH, n_layer=2, n_head=HEADS,
        layer_norm_epsilon=1e-8, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    sizes = [VOCABULARY, 2 * LENGTH, VOCABULARY, VOCABULARY]
    orthonormal = torch.linalg.qr(torch.cat([torch.ones(WIDTH, 1), random(WIDTH, WIDTH - 1)], 1)).Q[:, 1:].T
    token, position, previous, answer, useless = orthonormal.split([*sizes, WIDTH - 1 - sum(sizes)])
    # Behind a norm, a direction of length 1 has this one.
    first, second, last = ((WIDTH / square) ** 0.5 for square in _SQUARES)
    gain = (_SHARPNESS * (WIDTH / HEADS) ** 0.5) ** 0.5
    model.transformer.wte.weight.copy_(token)
    model.transformer.wpe.weight.copy_(position)
    model.lm_head.weight.copy_(answer * _CONFIDENCE / last)
    early, late = model.transformer.h
    for block in (early, late):
        _write_useless(block, useless, random)
    _write_head(
        early.attn,
        query=position[1:] * gain / first,
        key=position[:-1] * gain / first,  # position j answers to the question of j + 1
        value=token / first,
        output=previous * _PREVIOUS_LENGTH,
    )
    _write_head(
        late.attn,
        query=token * gain / second,
        key=previous * gain / second / _PREVIOUS_LENGTH,
        value=token / second,
        output=answer,
    )
    return model


def sequences(count: int, seed: int = 0) -> list[Sample]:
    """Distinct random tokens twice over; those of the second half are scored, from its third on.

    The second follows on the first, which the very first position also takes for its predecessor, having no other.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        half = torch.randperm(VOCABULARY, generator=generator)[:LENGTH].tolist()
        made.append(Sample(f"sequence-{number}", (*half, *half), LENGTH + 2, LENGTH - 2))
    return made


def _write_head(attention: GPT2Attention, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Let the first head of a block read and write such directions, each [direction, width] and one to a coordinate."""
    matrices = attention.c_attn.weight.view(WIDTH, 3, HEADS, -1)[:, :, 0]
    matrices.zero_()
    for matrix, rows in zip(matrices.unbind(1), (query, key, value), strict=True):
        matrix[:, : len(rows)] = rows.T
    columns = attention.c_proj.weight.view(HEADS, -1, WIDTH)[0]
    columns.zero_()[: len(output)] = output


def _write_useless(block: GPT2Block, useless: Tensor, random: Random) -> None:
    """Random weights for a whole layer, which write into the space `useless` alone."""
    attention, mlp = block.attn, block.mlp
    into = _USELESS_LENGTH * useless / len(useless) ** 0.5
    for reading in (attention.c_attn, mlp.c_fc):
        reading.weight.copy_(random(*reading.weight.shape) / WIDTH**0.5)
    attention.c_proj.weight.copy_(random(WIDTH, len(useless)) @ into / (WIDTH / HEADS) ** 0.5)
    attention.c_proj.bias.copy_(random(len(useless)) @ into)
    mlp.c_proj.weight.copy_(random(WIDTH, len(useless)) @ into / WIDTH**0.5)
