"""The file that effects travel in, and where those stand that an interrupted command had found."""

import glob
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from probing.errors import ScoresError
from probing.files import whole
from probing.graph import ResidualGraph, is_edge
from probing.method import Method
from probing.scores import DAMAGED, check_archive

_TOLD = ("granularity", "reference", "loss")
"""What is said of a method: removal takes no estimate's path."""


@dataclass(frozen=True)
class Effects:
    """What removing each of some edges, alone, does to each sample's loss: positive where the edge helps."""

    graph: ResidualGraph
    ids: tuple[str, ...]
    edges: tuple[str, ...]
    """Their names."""
    effects: Float[np.ndarray, "sample edge"]
    """Loss without the edge minus loss."""
    loss: Float[np.ndarray, " sample"]
    """The whole model's."""
    method: Method
    """Whose granularity, reference and loss it is; of its path there is none."""


def write_effects(path: Path, found: Effects) -> None:
    """Write an .npz, complete or not at all: the fields of `Effects`, `graph` and `method` as JSON.

    Raises:
        ScoresError: the place cannot be written.
    """
    with whole(path, ScoresError) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            effects=found.effects.astype(np.float32),
            edges=np.array(found.edges),
            loss=found.loss.astype(np.float32),
            ids=np.array(found.ids),
            graph=np.array(found.graph.as_text()),
            method=np.array(json.dumps({name: getattr(found.method, name) for name in _TOLD})),
        )


def read_effects(path: Path) -> Effects:
    """Read what `write_effects` wrote.

    Raises:
        ScoresError: the file is missing, is something else, or its parts do not fit together.
    """
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            graph = ResidualGraph.from_text(str(file["graph"]))
            method = Method.from_json(json.loads(str(file["method"])))
            ids, edges = (tuple(map(str, file[name])) for name in ("ids", "edges"))
            found = Effects(graph, ids, edges, file["effects"], file["loss"], method)
    except FileNotFoundError as error:
        raise ScoresError(f"There is no file {path}.", "Make one with 'python -m probing ablate'.") from error
    except (*DAMAGED, TypeError, MemoryError) as error:
        raise ScoresError(f"{path} is not a complete file of effects.", "Make it again with ablate.") from error
    fits = found.effects.shape == (len(ids), len(edges)) and found.loss.shape == (len(ids),)
    if (
        not fits
        or graph.granularity != method.granularity
        or not all(is_edge(name) and graph.knows(name) for name in edges)
    ):
        raise ScoresError(f"The parts of {path} do not fit together.", "Make it again with ablate.")
    if not np.isfinite(found.effects).all() or not np.isfinite(found.loss).all():
        raise ScoresError(f"{path} has effects that are not finite.", "Make it again with ablate.")
    return found


@contextmanager
def unfinished(out: Path, made_by: Any, samples: int, edges: int) -> Iterator[Float[np.ndarray, "sample edge"]]:
    """Yields effects that are written to a hidden file beside `out` as they are found; not numbers where they are not.

    What was found before is there already, if it was `made_by` the same, a value that goes into JSON. The file is gone
    when all is done, and what others had begun for the same place with it.

    Raises:
        ScoresError: the place cannot be written.
    """
    key = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]
    path = out.with_name(f".{out.name}.{key}.unfinished")
    for other in out.parent.glob(f".{glob.escape(out.name)}.*.unfinished"):
        if other != path:
            other.unlink(missing_ok=True)
    if not path.exists():
        with whole(path, ScoresError) as part, part.open("wb") as file:
            np.save(file, np.full((samples, edges), np.nan, np.float32))
    yield np.lib.format.open_memmap(path, mode="r+")
    path.unlink(missing_ok=True)
