"""Which of many edges changed: a test of each by sign flips, and what is left of it when there are many tests.

If tuning did nothing to an edge, base and tuned could change places on any question, so every paired difference could
as well have the other sign. The test counts how often the mean difference, with signs drawn at random for each
question, is as far from zero as the one that was found. It needs no distribution, and holds for few questions too;
where there are so few that all flips can be listed, they are. The signs are the same for all edges.

Of many edges some have a small p by chance. Benjamini and Hochberg's q is the smallest share of false discoveries at
which an edge would be among those that are called changed.

Sources: Fisher, The Design of Experiments (1935), section 21; Phipson and Smyth, arXiv:1603.05766 (why one flip more
is counted than was drawn); Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from probing.metrics.definition import MANY, Definition

FALSE_DISCOVERIES = 0.05
"""q up to which an edge is called changed."""

LEAST_FLIPS, MOST_FLIPS = 10_000, 100_000
"""Of graphs with more than `MANY` edges, which are often enough tested by as few as it takes, the least are drawn."""

_SETTLED = 100
"""Flips as far from zero, among the first `LEAST_FLIPS`, with which an edge needs no more: its p is about 0.01 or more,
and known to a tenth. As the first flips alone decide, p is still at most a level no more often than that."""

_BLOCK = 2_000
"""Edges, and flips, that are multiplied together."""

_ROUNDING = 1e-5
"""Share of the sum of all |differences|, below which two sums in single precision are the same."""


def flips_over(edges: int) -> int:
    """Flips for so many edges: enough that one changed edge among them can be found, as far as that can be afforded."""
    return LEAST_FLIPS if edges > MANY else int(np.clip(edges / FALSE_DISCOVERIES, LEAST_FLIPS, MOST_FLIPS))


def sign_flip_p(
    base: Float[np.ndarray, "sample edge"],
    tuned: Float[np.ndarray, "sample edge"],
    definition: Definition,
    of: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Float[np.ndarray, " edge"]:
    """Two-sided p-value of each column's mean paired difference, of the scores or of what `of` says of each.

    It is the share of flips that are as far from zero, the one that changes nothing among them.
    """
    samples, edges = base.shape
    flips = flips_over(edges)
    every = 2 ** (samples - 1) <= flips  # with all signs turned round, a flip is as far from zero: half of them will do
    signs = _every_sign(samples) if every else _drawn_signs(samples, flips, definition)
    stages = [signs] if every else [signs[:LEAST_FLIPS], signs[LEAST_FLIPS:]]
    counts, drawn = np.zeros(edges), np.zeros(edges)
    for start in range(0, edges, _BLOCK):
        part = slice(start, start + _BLOCK)
        rows = (of(tuned[:, part].astype(np.float64)) - of(base[:, part].astype(np.float64))).T
        sizes = np.abs(rows).sum(1, keepdims=True)
        found = np.abs(rows.sum(1, keepdims=True)) - _ROUNDING * sizes
        # In shares of a column's sum, which single precision can hold however small the scores are.
        shares = np.divide(rows, sizes, out=np.zeros_like(rows), where=sizes > 0).astype(np.float32)
        least = np.divide(found, sizes, out=np.full_like(found, -1.0), where=sizes > 0).astype(np.float32)
        here = np.arange(edges)[part]
        for stage in stages:
            unsettled = counts[here] < _SETTLED
            here, shares, least = here[unsettled], shares[unsettled], least[unsettled]
            drawn[here] += len(stage)
            for first in range(0, len(stage), _BLOCK):
                flipped = shares @ _as_numbers(stage[first : first + _BLOCK], samples).T
                counts[here] += (np.abs(flipped, out=flipped) >= least).sum(1)
    return counts / drawn if every else (1 + counts) / (1 + drawn)


def _every_sign(samples: int) -> UInt8[np.ndarray, "flip byte"]:
    """A bit for each sample, in all combinations; that of the last is always the same."""
    flips = np.arange(2 ** (samples - 1))
    bits = flips[:, None] >> np.arange(samples) & 1
    return np.packbits(bits.astype(np.uint8), axis=1)


def _drawn_signs(samples: int, flips: int, definition: Definition) -> UInt8[np.ndarray, "flip byte"]:
    """A bit for each sample, drawn."""
    return np.random.default_rng(definition.seed).integers(0, 256, (flips, -(-samples // 8)), np.uint8)


def _as_numbers(signs: UInt8[np.ndarray, "flip byte"], samples: int) -> Float[np.ndarray, "flip sample"]:
    return 1 - 2 * np.unpackbits(signs, axis=1, count=samples).astype(np.float32)


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """q-values: of each test, the smallest rate of false discoveries at which it is one."""
    order = np.argsort(p)[::-1]
    raised = p[order] * len(p) / np.arange(len(p), 0, -1)
    found = np.empty_like(raised)
    found[order] = np.minimum.accumulate(np.minimum(raised, 1.0))
    return found
