"""Files from the Hugging Face hub, with a sentence for everything that can go wrong on the way."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from probing.errors import PersonError

_NOUNS = {"model": "model", "dataset": "data set"}


def fetch(
    name: str,
    kind: Literal["model", "dataset"],
    revision: str | None,
    patterns: Iterable[str],
    error: type[PersonError],
) -> Path:
    """The folder of a snapshot, named after its commit, with the files like `patterns`.

    Raises:
        PersonError: of type `error`; there is no such thing or revision, you may not read it, or there is no network.
    """
    noun = _NOUNS[kind]
    try:
        return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=list(patterns)))
    except GatedRepoError as cause:
        raise error(
            f"The {noun} '{name}' is gated.", "Accept its terms on the hub, then log in with 'hf auth login'."
        ) from cause
    except RevisionNotFoundError as cause:
        raise error(f"The {noun} '{name}' has no revision '{revision}'.", "Check it on the hub.") from cause
    except RepositoryNotFoundError as cause:
        raise error(
            f"'{name}' is neither here nor a {noun} on the hub that you may read.",
            "Check the spelling; for a gated one, accept its terms and log in with 'hf auth login'.",
        ) from cause
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as cause:
        raise error(
            f"The hub did not deliver the {noun} '{name}'.", "Check the network, or name a place on this machine."
        ) from cause
