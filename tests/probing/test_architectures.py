import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.nanochat.modeling_nanochat import NanoChatRMSNorm
from transformers.models.nemotron.modeling_nemotron import NemotronLayerNorm1P
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm

from probing.architectures import Architecture, Observer, architecture_of, prove, recording
from probing.architectures.norms import norm_of
from probing.architectures.taps import Gradient, Take, Taps
from probing.attribution import Attributor
from probing.errors import ModelError
from tests.shrunk import shrunk
from tests.tiny import TINY, tiny


@pytest.mark.parametrize("name", list(TINY))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_writers_sum_to_what_every_reader_reads(name: str, dtype: torch.dtype) -> None:
    model = tiny(name, dtype)
    architecture = architecture_of(model)
    tokens = torch.tensor([[3, 14, 15, 9, 26]])
    written: list[torch.Tensor] = []
    residuals: dict[range, torch.Tensor] = {}

    class Both(Observer):
        def wrote(self, writer: int, output: torch.Tensor) -> None:
            assert writer == len(written)
            written.append(output)

        def read(self, readers: range, residual: torch.Tensor) -> None:
            residuals[readers] = residual

    with recording(architecture, Both()), torch.no_grad():
        model(tokens)
    assert len(written) == 2 * architecture.layers + 1
    assert [reader for readers in residuals for reader in readers] == list(range(len(architecture.graph.readers)))
    for readers, residual in residuals.items():
        (before,) = set(architecture.graph.writers_before[list(readers)])
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


def test_a_layer_with_a_part_that_is_not_known_is_refused_by_the_parts_name() -> None:
    model = tiny("llama")
    model.model.layers[1].router = torch.nn.Linear(32, 32)
    with pytest.raises(ModelError, match=r"type 'llama' are not supported: its layers also hold 'router'"):
        Attributor(model)


def test_a_module_without_parameters_does_not_matter() -> None:
    model = tiny("llama")
    model.model.layers[1].drop = torch.nn.Dropout()
    Attributor(model)


def test_layers_that_run_twice_are_refused() -> None:
    model = tiny("llama")
    model.model.layers[2] = model.model.layers[1]
    with pytest.raises(ModelError, match="of this model runs more than once in a pass"):
        Attributor(model)


def test_a_layer_that_is_skipped_is_refused() -> None:
    model = tiny("llama")
    model.model.layers[1].forward = lambda hidden_states, **kwargs: hidden_states
    with pytest.raises(ModelError, match="'a1' of this model did not run"):
        Attributor(model)


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(ModelError, match="sees the tokens after the one that it reads"):
        Attributor(shrunk("gemma3_text", use_bidirectional_attention=True))


def test_a_model_that_needs_more_than_tokens_is_refused_with_what_it_said() -> None:
    model = tiny("llama")

    def asks(*args: object, **kwargs: object) -> None:
        raise ValueError("You have to specify pixel_values")

    model.model.forward = asks
    with pytest.raises(
        ModelError, match=r"does not run on tokens alone \(ValueError: You have to specify pixel_values"
    ):
        Attributor(model)


def test_weights_that_are_not_finite_are_said_to_be_so() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="logits are not finite"):
        Attributor(model)


