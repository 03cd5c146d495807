"""Edge scores of some samples under one model, and the .npz file that they travel in."""

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from probing.errors import ScoresError
from probing.residual_graph import ResidualGraph, granularity_of, graph_of

LARGEST = 8 * 2**30
"""Bytes of the scores in a file."""

_DENSEST = 200
"""How many times smaller a file may be than what is in it; scores compress to a half or a fifth."""

_DAMAGED = (
    OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, struct.error, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""What reading a damaged archive raises."""


@dataclass(frozen=True)
class Scores:
    """One matrix of scores for each sample, zero where there is no edge, and each sample's loss.

    A positive score means that removing the edge raises the loss. Loss is in nats per scored token.
    """

    graph: ResidualGraph
    ids: tuple[str, ...]
    scores: Float[np.ndarray, "sample writer reader"]
    loss: Float[np.ndarray, " sample"]
    tokenizer: str = ""
    """Identity of the vocabulary that the samples' tokens are of, where it is known."""


def write_scores(path: Path, scores: Scores) -> None:
    """Write an .npz with `scores`, `loss`, `ids`, `writers`, `readers` and `tokenizer`; complete or not at all.

    Raises:
        ScoresError: the place cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                scores=scores.scores,
                loss=scores.loss,
                ids=np.array(scores.ids),
                writers=np.array(scores.graph.writers),
                readers=np.array(scores.graph.readers),
                tokenizer=np.array(scores.tokenizer),
            )
        part.replace(path)
    except OSError as error:
        raise ScoresError(f"Cannot write {path}: {error.strerror}.", "Choose another place.") from error
    finally:
        part.unlink(missing_ok=True)


def _check_archive(path: Path) -> None:
    """Raise a ScoresError if an archive would unpack to more than scores may take."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > LARGEST or size > _DENSEST * path.stat().st_size:
        raise ScoresError(f"{path} would unpack to {size / 2**30:.1f} GiB.", "Score fewer samples into one file.")


def read_scores(path: Path) -> Scores:
    """Read what `write_scores` wrote.

    Raises:
        ScoresError: the file is missing, is something else, or its parts do not fit together.
    """
    try:
        _check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in ("scores", "loss", "ids", "writers", "readers")}
            tokenizer = str(file["tokenizer"]) if "tokenizer" in file.files else ""
    except FileNotFoundError as error:
        raise ScoresError(f"There is no file {path}.", "Make one with 'python -m probing attribute'.") from error
    except (*_DAMAGED, MemoryError) as error:
        raise ScoresError(f"{path} is not a complete file of scores.", "Make it again with attribute.") from error
    writers = tuple(map(str, content["writers"]))
    readers = tuple(map(str, content["readers"]))
    graph = graph_of(len(writers) // 2, granularity=granularity_of(readers))
    ids = tuple(map(str, content["ids"]))
    shape = (len(ids), len(graph.writers), len(graph.readers))
    named = writers == graph.writers and readers == graph.readers
    if not named or content["scores"].shape != shape or content["loss"].shape != shape[:1] or not ids:
        raise ScoresError(f"The parts of {path} do not fit together.", "Make it again with attribute.")
    if not np.isfinite(content["scores"]).all() or content["scores"][:, ~graph.mask].any():
        raise ScoresError(f"{path} has scores that are not finite, or where no edge is.", "Make it again.")
    return Scores(graph, ids, content["scores"].astype(np.float32), content["loss"].astype(np.float32), tokenizer)
