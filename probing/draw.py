"""Figures of what a notebook has at hand: values in, a Plotly figure out, which a notebook shows as it is.

They are the dashboard's own, and need no Streamlit. `probing.figures` has all of them.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probing.edge_tables import edge_table, edge_values, strongest
from probing.evidence import Audit
from probing.figures import evidence, forest, histograms, timeline, wiring
from probing.figures.panels import PANELS
from probing.jobs.tasks.circuit import Kept
from probing.metrics import METRICS, Comparison, Definition
from probing.scores import Scores
from probing.summary import EDGE_DEFINITION

steps = timeline.metrics
"""Accuracy and metrics over the steps of a training: see `probing.figures.timeline`."""


def changes(compared: Mapping[str, Comparison]) -> go.Figure:
    """The relative change of every metric, in percent of the base, with its 95 % interval over questions.

    `compared` is what `probing.compare` gives.
    """
    rows = pd.DataFrame(
        {
            "pair": "tuned − base",
            "definition": [METRICS[name].label for name in compared],
            "relative": [np.nan if one.relative is None else one.relative for one in compared.values()],
            "relative_low": [one.relative_low for one in compared.values()],
            "relative_high": [one.relative_high for one in compared.values()],
            "seeds_low": np.nan,
            "seeds_high": np.nan,
            "exact": False,
            "estimated": False,
        }
    )
    return forest.changes(rows, "Tuned against base")


def circuit(base: Scores, tuned: Scores, edges: int = 40) -> go.Figure:
    """The strongest edges of the base, of the tuned model, and of their difference, side by side.

    A line's width is the edge's mean |score| over questions, in nats per scored token.

    Raises:
        ScoresError: the two do not hold the same questions, or their graphs or methods differ.
    """
    table = edge_table(base.graph, edge_values(base, tuned, EDGE_DEFINITION))
    panels = {panel: strongest(table, column, edges) for panel, column in PANELS.items()}
    return wiring.graph(panels, base.graph, wiring.Scale.of(table), wiring.Pick())


def distribution(base: Scores, tuned: Scores) -> go.Figure:
    """How large the scores of all edges and questions are, in nats: a histogram of each model, on shared bins of equal
    ratio, with counts on a logarithmic axis."""
    return histograms.of_sizes(base, tuned, Definition(), log_counts=True, log_size=True)


def checked(audits: Mapping[str, Audit]) -> go.Figure:
    """Each edge's estimate and what really happens without it, with its 95 % interval; a panel for each of what
    `probing.check` gives, by their titles."""
    return evidence.estimates(audits)


def kept(circuits: Mapping[str, Kept]) -> go.Figure:
    """The share of a model's margin that circuits of rising size keep, beside random ones; a panel for each model that
    they ran in (`base`, `tuned`), of what `probing.keep` gives."""
    return evidence.kept(circuits, log=True)
