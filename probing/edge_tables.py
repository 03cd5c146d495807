"""From scores to circuits: one table of a pair's edges, subgraphs of the strongest, and differences by layer and kind.

An edge's *strength* is its mean |score| over the questions, its *effect* the mean score. The difference of a pair is
that of strengths, tuned - base, with a paired bootstrap interval over questions. That interval is one edge's own; which
of all the edges changed is said by their q-values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probing.graph import Edge, Reader, ResidualGraph, is_edge
from probing.metrics import (
    FALSE_DISCOVERIES,
    Definition,
    align,
    benjamini_hochberg,
    edge_differences,
    sign_flip_p,
)
from probing.scores import Scores

EDGE_VALUES = (
    "base_strength", "tuned_strength", "base_effect", "tuned_effect", "ci_low", "ci_high", "effect_ci_low",
    "effect_ci_high", "p", "q", "effect_p", "effect_q",
)  # fmt: skip
"""What is kept of each edge of a comparison; all else in an edge table follows from it."""


def edge_values(base: Scores, tuned: Scores, definition: Definition) -> pd.DataFrame:
    """`EDGE_VALUES` of every edge, in canonical order.

    `*_strength` is the mean |score|, `*_effect` the mean score; `ci_*` bound the difference of the strengths and
    `effect_ci_*` that of the effects, tuned - base. `p` and `effect_p` test each difference by sign flips over the
    questions, `q` and `effect_q` are Benjamini and Hochberg's over all edges.
    """
    return paired_values(base.edges, align(base, tuned).edges, definition)


def paired_values(
    base: Float[np.ndarray, "sample edge"], tuned: Float[np.ndarray, "sample edge"], definition: Definition
) -> pd.DataFrame:
    """The same of any edges, given both models' scores, or real effects, on the same samples."""
    strengths = [np.abs(edges).mean(0, dtype=np.float64) for edges in (base, tuned)]
    effects = [edges.mean(0, dtype=np.float64) for edges in (base, tuned)]
    _, low, high = edge_differences(base, tuned, definition, np.abs)
    _, effect_low, effect_high = edge_differences(base, tuned, definition)
    p, effect_p = (sign_flip_p(base, tuned, definition, of) for of in (np.abs, np.asarray))
    tests = (p, benjamini_hochberg(p), effect_p, benjamini_hochberg(effect_p))
    columns = (*strengths, *effects, low, high, effect_low, effect_high, *tests)
    return pd.DataFrame(dict(zip(EDGE_VALUES, columns, strict=True)))


def edge_table(graph: ResidualGraph, values: pd.DataFrame) -> pd.DataFrame:
    """One row for each edge of which there are values, in canonical order: `EDGE_VALUES`, and what follows from them.

    `values` has the edges' numbers as its index.

    Columns before them: `edge`, `writer`, `reader`, `node` (the reader's), `kind` and `layer` of the reader. After
    them: `base_rank` and `tuned_rank` (1 = strongest), `difference` of the strengths, `changed` (whether its q is at
    most `FALSE_DISCOVERIES`), and `flipped` (whether the effects have opposite signs and the q of their difference is).
    What an earlier version did not test has no q, and is neither.
    """
    writer, reader = graph.edge_index
    reads = graph.reader_records
    named = pd.DataFrame(
        {
            "edge": graph.edges,
            "writer": np.array(graph.writers)[writer],
            "reader": np.array(graph.readers)[reader],
            "node": np.array([one.node for one in reads])[reader],
            "kind": np.array([one.kind for one in reads])[reader],
            "layer": np.array([np.nan if one.layer is None else one.layer for one in reads])[reader],
        }
    )
    table = pd.concat([named, values[list(EDGE_VALUES)]], axis=1, join="inner").sort_index()
    for side in ("base", "tuned"):
        table[f"{side}_rank"] = table[f"{side}_strength"].rank(ascending=False, method="first").astype(int)
    table["difference"] = table["tuned_strength"] - table["base_strength"]
    table["changed"] = table["q"] <= FALSE_DISCOVERIES
    opposite = np.sign(table["base_effect"]) * np.sign(table["tuned_effect"]) < 0
    table["flipped"] = opposite & (table["effect_q"] <= FALSE_DISCOVERIES)
    return table


