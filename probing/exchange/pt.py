"""The .pt of EAP-IG: the same graph as in its JSON, with matrices [writer, reader] of scores and of membership.

A .pt is an archive of a pickle and of the numbers that it speaks of. PyTorch reads it with weights only: a pickle that
asks for anything but tensors and plain values is refused before it can run. What it says is believed only as far as
the file is large.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probing.errors import CircuitError
from probing.exchange.circuit_file import CircuitFile
from probing.graph import MOST_HEADS, MOST_LAYERS, Heads, graph_of

LARGEST = 2**30
"""Bytes of a file; a model with 80 layers of 64 heads has 0.4 GB."""

_DAMAGED = (
    OSError, LookupError, ValueError, TypeError, AttributeError, EOFError, RuntimeError, OverflowError,
    NotImplementedError, AssertionError, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a damaged archive raises."""

_KEYS = ("cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph")


def read_pt(path: Path) -> CircuitFile:
    """Read what EAP-IG's `Graph.to_pt` wrote.

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
        graph = graph_of(layers, bool(cfg["parallel_attn_mlp"]), "heads", (), (Heads(heads, heads),) * layers)
        if list(content["src_nodes"]) != list(graph.writers) or list(content["dst_nodes"]) != list(graph.readers):
            raise misfit
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise misfit from error
    edges = graph.to_edges(scores).astype(np.float64)
    if not np.isfinite(edges).all():
        raise CircuitError(f"{path} has scores that are not finite.", "Score that circuit again.")
    return CircuitFile(graph, edges, graph.to_edges(inside) != 0, width=max(width, 0))


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
