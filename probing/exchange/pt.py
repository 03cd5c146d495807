"""The .pt of EAP-IG: the same graph as in its JSON, with matrices [writer, reader] of scores and of membership.

It is a dictionary of `cfg` (as in the JSON), `src_nodes` and `dst_nodes` (names of what writes, and of what reads: of
each layer all queries, all keys, all values, the MLP; last `logits`), `edges_scores`, `edges_in_graph` and
`nodes_in_graph` (of what writes). Every graph of ours is written in heads (`shares`); one of blocks has each block as
its only head. What EAP-IG has no place for stands beside and is ignored there: `graph` (the whole shape), `left_out`
(`scores` and `in_graph` of the edges that theirs has not) and `values` (`EDGE_VALUES` of each edge of ours). EAP-IG
has one score for an edge: scores of single questions do not go along. Scores are in float64, which EAP-IG rounds to
float32.

A .pt is an archive of a pickle and of the numbers that it speaks of. PyTorch reads it with weights only: a pickle that
asks for anything but tensors and plain values is refused before it can run. What it says is believed only as far as
the file is large.
"""

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from probing.edge_tables import EDGE_VALUES
from probing.errors import CircuitError
from probing.exchange.circuit_file import CircuitFile
from probing.exchange.shares import Shares
from probing.files import whole
from probing.graph import MOST_HEADS, MOST_LAYERS, Heads, ResidualGraph, graph_of

LARGEST = 2**30
"""Bytes of a file; a model with 80 layers of 64 heads has 0.4 GB, or 0.7 GB as it is written here."""

_DAMAGED = (
    OSError, LookupError, ValueError, TypeError, AttributeError, EOFError, RuntimeError, OverflowError,
    NotImplementedError, AssertionError, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a damaged archive raises."""

_KEYS = ("cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph")


def write_pt(path: Path, circuit: CircuitFile) -> None:
    """Write what EAP-IG's `Graph.from_pt` reads, complete or not at all, and `read_pt` with nothing lost.

    Raises:
        CircuitError: the place cannot be written.
    """
    shares = Shares.of_heads(circuit.graph)
    theirs, left = shares.theirs, shares.left_out
    inside = theirs.to_matrix(shares.spread(circuit.inside))
    touched = {theirs.writers[place] for place in np.flatnonzero(inside.any(axis=1))}
    touched |= {theirs.reader_records[place].node for place in np.flatnonzero(inside.any(axis=0))}
    content: dict[str, Any] = {
        "cfg": {
            "n_layers": theirs.layers, "n_heads": shares.heads,
            "parallel_attn_mlp": theirs.parallel, "d_model": circuit.width,
        },
        "src_nodes": list(theirs.writers),
        "dst_nodes": list(theirs.readers),
        "edges_scores": torch.from_numpy(theirs.to_matrix(shares.split(circuit.scores))),
        "edges_in_graph": torch.from_numpy(inside),
        "nodes_in_graph": torch.tensor([name in touched for name in theirs.writers]),
        "graph": circuit.graph.as_text(),
        "left_out": {
            "scores": torch.from_numpy(circuit.scores[left].astype(np.float64)),
            "in_graph": torch.from_numpy(circuit.inside[left]),
        },
    }  # fmt: skip
    if circuit.values is not None:
        content["values"] = torch.tensor(np.ascontiguousarray(circuit.values[list(EDGE_VALUES)], np.float64))
    with whole(path, CircuitError) as part, part.open("wb") as file:
        torch.save(content, file)


def read_pt(path: Path) -> CircuitFile:
    """Read what `write_pt` or EAP-IG's `Graph.to_pt` wrote.

    An edge of ours that is several of theirs has their sum, and is in the circuit if one of them is.

    Raises:
        CircuitError: the file is missing, too large, something else, or its parts do not fit together.
    """
    content = _load(path)
    if not isinstance(content, dict) or any(key not in content for key in _KEYS):
        raise CircuitError(f"{path} is not a circuit in EAP-IG's .pt format.", f"It has {', '.join(_KEYS)}.")
    misfit = CircuitError(f"The parts of {path} do not fit together.", "Write it again with EAP-IG's Graph.to_pt.")
    try:
        cfg = content["cfg"]
        layers, heads, width = (int(cfg[name]) for name in ("n_layers", "n_heads", "d_model"))
        if not 0 <= layers <= MOST_LAYERS or not 1 <= heads <= MOST_HEADS:
            raise misfit
        shape = (1 + layers * (heads + 1), layers * (3 * heads + 1) + 1)
        scores, inside = (_numbers(content[name], shape) for name in ("edges_scores", "edges_in_graph"))
        _numbers(content["nodes_in_graph"], shape[:1])
        theirs = graph_of(layers, bool(cfg["parallel_attn_mlp"]), "heads", (), (Heads(heads, heads),) * layers)
        if list(content["src_nodes"]) != list(theirs.writers) or list(content["dst_nodes"]) != list(theirs.readers):
            raise misfit
        circuit = _circuit(content, theirs, theirs.to_edges(scores), theirs.to_edges(inside) != 0)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise misfit from error
    if not np.isfinite(circuit.scores).all():
        raise CircuitError(f"{path} has scores that are not finite.", "Score that circuit again.")
    return replace(circuit, width=max(width, 0))


def _circuit(content: dict[str, Any], theirs: ResidualGraph, scores: np.ndarray, inside: np.ndarray) -> CircuitFile:
    """Their edges, and what stands beside them, as the graph that the file says it is of: theirs, where it does not.

    Raises:
        ValueError: that graph has other heads, or what stands beside has not its shape.
        TypeError: what stands beside is something else.
        KeyError: it lacks a part.
    """
    if "graph" not in content:
        return CircuitFile(theirs, scores.astype(np.float64), inside)
    shares = Shares.of_heads(ResidualGraph.from_text(content["graph"]))
    if shares.theirs != theirs:
        raise ValueError("another graph")
    left, size = (len(shares.left_out),), shares.graph.size
    left_scores, left_inside = (_numbers(content["left_out"][name], left) for name in ("scores", "in_graph"))
    values = None
    if "values" in content:
        values = pd.DataFrame(_numbers(content["values"], (size, len(EDGE_VALUES))), columns=list(EDGE_VALUES))
    return CircuitFile(shares.graph, shares.join(scores, left_scores), shares.join(inside, left_inside) > 0, values)


def _load(path: Path) -> Any:
    """What is in the file, which is not larger than it looks."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST or size > 2 * path.stat().st_size:
            raise CircuitError(f"{path} would unpack to {size / 2**30:.1f} GiB.", "A circuit's file is smaller.")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CircuitError(f"There is no file {path}.", "Check its name.") from error
    except pickle.UnpicklingError as error:
        raise CircuitError(
            f"{path} asks to run code when it is read, or is damaged, and was not read.", "Use EAP-IG's JSON instead."
        ) from error
    except _DAMAGED as error:
        raise CircuitError(f"{path} is not a circuit in EAP-IG's .pt format.", "Use its JSON instead.") from error


def _numbers(tensor: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of a tensor that has this shape, and has all of them in the file.

    Raises:
        ValueError: it is something else, or repeats few numbers so that it could claim any size.
        RuntimeError: it is sparse.
        TypeError: it has no numbers.
    """
    if (
        not isinstance(tensor, torch.Tensor)
        or tuple(tensor.shape) != shape
        or not tensor.is_contiguous()
        or tensor.is_complex()
    ):
        raise ValueError("not such a tensor")
    small = tensor.is_floating_point() and tensor.dtype != torch.float64
    return (tensor.float() if small else tensor).detach().numpy()