def _with_taps(architecture: Architecture, change: Callable[[Taps], Taps]) -> Architecture:
    """The architecture with its attention blocks' first taps changed."""
    blocks = []
    for block in architecture.blocks:
        first, *rest = block.readings
        taps = (change(first.taps[0]), *first.taps[1:])
        blocks.append(dataclasses.replace(block, readings=(dataclasses.replace(first, taps=taps), *rest)))
    return dataclasses.replace(architecture, blocks=tuple(blocks))


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("kind", ["codegen", "falcon", "gpt2", "phi3", "deepseek_v3", "llama"])
def test_projections_in_a_wrong_order_are_refused_although_their_gradients_add_up(
    kind: str, order: tuple[int, int, int]
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Swapped:
        taps: Taps
        parts: int = 3

        def hooks(self, take: Take) -> list:
            def swapped(parts: range, gradient: Gradient) -> None:
                for i, part in enumerate(parts):
                    matrix = gradient.matrix
                    mine = matrix if matrix is None or len(matrix) == 1 else matrix[i : i + 1]
                    take(range(order[part], order[part] + 1), Gradient(gradient.given[:, i : i + 1], mine))

            return self.taps.hooks(swapped)

    architecture = architecture_of(shrunk(kind))
    prove(architecture)
    with pytest.raises(ModelError, match="acts "):
        prove(_with_taps(architecture, Swapped))


def test_a_part_of_the_latent_that_is_taken_for_values_wrongly_is_refused() -> None:
    architecture = architecture_of(shrunk("deepseek_v2"))
    with pytest.raises(ModelError, match="<k>' should be acts where there is nothing to choose from"):
        prove(_with_taps(architecture, lambda taps: dataclasses.replace(taps, value_rows=taps.value_rows[:-1])))


NORMS: dict[str, Callable[[], torch.nn.Module]] = {
    "root mean square": lambda: LlamaRMSNorm(9, 1e-4),
    "gain stored with an offset": lambda: Gemma3RMSNorm(9, 1e-6),
    "layer norm": lambda: torch.nn.LayerNorm(9, 1e-3),
    "layer norm without gain": lambda: torch.nn.LayerNorm(8, elementwise_affine=False),
    "layer norm of another class": lambda: CohereLayerNorm(9, 1e-5),
    "layer norm whose gain has an offset": lambda: NemotronLayerNorm1P(8),
    "layer norm whose epsilon has no name": lambda: OlmoLayerNorm(8),
    "no gain at all": lambda: NanoChatRMSNorm(eps=1e-6),
    "a width of one": lambda: LlamaRMSNorm(1, 1e-2),
    "none": lambda: torch.nn.Identity(),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_is_known_by_what_it_does_and_pulled_back_as_autograd_does(name: str) -> None:
    torch.manual_seed(0)
    module = NORMS[name]()
    for parameter in module.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    width = next((p.shape[0] for p in module.parameters()), 8)
    residual = (2 + 3 * torch.randn(2, 5, width)).requires_grad_()
    gradients = torch.randn(2, 3, 5, width)
    expected = torch.stack(
        [torch.autograd.grad(module(residual), residual, gradients[:, i], retain_graph=True)[0] for i in range(3)], 1
    )
    norm = norm_of(module, width)
    assert norm is not None
    norm.pull_back(residual.detach(), gradients)
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "module",
    [torch.nn.Linear(8, 8), torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Tanh()), torch.nn.Linear(8, 3),
     torch.nn.GroupNorm(2, 8), torch.nn.Bilinear(8, 8, 8)],
)  # fmt: skip
def test_what_is_no_norm_is_not_taken_for_one(module: torch.nn.Module) -> None:
    assert norm_of(module, 8) is None


def test_an_attention_block_behind_something_that_is_no_known_norm_reads_as_one() -> None:
    model = shrunk("llama")
    model.model.layers[1].input_layernorm = torch.nn.Sequential(model.model.layers[1].input_layernorm, torch.nn.Tanh())
    graph = Attributor(model).graph
    assert graph.whole == (1,)
    assert "a1<qkv>" in graph.readers


def test_attention_and_mlp_behind_something_that_is_no_known_norm_are_refused() -> None:
    model = shrunk("cohere")
    model.model.layers[1].input_layernorm = torch.nn.Sequential(model.model.layers[1].input_layernorm, torch.nn.Tanh())
    with pytest.raises(ModelError, match="what 'input_layernorm' does, through which attention and MLP read"):
        Attributor(model)


def test_the_zoos_base_passes(zoo: Path) -> None:
    from transformers import AutoModelForCausalLM

    attributor = Attributor(AutoModelForCausalLM.from_pretrained(zoo / "base"))
    assert len(attributor.graph.edges) == 163
