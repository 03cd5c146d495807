"""One kind of file made from another, on the command line; no page does this, because a .pt takes PyTorch to read."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from probing.errors import CircuitError
from probing.exchange.circuit_file import CircuitFile
from probing.exchange.eap import eap_json, read_eap_json
from probing.exchange.graphml import as_graphml
from probing.files import whole
from probing.scores import read_scores

TOP = 200
"""Edges of the circuit in a file of scores, unless another number is asked for."""


def convert(source: Path, out: Path, top: int | None = None, width: int | None = None) -> CircuitFile:
    """Read a circuit from EAP-IG's .pt or .json, or from scores in .npz, and write it as .json or .graphml.

    `top` makes the circuit of so many edges, the largest |score| first; of scores, the mean over the samples counts.
    `width` is the model's, where the file does not say it.

    Raises:
        PersonError: a file is of no such kind, cannot be read, or cannot be written.
    """
    circuit = _read(source)
    if top is not None or source.suffix == ".npz":
        circuit = circuit.strongest(TOP if top is None else top)
    circuit = replace(circuit, width=width or circuit.width)
    if out.suffix == ".json":
        _write(out, eap_json(circuit))
    elif out.suffix == ".graphml":
        _write(out, [as_graphml(circuit.as_graph())])
    else:
        raise CircuitError(f"A circuit is not written as '{out.suffix}'.", "Let the name end in .json or .graphml.")
    return circuit


def _read(source: Path) -> CircuitFile:
    if source.suffix == ".npz":
        scores = read_scores(source)
        mean = scores.edges.mean(0, dtype=np.float64)
        return CircuitFile(scores.graph, mean, np.zeros(scores.graph.size, bool))
    if source.suffix == ".pt":
        from probing.exchange.pt import read_pt

        return read_pt(source)
    try:
        return read_eap_json(source.read_bytes())
    except OSError as error:
        raise CircuitError(f"Cannot read {source}: {error.strerror}.", "Name a .json, .pt or .npz.") from error


def _write(out: Path, pieces: Iterable[str]) -> None:
    with whole(out, CircuitError) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
