"""Scores as rows (question, edge, writer, reader, score, the question's loss), for programs that know no graphs.

What is not in the rows stands beside them in Parquet, as pandas keeps a frame's `attrs`. A graph of heads has a million
edges: rows are made and written some questions at a time.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from probing.errors import ScoresError
from probing.files import whole
from probing.scores import Scores

_AT_ONCE = 4_000_000
"""Rows that are made at a time, where a question has fewer."""


def write_long(path: Path, scores: Scores, kind: Literal["parquet", "csv"]) -> None:
    """Write a file, complete or not at all: rows sorted by question and by the edge's name.

    Raises:
        ScoresError: the place cannot be written.
    """
    with whole(path, ScoresError) as part:
        if kind == "csv":
            told = any(set(name) & set('",\r\n') for name in scores.ids)  # no name of an edge has such
            how = csv.WriteOptions(include_header=False, quoting_style="needed" if told else "none")
            with part.open("wb") as file:
                file.write((",".join(_PLAIN.names) + "\n").encode())
                for table in _tables(scores):
                    csv.write_csv(table.cast(_PLAIN), file, how)
        else:
            # Without Arrow's own schema beside Parquet's, which would make readers take the names for categories.
            with pq.ParquetWriter(part, _SCHEMA, store_schema=False) as writer:
                for table in _tables(scores):
                    writer.write_table(table)
                writer.add_key_value_metadata({"PANDAS_ATTRS": json.dumps(attributes(scores))})


def attributes(scores: Scores) -> dict[str, Any]:
    """What is not in the rows: the graph, how the scores were made, and whose vocabulary the tokens are of."""
    return {"graph": scores.graph.as_text(), "method": scores.method.as_json(), "tokenizer": scores.tokenizer}


_NAMES = pa.dictionary(pa.int32(), pa.string())

_SCHEMA = pa.schema(
    {
        "question_id": _NAMES, "edge": _NAMES, "writer": _NAMES, "reader": _NAMES, "score": pa.float32(),
        "loss": pa.float32(),
    }
)  # fmt: skip

_PLAIN = pa.schema(
    [(name, pa.string() if of == _NAMES else of) for name, of in zip(_SCHEMA.names, _SCHEMA.types, strict=True)]
)


def _tables(scores: Scores) -> Iterator[pa.Table]:
    """All rows, some questions at a time."""
    graph = scores.graph
    order = np.array(sorted(range(graph.size), key=graph.edges.__getitem__))
    names = [graph.edges[number] for number in order]
    writer, reader = (places[order] for places in graph.edge_index)
    questions = max(1, _AT_ONCE // graph.size)
    asked = sorted(range(len(scores.ids)), key=scores.ids.__getitem__)
    for start in range(0, len(asked), questions):
        places = asked[start : start + questions]

        def repeated(which: np.ndarray, of: Sequence[str], times: int = len(places)) -> pa.Array:
            return pa.DictionaryArray.from_arrays(np.tile(which.astype(np.int32), times), pa.array(of, pa.string()))

        columns = [
            pa.DictionaryArray.from_arrays(
                np.repeat(np.arange(len(places), dtype=np.int32), graph.size), [scores.ids[place] for place in places]
            ),
            repeated(np.arange(graph.size), names),
            repeated(writer, graph.writers),
            repeated(reader, graph.readers),
            scores.edges[places][:, order].ravel(),
            np.repeat(scores.loss[places], graph.size),
        ]
        yield pa.table(columns, _SCHEMA)
