"""The cells of the matrix of every edge.

Where one for each writer and reader would be more than a browser bears, the heads of a block share its rows and
columns, except those of the blocks that are unfolded. Such a cell has the sums of its edges' strengths.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from probing.graph import Reader, ResidualGraph

_MOST = 20_000
"""Cells of a matrix that has a row for each writer and a column for each reader; a larger one is folded."""


@dataclass(frozen=True)
class Axes:
    """The rows and columns of a matrix, and those of each writer and reader."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_of: np.ndarray
    column_of: np.ndarray

    @staticmethod
    def of(graph: ResidualGraph, unfolded: Collection[str]) -> "Axes":
        """One for each writer and reader, or for each block and kind of reader where heads are folded."""
        rows, columns = list(graph.writers), list(graph.readers)
        if folds(graph):
            for names, records in ((rows, graph.writer_records), (columns, graph.reader_records)):
                for place, one in enumerate(records):
                    if one.block not in unfolded:
                        names[place] = Reader(one.block, one.kind).name if isinstance(one, Reader) else one.block
        return Axes(tuple(dict.fromkeys(rows)), tuple(dict.fromkeys(columns)), _places(rows), _places(columns))


def _places(names: Sequence[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names])


def folds(graph: ResidualGraph) -> bool:
    """Whether the matrix is too large to show each head's row and columns."""
    return graph.granularity == "heads" and len(graph.writers) * len(graph.readers) > _MOST


def cells(table: pd.DataFrame, graph: ResidualGraph, unfolded: Collection[str]) -> pd.DataFrame:
    """The cells that the edges of an edge table make: what its strongest edge has, but sums of strengths.

    `row` and `column` are the cell's places, `edges` says of how many it is made.
    """
    axes = Axes.of(graph, unfolded)
    writer = pd.Index(graph.writers).get_indexer(table["writer"])
    reader = pd.Index(graph.readers).get_indexer(table["reader"])
    width = len(axes.columns)
    place = axes.row_of[writer] * width + axes.column_of[reader]
    weakest_first = np.argsort(table[["base_strength", "tuned_strength"]].max(axis=1).to_numpy(), kind="stable")
    strongest = np.full(len(axes.rows) * width, -1)
    strongest[place[weakest_first]] = weakest_first  # of edges with one place, the last one stays
    there = np.flatnonzero(strongest >= 0)
    made = table.iloc[strongest[there]].reset_index(drop=True)
    for column in ("base_strength", "tuned_strength", "difference"):
        made[column] = np.bincount(place, table[column].to_numpy(), len(strongest))[there]
    counts = np.bincount(place, minlength=len(strongest))[there]
    return made.assign(row=there // width, column=there % width, edges=counts)
