"""One kind of file made from another, on the command line; no page does this, because a .pt takes PyTorch to read."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from probing.errors import CircuitError, ScoresError
from probing.exchange.circuit_file import CircuitFile
from probing.exchange.eap import eap_json, read_eap_json
from probing.exchange.frames import circuit_from_frame, circuit_to_frame, from_frame
from probing.exchange.graphml import as_graphml
from probing.files import whole
from probing.long_form import write_long
from probing.scores import Scores, read_scores, write_scores

TOP = 200
"""Edges of the circuit in a file of scores, unless another number is asked for."""

_READ = "a .json, .pt, .npz, .csv or .parquet"


def convert(source: Path, out: Path, top: int | None = None, width: int | None = None) -> CircuitFile | Scores:
    """Read a circuit or scores from one kind of file, and write them as another; what was written.

    A circuit is in EAP-IG's .json or .pt, or in a table (.csv, .parquet) with a row for each edge; it becomes any of
    these, or .graphml. Scores are in .npz, or in a table with a row for each question and edge; they become either of
    these, and circuits of their mean. `top` makes the circuit of so many edges, the largest |score| first, of scores
    too where they would become a table of scores. `width` is the model's, where the file does not say it.

    Raises:
        PersonError: a file is of no such kind, cannot be read, or cannot be written.
    """
    found, kind = _read(source), out.suffix
    if isinstance(found, Scores) and (kind == ".npz" or (kind in (".csv", ".parquet") and top is None)):
        if kind == ".npz":
            write_scores(out, found)
        else:
            write_long(out, found, "csv" if kind == ".csv" else "parquet")
        return found
    circuit = CircuitFile.mean(found) if isinstance(found, Scores) else found
    if top is not None or isinstance(found, Scores):
        circuit = circuit.strongest(TOP if top is None else top)
    circuit = replace(circuit, width=width or circuit.width)
    if kind == ".json":
        _write(out, eap_json(circuit))
    elif kind == ".graphml":
        _write(out, [as_graphml(circuit.as_graph())])
    elif kind == ".pt":
        from probing.exchange.pt import write_pt

        write_pt(out, circuit)
    elif kind in (".csv", ".parquet"):
        table = circuit_to_frame(circuit)
        with whole(out, CircuitError) as part:
            if kind == ".csv":
                table.to_csv(part, index=False)
            else:
                table.to_parquet(part, index=False)
    elif kind == ".npz":
        raise CircuitError(f"{source} has no scores of single questions.", "Write a circuit as .json, .pt or a table.")
    else:
        raise CircuitError(
            f"A circuit is not written as '{kind}'.", "Let the name end in .json, .pt, .graphml, .csv or .parquet."
        )
    return circuit


def _read(source: Path) -> CircuitFile | Scores:
    if source.suffix == ".npz":
        return read_scores(source)
    if source.suffix == ".pt":
        from probing.exchange.pt import read_pt

        return read_pt(source)
    try:
        if source.suffix in (".csv", ".parquet"):
            return _read_table(source)
        return read_eap_json(source.read_bytes())
    except OSError as error:
        raise CircuitError(f"Cannot read {source}: {error.strerror or 'it is damaged'}.", f"Name {_READ}.") from error


def _read_table(source: Path) -> CircuitFile | Scores:
    try:
        if source.suffix == ".csv":
            table = pd.read_csv(source, dtype={"question_id": str, "edge": str}, keep_default_na=False, na_values=[""])
        else:
            table = pd.read_parquet(source)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise ScoresError(f"{source} is not a table.", f"Name {_READ}.") from error
    return from_frame(table) if "question_id" in table else circuit_from_frame(table)


def _write(out: Path, pieces: Iterable[str]) -> None:
    with whole(out, CircuitError) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
