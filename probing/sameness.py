"""Whether the two models of a pair are one and the same: a comparison of them is a control, and should say so.

Told from the files, before anything is loaded: equal identities, equal tensors under equal names (however they are
spread over files, and whatever number format holds the equal values), and LoRA adapters that add nothing. The first
tensor that differs settles it, so that a tuned model costs next to nothing; only equal models are read to their end.
Where files do not tell (weights still on the hub, adapters of another kind), the two are taken to differ.
"""

import json
import re
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from probing.checkpoints import Checkpoint, weight_files
from probing.errors import ModelError

_FACTOR = re.compile(r"\.lora_(embedding_)?[AB](?=\.|$)")
"""What tells the two factors of a LoRA product apart."""


@lru_cache(maxsize=4)
def weights_note(base: Checkpoint, tuned: Checkpoint) -> str | None:
    """A sentence where the two models are equal in every weight; None where they differ, or the files do not tell."""
    try:
        equal = _equal(base, tuned)
    except (OSError, ValueError, SafetensorError, ModelError):  # loading will say what is wrong with them
        return None
    if not equal:
        return None
    return (
        "The two models are equal in every weight: what differs between them can only come from their configs, "
        "tokenizers or templates."
    )


def _equal(base: Checkpoint, tuned: Checkpoint) -> bool:
    if base.identity == tuned.identity:
        return True
    if not all(c.adapter is None or _adds_nothing(c.adapter, c.pickled) for c in (base, tuned)):
        return _same_adapter(base, tuned) and _same_model(base, tuned)
    return _same_model(base, tuned)


def _same_model(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints have the same weights but for their adapters."""
    if one.identity.rpartition("+")[2] == other.identity.rpartition("+")[2]:
        return True
    if one.gguf or other.gguf:
        return False
    return _same_tensors(*(weight_files(c.folder, c.pickled) for c in (one, other)))


def _same_adapter(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two adapters are alike in config and tensors."""
    if one.adapter is None or other.adapter is None:
        return False
    ours, theirs = (_described(folder) for folder in (one.adapter, other.adapter))
    ignored = {"base_model_name_or_path", "revision", "inference_mode", "peft_version"}
    differing = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    if differing - ignored:
        return False
    return _same_tensors(weight_files(one.adapter, one.pickled), weight_files(other.adapter, other.pickled))


def _described(adapter: Path) -> dict[str, Any]:
    described = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return described if isinstance(described, dict) else {}


def _adds_nothing(adapter: Path, pickled: bool) -> bool:
    """Whether every product of a LoRA adapter has a factor that is zero, and nothing else changes the base."""
    described = _described(adapter)
    usual = described.get("init_lora_weights", True) in (True, False, "gaussian")  # others change the base first
    if described.get("peft_type") != "LORA" or not usual or described.get("layer_replication"):
        return False
    zero: dict[str, bool] = {}
    (path,) = weight_files(adapter, pickled)
    if path.suffix != ".safetensors":
        return False
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a mapping
            product, factors = _FACTOR.subn("", key)
            if not factors:
                return False
            zero[product] = zero.get(product, False) or not file.get_tensor(key).any()
    return all(zero.values())


def _same_tensors(ours: list[Path], theirs: list[Path]) -> bool:
    """Whether two sets of files hold the same tensors; pickles are not looked into."""
    if {path.suffix for path in (*ours, *theirs)} != {".safetensors"}:
        return False
    with ExitStack() as stack:
        opened = ([stack.enter_context(safe_open(path, "pt")) for path in paths] for paths in (ours, theirs))
        one, other = ({key: file for file in files for key in file.keys()} for files in opened)  # noqa: SIM118
        if one.keys() != other.keys():
            return False
        shapes = ((one[key].get_slice(key).get_shape(), other[key].get_slice(key).get_shape()) for key in one)
        if any(a != b for a, b in shapes):
            return False
        return all(_same_values(one[key].get_tensor(key), other[key].get_tensor(key)) for key in one)


def _same_values(a: torch.Tensor, b: torch.Tensor) -> bool:
    common = torch.promote_types(a.dtype, b.dtype)
    return torch.equal(a.to(common), b.to(common))
