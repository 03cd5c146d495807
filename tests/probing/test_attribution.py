from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from probing.architectures import Observer, architecture_of, recording
from probing.attribution import Attributor
from probing.checkpoints import find
from probing.errors import ModelError
from probing.graph import Granularity
from probing.models import load_model
from probing.scoring import attribute
from probing.sequences import Sample
from tests import literal, perturbed
from tests.tiny import LITERAL, TINY, in_float64, random_samples, tiny

NAMES = list(LITERAL)

EVERY = list(TINY)

EXACT = 1e-12
"""Relative difference that float64 explains."""


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("granularity", ["projections", "heads"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_those_of_the_literal_twin(name: str, granularity: Granularity) -> None:
    model = in_float64(name)
    samples = random_samples(3)
    attributor = Attributor(model, granularity)
    found = attributor.score(samples)
    for i, sample in enumerate(samples):
        loss, _, _ = literal.run(model, sample)
        expected = literal.scores(model, sample, attributor.graph.writers, attributor.graph.readers)
        np.testing.assert_allclose(found.loss[i], loss.item(), rtol=1e-6)
        assert _relative(found.matrix()[i], expected.numpy()) < EXACT
        np.testing.assert_array_equal(expected.numpy() != 0, attributor.graph.mask)


@pytest.mark.parametrize("granularity", ["projections", "blocks", "heads"])
@pytest.mark.parametrize("name", EVERY)
def test_scores_of_every_kind_of_layer_equal_those_of_the_perturbed_twin(name: str, granularity: Granularity) -> None:
    with perturbed.InFloat64():
        attributor = Attributor(tiny(name), granularity)
        layers = [block.layer for block in attributor.architecture.blocks]
        for sample in random_samples(2, seed=8):
            expected = perturbed.scores(
                attributor.model, layers, sample, attributor.graph.writers, attributor.graph.readers
            )
            found = attributor.score([sample])
            assert _relative(found.matrix()[0], expected.numpy()) < EXACT
            assert not (expected.numpy() != 0)[~attributor.graph.mask].any()


@pytest.mark.parametrize("granularity", ["projections", "heads"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_at_every_position_equal_the_literal_twins_and_add_up(name: str, granularity: Granularity) -> None:
    model = in_float64(name)
    attributor = Attributor(model, granularity)
    for sample in random_samples(2, seed=5):
        found = attributor.score_positions(sample)
        expected = literal.position_scores(model, sample, attributor.graph.writers, attributor.graph.readers)
        assert found.shape == (len(sample.fed), attributor.graph.size)
        assert _relative(found, attributor.graph.to_edges(expected.numpy())) < EXACT
        np.testing.assert_allclose(found.sum(0), attributor.score([sample]).edges[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_single_token_that_is_fed_can_be_scored(attention: str) -> None:
    model = tiny("llama", attention=attention)
    sample = Sample("one", (7, 9), answer_start=1, answer_length=1)
    attributor = Attributor(model)
    expected = literal.scores(model, sample, attributor.graph.writers, attributor.graph.readers).numpy()
    found = attributor.score([sample]).matrix()[0]
    assert _relative(found, expected) < 2e-6
    one_key = np.abs(found[:, attributor.graph.readers.index("a1<q>")])
    assert one_key.max() < 1e-12, "one key leaves attention no choice"


@pytest.mark.parametrize("name", NAMES)
def test_literal_twin_has_the_models_logits(name: str) -> None:
    model = tiny(name)
    sample = random_samples(1)[0]
    _, _, logits = literal.run(model, sample)
    torch.testing.assert_close(model(torch.tensor([sample.fed])).logits[0], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_score_is_the_slope_of_the_loss_as_the_edge_is_removed(name: str) -> None:
    model = tiny(name)
    sample = random_samples(1, seed=3)[0]
    attributor = Attributor(model)
    found = attributor.score([sample]).matrix()[0]
    graph = attributor.graph
    _, written, _ = literal.run(model, sample)
    step = 1e-5
    for edge in ("m0->a1<q>", "input->a1<v>", "a0->m0", "m0->a2<k>", "a1->a2<v>", "m2->logits", "input->logits"):
        writer, reader = edge.split("->")
        less, more = (literal.run(model, sample, {reader: sign * step * written[writer]})[0] for sign in (-1, 1))
        slope = float((less - more) / (2 * step))
        score = found[graph.writers.index(writer), graph.readers.index(reader)]
        assert score == pytest.approx(slope, rel=1e-4, abs=1e-7)
        assert abs(slope) > 1e-6


def made_linear(model: nn.Module) -> None:
    """Norms that only scale, uniform attention, MLPs without a non-linearity, and logits so small that the loss is."""

    class One(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(x)

    with torch.no_grad():
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.variance_epsilon = 1e16
                norm.weight *= 1e8
            layer.self_attn.q_proj.weight.zero_()
            layer.self_attn.k_proj.weight.zero_()
            layer.mlp.act_fn = One()
        model.model.norm.variance_epsilon = 1e16
        model.model.norm.weight *= 1e8
        model.lm_head.weight *= 1e-7


def test_on_a_linear_model_scores_are_exactly_what_ablation_does() -> None:
    model = tiny("llama")
    made_linear(model)
    attributor = Attributor(model)
    graph = attributor.graph
    sample = random_samples(1, seed=5)[0]
    found = attributor.score([sample]).matrix()[0]
    whole, written, _ = literal.run(model, sample)
    for w, writer in enumerate(graph.writers):
        for r, reader in enumerate(graph.readers):
            if not graph.mask[w, r] or reader.endswith(("<q>", "<k>")):
                continue
            ablated, _, _ = literal.run(model, sample, {reader: -written[writer]})
            change = float(ablated - whole)
            assert abs(change) > 1e-12
            assert found[w, r] == pytest.approx(change, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_readers_scores_add_up_to_minus_gradient_times_residual(name: str) -> None:
    model = tiny(name)
    sample = random_samples(1, seed=7)[0]
    attributor = Attributor(model)
    found = attributor.score([sample]).matrix()[0]
    shape = (len(sample.fed), model.config.hidden_size)
    offsets = {r: torch.zeros(shape, dtype=torch.float64, requires_grad=True) for r in attributor.graph.readers}
    loss, written, _ = literal.run(model, sample, offsets)
    loss.backward()
    names = list(attributor.graph.writers)
    for r, reader in enumerate(attributor.graph.readers):
        residual = torch.stack([written[w] for w in names[: attributor.graph.writers_before[r]]]).sum(0)
        expected = -float((offsets[reader].grad * residual).sum().detach())
        assert found[:, r].sum() == pytest.approx(expected, rel=1e-4, abs=1e-6)


FREE = {"olmo2": ("m0", "m1", "m2")}
"""Readers to which the scale of what they read matters; the norms of OLMo 2 stand behind its projections and blocks."""


@pytest.mark.parametrize("name", EVERY)
def test_scores_into_a_reader_behind_a_norm_sum_to_zero_and_into_another_do_not(name: str) -> None:
    """A norm ignores the scale of what it reads, so the gradient before it is orthogonal to that.

    Its epsilon breaks this by a share of epsilon over the mean square, so it is made nothing here. What is left is
    rounding, in float32 where transformers' norms are computed in it.
    """
    model, least = (in_float64(name), 1e-9) if name in LITERAL else (tiny(name), 1e-6)
    for module in model.modules():
        for attribute_name in ("eps", "variance_epsilon"):
            if hasattr(module, attribute_name):
                setattr(module, attribute_name, 1e-30)
    attributor = Attributor(model)
    graph = attributor.graph
    free = FREE.get(name, ())
    scores = attributor.score(random_samples(2, seed=5)).matrix().astype(np.float64)
    total = np.abs(scores).sum()
    for r, reader in enumerate(graph.readers):
        sums, sizes = np.abs(scores[:, :, r].sum(1)), np.abs(scores[:, :, r]).sum(1)
        if not reader.endswith(free):
            assert (sums < least * total).all(), reader
            if graph.mask[:, r].sum() > 1:  # the only writer of a reader is all that the reader sees
                assert (sizes > 100 * least * total).all(), reader
        else:
            assert (sums > 1e-3 * sizes).all(), reader
    if graph.mask[1, graph.readers.index("m0")] and "m0" not in free:  # not where a0 and m0 read side by side
        mirrored = scores[:, :2, graph.readers.index("m0")]
        np.testing.assert_allclose(mirrored[:, 0], -mirrored[:, 1], rtol=1e-4)
        assert (mirrored != 0).all()


def test_scores_of_the_shipped_models_sum_to_zero_into_every_reader(zoo: Path) -> None:
    model = load_model(find(str(zoo / "grpo")), torch.device("cpu"), torch.float32)
    digits = [replace(s, input_ids=tuple(t % 11 for t in s.input_ids)) for s in random_samples(4, seed=5)]
    scores = Attributor(model).score(digits).matrix().astype(np.float64)
    assert (np.abs(scores.sum(1)) < 3e-5 * np.abs(scores).sum((1, 2))[:, None]).all()


@settings(max_examples=12)
@given(
    seed=st.integers(0, 100),
    batch_size=st.integers(1, 7),
    order=st.permutations(range(7)),
    granularity=st.sampled_from(["projections", "heads"]),
)
def test_batch_size_padding_and_order_do_not_matter(
    seed: int, batch_size: int, order: list[int], granularity: Granularity
) -> None:
    attributor = Attributor(tiny("qwen2", torch.float32, "sdpa"), granularity)
    samples = random_samples(7, seed)
    alone = [attributor.score([sample]) for sample in samples]
    together = attribute(attributor, [samples[i] for i in order], batch_size)
    for place, i in enumerate(order):
        assert together.ids[place] == samples[i].id
        assert _relative(together.matrix()[place], alone[i].matrix()[0]) < 2e-5
        assert together.loss[place] == pytest.approx(alone[i].loss[0], rel=1e-5)


@pytest.mark.parametrize("granularity", ["projections", "heads"])
def test_tokens_after_the_scored_ones_do_not_matter(granularity: Granularity) -> None:
    attributor = Attributor(tiny("llama"), granularity)
    sample = Sample("x", (5, 9, 11, 3, 8, 2, 40), 3, 2)
    longer = Sample("y", (*sample.input_ids[:5], 1, 2, 3, 4), 3, 2)
    np.testing.assert_array_equal(attributor.score([sample]).edges, attributor.score([longer]).edges)


@pytest.mark.parametrize("granularity", ["projections", "heads"])
@pytest.mark.parametrize("name", NAMES)
def test_eager_and_sdpa_attention_agree(name: str, granularity: Granularity) -> None:
    samples = random_samples(5)
    eager, sdpa = (
        Attributor(tiny(name, attention=kind), granularity).score(samples).matrix() for kind in ("eager", "sdpa")
    )
    assert _relative(eager, sdpa) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_within_1e_5_and_bfloat16_within_8_percent_of_float64(name: str) -> None:
    samples = random_samples(8)
    exact = Attributor(tiny(name)).score(samples).edges
    assert _relative(Attributor(tiny(name, torch.float32)).score(samples).edges, exact) < 1e-5
    rounded = tiny(name, torch.bfloat16)
    assert _relative(Attributor(rounded).score(samples).edges, exact) < 0.08
    same_weights = tiny(name)
    same_weights.load_state_dict({k: v.double() for k, v in rounded.state_dict().items()})
    assert _relative(Attributor(rounded).score(samples).edges, Attributor(same_weights).score(samples).edges) < 0.08


def test_hooks_are_gone_after_scoring_and_after_an_exception() -> None:
    model = tiny("llama")
    attributor = Attributor(model)
    attributor.score(random_samples(2))
    with pytest.raises(RuntimeError, match="on purpose"), recording(architecture_of(model), Observer()):
        raise RuntimeError("on purpose")
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_scores_that_overflow_are_refused() -> None:
    model = tiny("llama", torch.float32)
    attributor = Attributor(model)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match="not finite"):
        attributor.score(random_samples(1))
