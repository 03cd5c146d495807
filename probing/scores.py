"""Edge scores of some samples under one model, and the .npz file that they travel in.

Edges are what scores are of; the file holds matrices [writer, reader], as the field has them, which are written and
read one sample at a time: of a graph of heads, they are twice as large as the edges.
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from probing.errors import ScoresError
from probing.files import whole
from probing.graph import MOST_LAYERS, Reader, ResidualGraph, granularity_of, graph_of
from probing.method import Method

LARGEST = 8 * 2**30
"""Bytes of the scores in a file."""

_DENSEST = 200
"""How many times smaller a file may be than what is in it; scores compress to a half or a fifth."""

DAMAGED = (
    OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, struct.error, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""What reading a damaged archive raises."""


@dataclass(frozen=True)
class Scores:
    """One score for each edge and sample, and each sample's loss.

    A positive score means that removing the edge raises the loss that the method names. `loss` is the negative
    log-likelihood whatever that is, in nats per scored token: it says how sure the model is.
    """

    graph: ResidualGraph
    ids: tuple[str, ...]
    edges: Float[np.ndarray, "sample edge"]
    """In the graph's canonical order."""
    loss: Float[np.ndarray, " sample"]
    tokenizer: str = ""
    """Identity of the vocabulary that the samples' tokens are of, where it is known."""
    method: Method = field(default_factory=Method)
    """How they were made; its granularity is the graph's."""

    def __post_init__(self) -> None:
        """Say the granularity once."""
        object.__setattr__(self, "method", replace(self.method, granularity=self.graph.granularity))

    def of(self, ids: Iterable[str], edges: Iterable[str]) -> Float[np.ndarray, "sample edge"]:
        """The scores of some questions and edges, by their names, in that order."""
        place = {question: sample for sample, question in enumerate(self.ids)}
        return self.edges[np.ix_([place[name] for name in ids], [self.graph.number(name) for name in edges])]

    def matrix(self) -> Float[np.ndarray, "sample writer reader"]:
        """The same as matrices, zero where there is no edge."""
        return self.graph.to_matrix(self.edges)


def write_scores(path: Path, scores: Scores) -> None:
    """Write an .npz, complete or not at all: the fields of `Scores`, and the names of `writers` and `readers`.

    `scores` are matrices [sample, writer, reader]. `graph` is `ResidualGraph.as_text`; the names follow from it, and
    stand there for people who open the file. `method` is `Method.as_json`.

    Raises:
        ScoresError: the place cannot be written.
    """
    beside = {
        "loss": scores.loss,
        "ids": np.array(scores.ids),
        "graph": np.array(scores.graph.as_text()),
        "writers": np.array(scores.graph.writers),
        "readers": np.array(scores.graph.readers),
        "tokenizer": np.array(scores.tokenizer),
        "method": np.array(json.dumps(scores.method.as_json())),
    }
    with whole(path, ScoresError) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("scores.npy", "w", force_zip64=True) as member:
            shape = (len(scores.ids), *scores.graph.mask.shape)
            header = {"descr": scores.edges.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(member, header)
            for edges in scores.edges:
                member.write(scores.graph.to_matrix(edges).tobytes())
        for name, array in beside.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def check_archive(path: Path) -> None:
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
        check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in ("loss", "ids", "writers", "readers")}
            told = {name: str(file[name]) for name in ("tokenizer", "graph", "method") if name in file.files}
        with zipfile.ZipFile(path) as archive, archive.open("scores.npy") as member:
            return _read(path, member, content, told)
    except FileNotFoundError as error:
        raise ScoresError(f"There is no file {path}.", "Make one with 'python -m probing attribute'.") from error
    except (*DAMAGED, MemoryError) as error:
        raise ScoresError(f"{path} is not a complete file of scores.", "Make it again with attribute.") from error


def _read(path: Path, member: IO[bytes], content: dict[str, np.ndarray], told: dict[str, str]) -> Scores:
    """The scores that go with the rest of a file, matrix by matrix."""
    misfit = ScoresError(f"The parts of {path} do not fit together.", "Make it again with attribute.")
    shape, kind = _header(member)
    try:
        graph = ResidualGraph.from_text(told["graph"]) if "graph" in told else _named(content)
        method = Method.from_json(json.loads(told["method"])) if "method" in told else Method()
    except (ValueError, TypeError, AttributeError) as error:
        raise misfit from error
    named = all(
        content[name].shape == (len(names),) and tuple(map(str, content[name])) == names
        for name, names in (("writers", graph.writers), ("readers", graph.readers))
    )
    ids = tuple(map(str, content["ids"]))
    if not named or not ids or shape != (len(ids), *graph.mask.shape) or content["loss"].shape != shape[:1]:
        raise misfit
    edges = np.empty((len(ids), graph.size), np.float32)
    for row in edges:
        matrix = np.frombuffer(_exactly(member, graph.mask.size * kind.itemsize), kind).reshape(graph.mask.shape)
        if not np.isfinite(matrix).all() or matrix[~graph.mask].any():
            raise ScoresError(f"{path} has scores that are not finite, or where no edge is.", "Make it again.")
        row[:] = graph.to_edges(matrix)
    if "graph" not in told and not edges[:, _own(graph)].any():
        parallel = graph_of(graph.layers, True, graph.granularity)
        graph, edges = parallel, parallel.to_edges(graph.to_matrix(edges))
    return Scores(graph, ids, edges, content["loss"].astype(np.float32), told.get("tokenizer", ""), method)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type of an array of numbers that is about to be read, row by row."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, kind = read(member)
    if by_column or kind.kind not in "fiub":
        raise ValueError("not numbers, row by row")
    return shape, kind


def _exactly(member: IO[bytes], size: int) -> bytes:
    """So many bytes."""
    read = member.read(size)
    if len(read) < size:
        raise EOFError("cut short")
    return read


def _named(content: dict[str, np.ndarray]) -> ResidualGraph:
    """The graph of a file that has its names only, as earlier versions wrote it."""
    layers = min(content["writers"].size // 2, MOST_LAYERS)
    return graph_of(layers, granularity=granularity_of([Reader.of(str(name)) for name in content["readers"].flat]))


def _own(graph: ResidualGraph) -> list[int]:
    """The edges from each layer's attention into its MLP: names do not say whether a model has them, zeros do."""
    layers = range(graph.layers)
    return [graph.between(graph.attention_writers(layer).start, graph.mlp_reader(layer)) for layer in layers]