def changes(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Whether each edge was `gained`, `lost`, `strengthened`, `weakened` or `flipped`, a column each.

    Gained: among the `n` strongest of the tuned model and not of the base; lost: the reverse. Strengthened and
    weakened: the strength `changed`, to more or to less.
    """
    was, became = table["base_rank"] <= n, table["tuned_rank"] <= n
    return pd.DataFrame(
        {
            "gained": became & ~was,
            "lost": was & ~became,
            "strengthened": table["changed"] & (table["difference"] > 0),
            "weakened": table["changed"] & (table["difference"] < 0),
            "flipped": table["flipped"],
        }
    )


CHANGES = ("gained", "lost", "strengthened", "weakened", "flipped")
"""The columns of `changes`."""


_MIRRORED = 0.01
"""Of the sum of two effects' sizes, what their own sum may at most be where one is the mirror of the other."""


def mirrors(table: pd.DataFrame) -> dict[str, str]:
    """The edges of an edge table that repeat another one with the other sign, each with that one, which comes first.

    Two edges that are a reader's only ones, such as `input->m0` and `a0->m0`, have opposite scores on every question
    where scores into a reader sum to zero: what changed about one changed about the other, so they are one finding.
    """
    found = {}
    for _, both in table.groupby("reader", sort=False):
        if len(both) != 2:
            continue
        effects = both[["base_effect", "tuned_effect"]].to_numpy()
        strengths = both[["base_strength", "tuned_strength"]].to_numpy()
        opposite = np.abs(effects.sum(0)) <= _MIRRORED * np.abs(effects).sum(0)
        alike = np.abs(np.diff(strengths, axis=0)[0]) <= _MIRRORED * strengths.sum(0)
        if opposite.all() and alike.all() and strengths.all():
            first, second = both["edge"]
            found[second] = first
    return found


def covering(table: pd.DataFrame, column: str, share: float) -> int:
    """How many of the strongest edges it takes to hold `share` of the total |value| in `column`."""
    size = np.sort(table[column].abs().to_numpy())[::-1]
    if not size.sum():
        return 0
    return int(np.searchsorted(size.cumsum(), share * size.sum() * (1 - 1e-12)) + 1)


def through(edges: pd.DataFrame, name: str, graph: ResidualGraph) -> set[str]:
    """The edges that lie on a path through a block, a node or an edge, among the rows of an edge table.

    A path goes on from where an edge ends to what that writes: of a group of keys and values, to each of its heads.
    """
    joined = nx.DiGraph()
    joined.add_edges_from(zip(edges["writer"], edges["node"], strict=True))
    joined.add_edges_from(graph.feeds)
    if is_edge(name):
        edge = Edge.of(name)
        upstream, downstream = {edge.writer.node}, {edge.reader.node}
    else:
        upstream = downstream = set(graph.parts(name))
    before = upstream.union(*(nx.ancestors(joined, node) for node in upstream if node in joined))
    after = downstream.union(*(nx.descendants(joined, node) for node in downstream if node in joined))
    on_one = edges["node"].isin(before) | edges["writer"].isin(after) | (edges["edge"] == name)
    return set(edges.loc[on_one, "edge"])


def strongest(table: pd.DataFrame, column: str, n: int) -> pd.DataFrame:
    """The `n` rows with the largest |value| in `column`, the largest first; those of value zero are left out."""
    size = table[column].abs()
    return table.loc[size.nlargest(n).index].loc[size > 0]


def strongest_of_both(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The `n` rows with the largest strength in either model, the largest first."""
    return table.loc[table[["base_strength", "tuned_strength"]].max(axis=1).nlargest(n).index]


def circuit(table: pd.DataFrame) -> nx.MultiDiGraph:
    """The subgraph that the rows of an edge table make.

    The key of an edge is its name, its attributes the other columns (`layer` is -1 for the head).
    """
    graph = nx.MultiDiGraph()
    for row in table.assign(layer=table["layer"].fillna(-1).astype(int)).to_dict("records"):
        name = row.pop("edge")
        graph.add_edge(row["writer"], row["node"], key=name, **{str(k): v for k, v in row.items()})
    return graph


@dataclass(frozen=True)
class Breakdown:
    """Intensity of groups of edges: rows are groups, columns questions."""

    labels: tuple[str, ...]
    base: Float[np.ndarray, "group sample"]
    tuned: Float[np.ndarray, "group sample"]
    difference: Float[np.ndarray, " group"]
    ci_low: Float[np.ndarray, " group"]
    ci_high: Float[np.ndarray, " group"]

    def as_table(self) -> pd.DataFrame:
        """A row for each group: the means over questions, their difference and its interval."""
        columns = (self.base.mean(1), self.tuned.mean(1), self.difference, self.ci_low, self.ci_high)
        names = ("base", "tuned", "difference", "ci_low", "ci_high")
        return pd.DataFrame({"group": self.labels, **dict(zip(names, columns, strict=True))})


def _break_down(
    base: Scores, tuned: Scores, labels: Sequence[str | None], ends: Int[np.ndarray, " edge"], definition: Definition,
    order: Sequence[str] = (),
) -> Breakdown:  # fmt: skip
    """The mean |score| of the edges of each label, which is that of the reader (or writer) at its place in `ends`.

    Labels stand in the order of the readers, or in another; edges whose label is None are left out.
    """
    tuned, names = align(base, tuned), list(order or dict.fromkeys(label for label in labels if label is not None))
    number = {name: place for place, name in enumerate(names)} | {None: len(names)}
    group = np.array([number[label] for label in labels])[ends]

    def sums(values: np.ndarray | None = None) -> Float[np.ndarray, " group"]:
        return np.bincount(group, values, len(names) + 1)[: len(names)]

    def means(scores: Scores) -> Float[np.ndarray, "group sample"]:
        return np.stack([sums(np.abs(row)) / sums() for row in scores.edges], axis=1)

    before, after = means(base), means(tuned)
    difference, low, high = edge_differences(before.T, after.T, definition)
    return Breakdown(tuple(names), before, after, difference, low, high)


def _by_reader(
    base: Scores,
    tuned: Scores,
    label: Callable[[Reader], str | None],
    definition: Definition,
    order: Sequence[str] = (),
) -> Breakdown:
    labels = [label(reader) for reader in base.graph.reader_records]
    return _break_down(base, tuned, labels, base.graph.edge_index[1], definition, order)


def by_layer(base: Scores, tuned: Scores, definition: Definition) -> Breakdown:
    """Mean |score| of the edges into each layer, and into the head."""
    return _by_reader(
        base, tuned, lambda reader: reader.block if reader.layer is None else str(reader.layer), definition
    )


def by_kind(base: Scores, tuned: Scores, definition: Definition) -> Breakdown:
    """Mean |score| of the edges into each kind of reader."""
    return _by_reader(base, tuned, lambda reader: reader.kind, definition, base.graph.kinds)


def by_layer_and_kind(base: Scores, tuned: Scores, definition: Definition) -> Breakdown:
    """Mean |score| of the edges into each kind of reader of each layer: `a0<q>`, `a0<k>`, ..., `logits`."""
    return _by_reader(base, tuned, lambda reader: Reader(reader.block, reader.kind).name, definition)


def into_heads(base: Scores, tuned: Scores, definition: Definition) -> Breakdown:
    """Mean |score| of the edges into each head, and into each group of keys and values: `a0.h0`, ..., `a0.g0`, ..."""
    return _by_reader(base, tuned, lambda reader: reader.node if reader.part else None, definition)


def out_of_heads(base: Scores, tuned: Scores, definition: Definition) -> Breakdown:
    """Mean |score| of the edges out of each head, and out of each bias: `a0.h0`, ..., `a0.bias`, ..."""
    labels = [writer.node if writer.part else None for writer in base.graph.writer_records]
    return _break_down(base, tuned, labels, base.graph.edge_index[0], definition)
