"""Where a model's files are, and who they are: a hub commit, or a digest of the content of a folder."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from probing.errors import ModelError

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_TEXTS = ("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt")


@dataclass(frozen=True)
class Checkpoint:
    """A model's files on this machine."""

    name: str
    """What the person called it: a hub id or a path."""
    folder: Path
    identity: str
    """`hub:ID@COMMIT` or `sha256:DIGEST` of weights, config and tokenizer."""


def find(name: str, revision: str | None = None) -> Checkpoint:
    """Locate `name`, a folder or a hub id (downloaded if need be), and establish its identity.

    Raises:
        ModelError: no such folder or hub model, no network, or no safetensors in it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Checkpoint(name, folder, f"sha256:{_digest(folder)}")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise ModelError(f"There is no folder {name}.", "Give a model's folder or a hub id such as owner/model.")
    try:
        local = Path(snapshot_download(name, revision=revision, allow_patterns=[*_WEIGHTS, *_TEXTS]))
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"'{name}' is neither a folder here nor a model on the hub that you may read.",
            "Check the spelling; for a gated model, accept its terms and log in with 'hf auth login'.",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"'{name}' is not a folder here, and the hub did not deliver it.",
            "Check the network, or give the path of a folder.",
        ) from error
    return Checkpoint(name, local, f"hub:{name}@{local.name}")


def _digest(folder: Path) -> str:
    patterns = ("*.safetensors", "*.json", "vocab.*", "merges.txt", "tokenizer.model")
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"{folder} has no weights in safetensors format.", "Save the model with save_pretrained and try again."
        )
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]
