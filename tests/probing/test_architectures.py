import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    Glm4Config,
    Glm4ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from probing.architectures import Observer, architecture_of, prove, recording
from probing.attribution import Attributor
from probing.errors import ModelError
from probing.sequences import Sample
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
    readers = [reader for reader in architecture.graph.readers if not reader.endswith(("<k>", "<v>"))]
    for reader, residual in zip(readers, residuals, strict=True):
        before = architecture.graph.writers_before[architecture.graph.readers.index(reader)]
        total = functools.reduce(torch.add, written[:before])
        if architecture.parallel and dtype == torch.bfloat16:  # the model adds in another order, and rounds otherwise
            assert (total - residual).norm() < 0.01 * residual.norm()
        else:
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


def test_an_unknown_family_that_is_built_otherwise_is_refused_with_the_known_ones() -> None:
    model = OPTForCausalLM(OPTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40,
                                     ffn_dim=16, word_embed_proj_dim=16))  # fmt: skip
    with pytest.raises(ModelError, match=r"type 'opt' are not supported.*gemma2, .*llama, mistral"):
        Attributor(model)


_SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
          "vocab_size": 40, "intermediate_size": 24, "pad_token_id": 0}  # fmt: skip


def test_an_unknown_family_that_is_built_like_a_llama_is_taken_once_proved() -> None:
    attributor = Attributor(SmolLM3ForCausalLM(SmolLM3Config(**_SHAPE)).double())
    assert attributor.architecture.family == "smollm3"
    sample = Sample("s", (3, 1, 4, 1, 5, 9), 3, 3)
    assert np.abs(attributor.score([sample]).scores).max() > 0


def test_an_unknown_family_that_only_looks_like_a_llama_is_refused_by_the_proof() -> None:
    model = Glm4ForCausalLM(Glm4Config(**_SHAPE, head_dim=8)).double()
    with pytest.raises(ModelError, match="residual identity fails at 'm0'"):
        Attributor(model)


def test_the_zoos_base_passes(zoo: Path) -> None:
    from transformers import AutoModelForCausalLM

    attributor = Attributor(AutoModelForCausalLM.from_pretrained(zoo / "base"))
    assert len(attributor.graph.edges) == 163
