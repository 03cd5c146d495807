from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from probing.architectures import Observer, architecture_of, prove, recording
from probing.attribution import Attributor
from probing.errors import ModelError
from tests.tiny import TINY, tiny


@pytest.mark.parametrize("name", list(TINY))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_writers_sum_to_what_every_reader_reads(name: str, dtype: torch.dtype) -> None:
    model = tiny(name, dtype)
    architecture = architecture_of(model)
    tokens = torch.tensor([[3, 14, 15, 9, 26]])
    written: list[torch.Tensor] = []
    residuals: list[torch.Tensor] = []

    class Both(Observer):
        def wrote(self, writer: int, output: torch.Tensor) -> None:
            assert writer == len(written)
            written.append(output)

        def read(self, residual: torch.Tensor) -> None:
            residuals.append(residual)

    with recording(architecture, Both()), torch.no_grad():
        model(tokens)
    assert len(written) == len(residuals) == 2 * architecture.layers + 1
    total = torch.zeros_like(written[0])
    for output, residual in zip(written, residuals, strict=True):
        total = total + output
        torch.testing.assert_close(total, residual)


@pytest.mark.parametrize("name", list(TINY))
def test_hooked_logits_equal_unhooked_ones(name: str) -> None:
    model = tiny(name, torch.float32)
    tokens = torch.tensor([[3, 14, 15, 9, 26]])
    bare = model(tokens).logits
    with recording(architecture_of(model), Observer()), torch.enable_grad():
        hooked = model(tokens).logits
    torch.testing.assert_close(hooked.detach(), bare, rtol=0, atol=0)


def test_a_block_that_scales_its_output_is_refused_by_name() -> None:
    model = tiny("llama")
    layer = model.model.layers[1]
    original = layer.forward

    def scaled(hidden_states: torch.Tensor, **kwargs: object) -> torch.Tensor:
        after = original(hidden_states, **kwargs)
        return hidden_states + 0.5 * (after - hidden_states)

    layer.forward = scaled
    with pytest.raises(ModelError, match="residual identity fails at 'a2'"):
        prove(architecture_of(model))


def test_a_reader_that_the_architecture_does_not_know_is_noticed() -> None:
    model = tiny("llama")
    layer = model.model.layers[2]
    original = layer.forward

    def with_a_side_channel(hidden_states: torch.Tensor, **kwargs: object) -> torch.Tensor:
        after = original(hidden_states, **kwargs)
        return after + 0.1 * (hidden_states - hidden_states.detach())  # changes no value, but adds a gradient path

    layer.forward = with_a_side_channel
    with pytest.raises(ModelError, match="readers account for all but"):
        prove(architecture_of(model))


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40))
    with pytest.raises(ModelError, match=r"type 'gpt2'.*llama, mistral, qwen2, qwen3"):
        Attributor(model)


def test_the_zoos_base_passes(zoo: Path) -> None:
    from transformers import AutoModelForCausalLM

    attributor = Attributor(AutoModelForCausalLM.from_pretrained(zoo / "base"))
    assert len(attributor.graph.edges) == 163
