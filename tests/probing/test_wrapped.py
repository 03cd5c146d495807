"""Language models inside vision-language models, from checkpoints of the whole."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from probing.attribution import Attributor
from probing.checkpoints import find
from probing.errors import ModelError
from probing.models import describe, load_model
from tests import perturbed
from tests.families import CLOSE, SAMPLE
from tests.shrunk import shrunk_config

_TURNS = {"text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}}
_MIXED = {"text_config": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}}

WRAPPED: dict[str, dict[str, Any]] = {
    "gemma3": {},
    "llama4": {},
    "llava": {},
    "mistral3": {},
    "qwen2_5_vl": _TURNS,
    "qwen3_5": _MIXED,
    "qwen3_vl": {},
}


def _saved(kind: str, folder: Path) -> torch.nn.Module:
    """A tiny checkpoint of the whole model."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(shrunk_config(CONFIG_MAPPING[kind], WRAPPED.get(kind, {})))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_language_model_in_a_wrapper_is_loaded_with_its_weights_and_scores_as_the_slow_twin_does(
    kind: str, tmp_path: Path
) -> None:
    whole = _saved(kind, tmp_path)
    checkpoint = find(str(tmp_path))
    assert describe(checkpoint).parameters == whole.num_parameters()
    model = load_model(checkpoint, torch.device("cpu"), torch.float64, attention="eager")
    tokens = torch.tensor([SAMPLE.fed])
    torch.testing.assert_close(model(tokens).logits, whole.double()(tokens).logits, rtol=1e-4, atol=1e-5)
    with perturbed.InFloat64():
        attributor = Attributor(model)
        graph = attributor.graph
        found = torch.from_numpy(attributor.score([SAMPLE]).matrix()[0])
        layers = [block.layer for block in attributor.architecture.blocks]
        expected = perturbed.scores(model, layers, SAMPLE, graph.writers, graph.readers)
    assert graph.layers == 3
    assert (found - expected).norm() < CLOSE * expected.norm()
    assert model.generate(tokens, max_new_tokens=2, do_sample=False).shape == (1, tokens.shape[1] + 2)


def test_a_wrapper_whose_text_looks_ahead_is_refused(tmp_path: Path) -> None:
    _saved("paligemma", tmp_path)
    model = load_model(find(str(tmp_path)), torch.device("cpu"), torch.float32)
    with pytest.raises(ModelError, match="sees the tokens after the one that it reads"):
        Attributor(model)
