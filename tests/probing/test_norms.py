"""What a norm before a reader does to its scores: it ignores the scale of what it reads, so they sum to zero."""

import numpy as np
import pytest

from probing.attribution import Attributor
from tests.tiny import TINY, in_float64, random_samples

SMALL = 3e-5
"""What a sum may be, in shares of the sum of the absolute scores of all edges."""

BARE = {"olmo2": ("m0", "m1", "m2")}
"""Readers to which the scale of the residual matters. OLMo 2 has norms behind its blocks, not before them; one of
queries and keys, and behind a value that is merely projected, ignores the scale all the same.
"""


def _sums(name: str, epsilon: float) -> tuple[Attributor, np.ndarray, np.ndarray]:
    """The scores of three samples, and those of each reader added up, in shares of all |scores| of the sample."""
    model = in_float64(name)
    for module in model.modules():
        for field in ("eps", "variance_epsilon"):
            if hasattr(module, field):
                setattr(module, field, epsilon)
    attributor = Attributor(model)
    scores = attributor.score(random_samples(3, seed=4)).scores.astype(np.float64)
    return attributor, scores, scores.sum(1) / np.abs(scores).sum((1, 2))[:, None]


@pytest.mark.parametrize("name", list(TINY))
def test_scores_into_a_reader_behind_a_norm_sum_to_zero(name: str) -> None:
    attributor, scores, sums = _sums(name, epsilon=1e-9)
    graph = attributor.graph
    bare = np.array([reader in BARE.get(name, ()) for reader in graph.readers])
    assert np.abs(sums[:, ~bare]).max() < SMALL
    several = graph.mask.sum(0) > 1
    into = np.abs(scores).sum(1) / np.abs(scores).sum((1, 2))[:, None]
    assert into[:, several].max(0).min() > 100 * SMALL, "no sum of nothing"
    if bare.any():
        assert np.abs(sums[:, bare]).max(0).min() > 100 * SMALL, "without a norm they do not"


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_two_edges_into_the_first_mlp_are_mirrors(name: str) -> None:
    attributor, scores, _ = _sums(name, epsilon=1e-9)
    place = attributor.graph.readers.index("m0")
    of_input, of_attention = (scores[:, attributor.graph.writers.index(writer), place] for writer in ("input", "a0"))
    assert np.abs(of_input).min() > 1e-3
    np.testing.assert_allclose(of_attention, -of_input, rtol=1e-4)
