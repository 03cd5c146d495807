"""What pages need of a comparison at once, computed when its scores are complete: metrics, edges, questions.

The bootstrap over all edges and metrics takes seconds for a large model; done once by the worker and kept in the
store, it costs a page nothing.
"""

from dataclasses import dataclass, replace

import pandas as pd

from probing.edge_tables import edge_values
from probing.metrics import Comparison, Definition, align, compare, histogram_top, per_question
from probing.scores import Scores

SUMMARY_VERSION = 3
"""Raised when the code that summarises changes its results; kept scores are then summarised again."""

DEFINITION = Definition()
"""With which summaries are made."""

EDGE_DEFINITION = replace(DEFINITION, resamples=2000)
"""With which the intervals of single edges are made: there are thousands, and none is read to the last digit."""


@dataclass(frozen=True)
class Summary:
    """One model compared with the base, under the default definition."""

    metrics: dict[str, Comparison]
    edges: pd.DataFrame
    """`EDGE_VALUES` of every edge, in canonical order."""
    questions: pd.DataFrame
    """Columns `question_id`, `metric`, `base` and `tuned`."""


def summarise(base: Scores, tuned: Scores) -> Summary:
    """Compare two runs.

    Raises:
        ScoresError: they do not hold the same questions, or their graphs differ.
    """
    tuned = align(base, tuned)
    return Summary(
        compare(base, tuned, DEFINITION),
        edge_values(base, tuned, EDGE_DEFINITION),
        of_questions(base, tuned, DEFINITION),
    )


def of_questions(base: Scores, tuned: Scores, definition: Definition) -> pd.DataFrame:
    """Each question's own value of every metric: columns `question_id`, `metric`, `base` and `tuned`."""
    top = histogram_top(base, tuned, definition)
    before, after = per_question(base, definition, top), per_question(tuned, definition, top)
    parts = [
        pd.DataFrame({"question_id": base.ids, "metric": metric, "base": before[metric], "tuned": after[metric]})
        for metric in before
    ]
    return pd.concat(parts, ignore_index=True)
