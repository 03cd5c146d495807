"""From scores to circuits: one table of a pair's edges, subgraphs of the strongest, and differences by layer and kind.

An edge's *strength* is its mean |score| over the questions, its *effect* the mean score. The difference of a pair is
that of strengths, tuned - base, with a paired bootstrap interval over questions.
"""

from dataclasses import dataclass

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.metrics import Definition, align, edge_differences, significant
from probing.residual_graph import KINDS, ResidualGraph, kind_of, layer_of, node_of
from probing.scores import Scores


def edge_table(base: Scores, tuned: Scores, definition: Definition) -> pd.DataFrame:
    """One row for each edge, in canonical order.

    Columns: `edge`, `writer`, `reader`, `node` (the reader's), `kind` and `layer` of the reader; for base and tuned
    `*_strength` (mean |score|), `*_effect` (mean score) and `*_rank` (1 = strongest); `difference` of the strengths
    with `ci_low`, `ci_high`, and `beyond_noise`, whether that interval excludes zero.
    """
    tuned = align(base, tuned)
    graph = base.graph
    writer, reader = graph.edge_index
    readers = [graph.readers[r] for r in reader]
    table = pd.DataFrame(
        {
            "edge": graph.edges,
            "writer": [graph.writers[w] for w in writer],
            "reader": readers,
            "node": [node_of(r) for r in readers],
            "kind": [kind_of(r) for r in readers],
            "layer": [layer_of(r) for r in readers],
        }
    )
    sizes = {}
    for side, scores in (("base", base), ("tuned", tuned)):
        edges = graph.to_edges(scores.scores).astype(np.float64)
        sizes[side] = np.abs(edges)
        table[f"{side}_strength"] = sizes[side].mean(0)
        table[f"{side}_effect"] = edges.mean(0)
        table[f"{side}_rank"] = table[f"{side}_strength"].rank(ascending=False, method="first").astype(int)
    table["difference"], table["ci_low"], table["ci_high"] = edge_differences(sizes["base"], sizes["tuned"], definition)
    table["beyond_noise"] = significant(table["ci_low"].to_numpy(), table["ci_high"].to_numpy())
    return table


def strongest(table: pd.DataFrame, column: str, n: int) -> pd.DataFrame:
    """The `n` rows with the largest |value| in `column`, the largest first; those of value zero are left out."""
    size = table[column].abs()
    return table.loc[size.nlargest(n).index].loc[size > 0]


def circuit(table: pd.DataFrame) -> nx.MultiDiGraph:
    """The subgraph that the rows of an edge table make.

    The key of an edge is its name, its attributes the other columns (`layer` is -1 for the head).
    """
    graph = nx.MultiDiGraph()
    for row in table.assign(layer=table["layer"].fillna(-1).astype(int)).to_dict("records"):
        name = row.pop("edge")
        graph.add_edge(row["writer"], row["node"], key=name, **{str(k): v for k, v in row.items()})
    return graph


def as_graphml(graph: nx.MultiDiGraph) -> str:
    """The circuit as GraphML, which networkx, Gephi and others read."""
    return "\n".join(nx.generate_graphml(graph))


@dataclass(frozen=True)
class Breakdown:
    """Intensity of groups of edges: rows are groups, columns questions."""

    labels: tuple[str, ...]
    base: Float[np.ndarray, "group sample"]
    tuned: Float[np.ndarray, "group sample"]
    difference: Float[np.ndarray, " group"]
    ci_low: Float[np.ndarray, " group"]
    ci_high: Float[np.ndarray, " group"]


def _group_means(scores: Scores, groups: list[np.ndarray]) -> Float[np.ndarray, "group sample"]:
    size = np.abs(scores.graph.to_edges(scores.scores)).astype(np.float64)
    return np.stack([size[:, members].mean(1) for members in groups])


def _break_down(base: Scores, tuned: Scores, groups: dict[str, np.ndarray], definition: Definition) -> Breakdown:
    tuned = align(base, tuned)
    members = list(groups.values())
    before, after = _group_means(base, members), _group_means(tuned, members)
    difference, low, high = edge_differences(before.T, after.T, definition)
    return Breakdown(tuple(groups), before, after, difference, low, high)


def _labels(graph: ResidualGraph, by: str) -> list[str]:
    readers = [graph.readers[r] for r in graph.edge_index[1]]
    if by == "kind":
        return [kind_of(r) for r in readers]
    return ["logits" if layer_of(r) is None else f"{layer_of(r)}" for r in readers]


def by_layer(base: Scores, tuned: Scores, definition: Definition) -> Breakdown:
    """Mean |score| of the edges into each layer, and into the head."""
    labels = np.array(_labels(base.graph, "layer"))
    names = [*map(str, range(base.graph.layers)), "logits"]
    return _break_down(base, tuned, {name: np.flatnonzero(labels == name) for name in names}, definition)


def by_kind(base: Scores, tuned: Scores, definition: Definition) -> Breakdown:
    """Mean |score| of the edges into each kind of reader."""
    labels = np.array(_labels(base.graph, "kind"))
    return _break_down(base, tuned, {kind: np.flatnonzero(labels == kind) for kind in KINDS}, definition)


def by_layer_and_kind(base: Scores, tuned: Scores, definition: Definition) -> Breakdown:
    """Mean |score| of the edges into each reader: `a0<q>`, `a0<k>`, ..., `logits`."""
    reader = base.graph.edge_index[1]
    groups = {name: np.flatnonzero(reader == i) for i, name in enumerate(base.graph.readers)}
    return _break_down(base, tuned, groups, definition)
