"""Real effects of the edges that were removed from both models of a pair, as values of an edge table."""

import numpy as np
import pandas as pd

from probing.edge_tables import EDGE_VALUES, paired_values
from probing.evidence.removed import Removed
from probing.graph import ResidualGraph
from probing.metrics import Definition, benjamini_hochberg


def in_both(base: Removed, tuned: Removed, graph: ResidualGraph, definition: Definition) -> pd.DataFrame:
    """`EDGE_VALUES` of the edges that are known in both models, with their numbers as the index: of each over the
    questions that both models have of it, with q-values over all of them."""
    parts = []
    for ids, edges, of_base in base.grouped(graph.edges):
        for others, both, of_tuned in tuned.grouped(edges):
            common = [question for question in ids if question in set(others)]
            if not common:
                continue
            before = of_base[np.ix_([ids.index(one) for one in common], [edges.index(edge) for edge in both])]
            after = of_tuned[[others.index(one) for one in common]]
            parts.append(paired_values(before, after, definition).set_axis(list(map(graph.number, both))))
    if not parts:
        return pd.DataFrame(columns=list(EDGE_VALUES), dtype=float)
    table = pd.concat(parts).sort_index()
    q, effect_q = (benjamini_hochberg(table[p].to_numpy()) for p in ("p", "effect_p"))
    return table.assign(q=q, effect_q=effect_q)
