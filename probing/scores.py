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
from probing.graph import MOST_LAYERS, ResidualGraph, granularity_of, graph_of

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
    """Write an .npz, complete or not at all: the fields of `Scores`, and the names of `writers` and `readers`.

    `graph` is `ResidualGraph.as_text`; the names follow from it, and stand there for people who open the file.

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
                graph=np.array(scores.graph.as_text()),
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
            told = {name: str(file[name]) for name in ("tokenizer", "graph") if name in file.files}
    except FileNotFoundError as error:
        raise ScoresError(f"There is no file {path}.", "Make one with 'python -m probing attribute'.") from error
    except (*_DAMAGED, MemoryError) as error:
        raise ScoresError(f"{path} is not a complete file of scores.", "Make it again with attribute.") from error
    try:
        graph = ResidualGraph.from_text(told["graph"]) if "graph" in told else _graph_of_before(content)
        named = all(
            content[name].shape == (len(names),) and tuple(map(str, content[name])) == names
            for name, names in (("writers", graph.writers), ("readers", graph.readers))
        )
    except ValueError:
        named = False
    if not named:
        raise ScoresError(f"The parts of {path} do not fit together.", "Make it again with attribute.")
    ids = tuple(map(str, content["ids"]))
    shape = (len(ids), len(graph.writers), len(graph.readers))
    if content["scores"].shape != shape or content["loss"].shape != shape[:1] or not ids:
        raise ScoresError(f"The parts of {path} do not fit together.", "Make it again with attribute.")
    if not np.isfinite(content["scores"]).all() or content["scores"][:, ~graph.mask].any():
        raise ScoresError(f"{path} has scores that are not finite, or where no edge is.", "Make it again.")
    return Scores(
        graph, ids, content["scores"].astype(np.float32), content["loss"].astype(np.float32), told.get("tokenizer", "")
    )


def _graph_of_before(content: dict[str, np.ndarray]) -> ResidualGraph:
    """The graph of a file that has its names only, as earlier versions wrote it.

    They do not say whether a layer's MLP reads that layer's attention; scores that are all zero there do.
    """
    layers = min(content["writers"].size // 2, MOST_LAYERS)
    graph = graph_of(layers, granularity=granularity_of(map(str, content["readers"].flat)))
    if content["scores"].shape[1:] != graph.mask.shape:
        raise ValueError("not the scores of a graph")
    own = [content["scores"][:, graph.attention_writer(layer), graph.mlp_reader(layer)] for layer in range(layers)]
    return graph if np.any(own) else graph_of(layers, True, graph.granularity)
