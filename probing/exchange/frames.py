"""Scores and circuits as frames of pandas, and back.

Scores are one row for each question and edge, as in the files that `python -m probing export` makes, with the
question's loss; a circuit is one row for each edge. What is not in the rows (the graph, how the scores were made, whose
vocabulary) is in the frame's `attrs`, which Parquet keeps too and CSV does not. A frame that does not say its graph has
the one whose edges are in it.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probing.edge_tables import EDGE_VALUES
from probing.errors import CircuitError, ScoresError
from probing.exchange.circuit_file import CircuitFile
from probing.exchange.edge_lists import check_near, graph_of_edges, in_order, numbers_of
from probing.graph import ResidualGraph
from probing.long_form import attributes
from probing.method import Method
from probing.scores import Scores


def to_frame(scores: Scores) -> pd.DataFrame:
    """Scores as rows: `question_id`, `edge`, `writer`, `reader`, `score`, and `loss`, the question's, in nats a token.

    Question by question in their order, and of each the edges in canonical order. Names are categories.
    """
    graph, questions = scores.graph, len(scores.ids)
    writer, reader = graph.edge_index
    names = (
        ("edge", np.arange(graph.size), graph.edges), ("writer", writer, graph.writers),
        ("reader", reader, graph.readers),
    )  # fmt: skip
    told = np.repeat(np.arange(questions), graph.size)
    columns = {"question_id": pd.Categorical.from_codes(told, pd.Index(list(scores.ids), dtype=str))}
    columns |= {
        name: pd.Categorical.from_codes(np.tile(places, questions), pd.Index(list(of), dtype=str))
        for name, places, of in names
    }
    frame = pd.DataFrame({**columns, "score": scores.edges.ravel(), "loss": scores.loss[told]})
    frame.attrs |= attributes(scores)
    return frame


def from_frame(frame: pd.DataFrame, graph: ResidualGraph | None = None, method: Method | None = None) -> Scores:
    """The scores in rows of `question_id`, `edge` and `score`, in any order; `loss` is NaN where no column has it.

    `graph` and `method` are what `attrs` says unless they are given. Other columns are passed over. Questions keep the
    order in which they first appear.

    Raises:
        ScoresError: a column is missing, a question or an edge has no name, an edge is unknown, missing, twice there or
            without a finite score, or a question has two losses; the first is named.
    """
    try:
        return _scores(frame, graph, method)
    except CircuitError as error:
        raise ScoresError(error.what, error.remedy) from error


def _scores(frame: pd.DataFrame, graph: ResidualGraph | None, method: Method | None) -> Scores:
    graph, numbers = _edges(frame, graph)
    question, ids = pd.factorize(column(frame, "question_id"))
    if (question < 0).any():
        raise ScoresError(f"Row {int(np.argmin(question))} has no question_id.", "Give each row one.")
    again, texts = pd.factorize(np.array([str(name) for name in ids], object))
    question = again[question]
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and said below
        score = numbers_in(frame, "score").astype(np.float32)
    loss = numbers_in(frame, "loss").astype(np.float32) if "loss" in frame else np.full(len(frame), np.nan, np.float32)
    order = np.argsort(question, kind="stable")
    edges, losses = np.empty((len(texts), graph.size), np.float32), np.empty(len(texts), np.float32)
    for place, rows in enumerate(np.split(order, np.searchsorted(question[order], np.arange(1, len(texts))))):
        edges[place] = in_order(graph, numbers[rows], score[rows], f" of question '{texts[place]}'")
        losses[place] = loss[rows[0]]
        if not np.array_equal(loss[rows], np.full(len(rows), losses[place]), equal_nan=True):
            raise ScoresError(f"Question '{texts[place]}' has more than one loss.", "Give it the same in every row.")
    try:
        made = method or Method.from_json(frame.attrs.get("method", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise ScoresError("The frame does not say a method that is known here.", "Give method.") from error
    return Scores(graph, tuple(texts), edges, losses, str(frame.attrs.get("tokenizer", "")), made)


def circuit_to_frame(circuit: CircuitFile) -> pd.DataFrame:
    """A circuit as one row for each edge, in canonical order: `edge`, `writer`, `reader`, `score`, `in_circuit`, and
    `EDGE_VALUES` where it has them. Of scores, `CircuitFile.mean` makes one, with the mean of every edge."""
    graph = circuit.graph
    writer, reader = graph.edge_index
    frame = pd.DataFrame(
        {
            "edge": list(graph.edges),
            "writer": [graph.writers[place] for place in writer],
            "reader": [graph.readers[place] for place in reader],
            "score": circuit.scores,
            "in_circuit": circuit.inside,
        }
    )
    if circuit.values is not None:
        frame[list(EDGE_VALUES)] = circuit.values[list(EDGE_VALUES)].to_numpy()
    frame.attrs |= {"graph": graph.as_text(), "width": circuit.width}
    return frame


def circuit_from_frame(frame: pd.DataFrame, graph: ResidualGraph | None = None) -> CircuitFile:
    """The circuit in rows of `edge` and `score`, in any order; none is in it unless a column `in_circuit` says so.

    `graph` is what `attrs` says unless it is given.

    Raises:
        CircuitError: a column is missing, an edge has no name, or is unknown, missing, twice there or without a finite
            score; the first is named.
    """
    graph, numbers = _edges(frame, graph)
    circuit = circuit_of_rows(frame, graph, numbers)
    width = frame.attrs.get("width", 0)
    if type(width) is int and width > 0:
        circuit = replace(circuit, width=width)
    if any(name not in frame for name in EDGE_VALUES):
        return circuit
    values = np.empty((graph.size, len(EDGE_VALUES)))
    values[numbers] = np.stack([numbers_in(frame, name) for name in EDGE_VALUES], axis=1)
    return replace(circuit, values=pd.DataFrame(values, columns=list(EDGE_VALUES)))


def circuit_of_rows(frame: pd.DataFrame, graph: ResidualGraph, numbers: Int[np.ndarray, " row"]) -> CircuitFile:
    """The `score` and `in_circuit` of rows, given the number of each row's edge.

    Raises:
        CircuitError: as `circuit_from_frame` does.
    """
    scores = in_order(graph, numbers, numbers_in(frame, "score"))
    told = numbers_in(frame, "in_circuit") if "in_circuit" in frame else np.zeros(len(frame))
    if np.isnan(told).any():
        raise CircuitError(f"Row {int(np.argmax(np.isnan(told)))} does not say in_circuit.", "Give true or false.")
    return CircuitFile(graph, scores, in_order(graph, numbers, told) != 0)


def _edges(frame: pd.DataFrame, graph: ResidualGraph | None) -> tuple[ResidualGraph, Int[np.ndarray, " row"]]:
    """The graph of a frame, and the number of each row's edge."""
    places, names = pd.factorize(column(frame, "edge"))
    if (places < 0).any():
        raise CircuitError(f"Row {int(np.argmin(places))} names no edge.", "Give each row one, such as 'm2->a5<q>'.")
    if not len(names):
        raise CircuitError("The frame has no rows.", "Give all edges of the graph.")
    there = [str(name) for name in names]
    if graph is None and "graph" in frame.attrs:
        try:
            graph = ResidualGraph.from_text(frame.attrs["graph"])
        except (ValueError, TypeError) as error:
            raise CircuitError("The frame does not say a graph that is known here.", "Give graph.") from error
    graph = graph or graph_of_edges(there)
    check_near(graph, len(there))
    return graph, numbers_of(graph, there)[places]


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of a frame.

    Raises:
        CircuitError: there is none of that name.
    """
    if name not in frame:
        raise CircuitError(f"The frame has no column '{name}'.", f"It has {', '.join(map(str, frame.columns))[:200]}.")
    return frame[name]


def numbers_in(frame: pd.DataFrame, name: str) -> Float[np.ndarray, " row"]:
    """A column of numbers; what is missing is NaN.

    Raises:
        CircuitError: there is none of that name, or it has something else.
    """
    try:
        return column(frame, name).to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise CircuitError(f"The column '{name}' has something else than numbers.", "Give numbers.") from error
