"""An adapter added into the weights of its base, where each of its tensors has a place and each place its tensor.

peft passes over tensors whose names fit no module of the base (those of a model in another wrapper, or of other
layers), and leaves the places that get none as they were: an adapter that does not fit would be scored as its base.
Here both are refused.
"""

import warnings
from typing import Any

import torch
from transformers import PreTrainedModel

from probing.checkpoints import Checkpoint
from probing.errors import ModelError, in_short

_NAME = "scored"
"""What peft calls the adapter inside of the model."""

_PREFIX = "base_model.model."
"""What peft writes before the names of a base's modules."""


def with_adapter(model: PreTrainedModel, checkpoint: Checkpoint) -> PreTrainedModel:
    """The model with the checkpoint's adapter added into its weights; its vocabulary is that of the adapter.

    Raises:
        ModelError: the adapter is damaged, of a kind that is not added to weights, does not fit the model, or needs
            rows of the vocabulary that neither it nor the model holds.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # what peft warns of is either refused here or of no matter
            return _merged(model, checkpoint)
    except ModelError:
        raise
    except Exception as error:  # peft raises whatever a damaged config leads it into
        raise ModelError(
            f"The adapter {checkpoint.name} cannot be added to its base: {in_short(error)}.", "Do they fit together?"
        ) from error


def _merged(model: PreTrainedModel, checkpoint: Checkpoint) -> PreTrainedModel:
    from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    name, folder = checkpoint.name, str(checkpoint.adapter)
    config = PeftConfig.from_pretrained(folder)
    if not hasattr(PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type], "merge_and_unload"):
        raise ModelError(
            f"The adapter {name} is of the kind {config.peft_type.value}, which is not added to the weights of a base.",
            "Give a LoRA adapter, or a full model.",
        )
    config.inference_mode = True
    mapping = getattr(model, "_checkpoint_conversion_mapping", None)
    tensors = load_peft_weights(folder, device="cpu", key_mapping=mapping)
    before = _rows(model)
    after = _vocabulary(model, tensors, config)
    if after - before > len(_trained_tokens(config)) and after not in _sizes(model, tensors):
        raise _lacks_rows(name, before, after)
    if after != before:
        _resize(model, after)
    adapted = get_peft_model(model, config, adapter_name=_NAME)
    places = [key for key in adapted.state_dict() if _is_place(key, PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type])]
    try:
        report = set_peft_model_state_dict(adapted, tensors, adapter_name=_NAME)
        left, absent = report.unexpected_keys, [key for key in report.missing_keys if key in set(places)]
    except KeyError as error:  # a module that was trained as a whole, of which the file has nothing under its name
        left, absent = _without_place(adapted, tensors), [str(error.args[0])]
    _refuse_misfits(name, tensors, left, absent, places)
    merged = adapted.merge_and_unload()
    if after != before and any(p.isnan().any() for part in _vocabulary_parts(merged) for p in part.parameters()):
        raise _lacks_rows(name, before, after)
    return merged


# -- names -------------------------------------------------------------------------------------------------------------


def _is_place(key: str, prefix: str) -> bool:
    """Whether a tensor of the adapted model, of this name, is one that the adapter brings."""
    return prefix in key and _NAME in key.split(".")


def _without_place(adapted: Any, tensors: dict[str, torch.Tensor]) -> list[str]:
    """The adapter's tensors whose names are neither those that peft saves of this model nor the model's own."""
    from peft import get_peft_model_state_dict

    known = get_peft_model_state_dict(adapted, adapter_name=_NAME, save_embedding_layers=False).keys()
    return sorted(tensors.keys() - known - adapted.state_dict().keys())


def _refuse_misfits(
    name: str, tensors: dict[str, torch.Tensor], left: list[str], absent: list[str], places: list[str]
) -> None:
    """Refuse tensors that fit no module, unless they repeat one that does, and places that got no tensor."""
    if left := [key for key in left if not _is_repeated(key, left, tensors)]:
        raise ModelError(
            f"{len(left)} of the {len(tensors)} tensors of the adapter {name} fit no module of its base, {left[0]} "
            "among them.",
            "It was made for another model, or in a wrapper whose names it kept: give its tensors the base's names.",
        )
    if absent:
        raise ModelError(
            f"The adapter {name} has no tensors for {len(absent)} of the {max(len(places), len(absent))} places that "
            f"its config adapts, {absent[0].replace(f'.{_NAME}', '')} among them.",
            "Is its file complete? If only some layers were adapted, its config should say so (layers_to_transform).",
        )


def _is_repeated(key: str, left: list[str], tensors: dict[str, torch.Tensor]) -> bool:
    """Whether a tensor that was left has been placed under another of its names, as matrices of the vocabulary are.

    Factors of LoRA may be equal without being the same: they are often zero.
    """
    placed = (other for name, other in tensors.items() if name not in left)
    return ".lora_" not in key and any(torch.equal(other, tensors[key]) for other in placed)


# -- the vocabulary ----------------------------------------------------------------------------------------------------


def _vocabulary_parts(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The modules with a row for each token."""
    return [part for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None]


def _rows(model: PreTrainedModel) -> int:
    return model.get_input_embeddings().weight.shape[0]


def _sizes(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> set[int]:
    """The sizes of the vocabulary that the adapter's tensors have."""
    parts = _vocabulary_parts(model)
    names = [f"{_PREFIX}{name}." for name, module in model.named_modules() if any(module is part for part in parts)]
    sizes = set()
    for key, tensor in tensors.items():
        if tensor.ndim == 2 and any(key.startswith(name) for name in names):
            if "lora_embedding_A" in key:
                sizes.add(tensor.shape[1])
            elif key.endswith(".weight") and "lora_A" not in key:  # lora_B can only be that of the output
                sizes.add(tensor.shape[0])
    return sizes


def _trained_tokens(config: Any) -> set[int]:
    """The tokens whose rows alone the adapter holds."""
    named = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None) or []
    return {index for rows in (named.values() if isinstance(named, dict) else [named]) for index in rows}


def _vocabulary(model: PreTrainedModel, tensors: dict[str, torch.Tensor], config: Any) -> int:
    """How many tokens the adapter is for."""
    sizes = _sizes(model, tensors)
    return max(sizes) if sizes else max(_rows(model), *(index + 1 for index in _trained_tokens(config)), 0)


def _resize(model: PreTrainedModel, rows: int) -> None:
    """Give the model a vocabulary of another size; its new rows are NaN until the adapter's take their place."""
    before = _rows(model)
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for part in _vocabulary_parts(model):
            for parameter in part.parameters():
                parameter[before:] = torch.nan


def _lacks_rows(name: str, before: int, after: int) -> ModelError:
    return ModelError(
        f"The adapter {name} is for a vocabulary of {after} tokens, its base has {before}, and the adapter does not "
        "hold the rows of all that are new.",
        "Save it with save_embedding_layers=True, or enlarge the base's vocabulary first and save that as the base.",
    )
