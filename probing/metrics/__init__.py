"""Scores of a pair in, numbers about its circuits out, each with the uncertainty that the questions leave.

Over the matrices W (writers x readers) of n samples, arXiv:2509.21044 defines (section 2)

- activation intensity: the mean of |W| over samples and cells;
- information complexity: -Σ p ln(p + ε), p being one histogram of all |W|, pooled over samples and cells;
- distribution kurtosis: the mean over samples of the excess kurtosis of a sample's signed cells;
- inter-sample diversity: one minus the mean correlation between two samples' matrices;
- node output entropy: the entropy of |score| over the edges leaving a writer, averaged over writers and samples.

To these come the loss (a model that is surer of its answers has smaller gradients, so intensity must be read beside
it), the effective number of edges (exp of the entropy of the normalised mean |score|) and the Gini coefficient of the
mean |score|.

`definition` names the metrics, the choices that the paper leaves open and what each interval is one of; `values` has
the formulas, `bootstrap` the intervals over questions, `complexity` what it takes to resample bins, `coverage` how
often intervals were seen to hold, `comparison` puts them together, and `proportions` has the intervals of shares of
right answers.
"""

from probing.metrics.bootstrap import STUDENTISED_BELOW, interval, resample_counts
from probing.metrics.comparison import (
    BIN_CHOICES,
    Comparison,
    Verdict,
    align,
    as_json,
    compare,
    complexity_by_bins,
    edge_differences,
    significant,
    verdict,
)
from probing.metrics.coverage import LOW as LOW_COVERAGE
from probing.metrics.coverage import MEASURED as MEASURED_COVERAGE
from probing.metrics.coverage import coverage, measured_size
from probing.metrics.definition import MEANS, METRICS, PATTERN, TOP, Definition, interval_of, range_of
from probing.metrics.proportions import paired_score, wilson
from probing.metrics.values import cells, correlations, histogram_top, per_question

__all__ = [
    "BIN_CHOICES",
    "LOW_COVERAGE",
    "MEANS",
    "MEASURED_COVERAGE",
    "METRICS",
    "PATTERN",
    "STUDENTISED_BELOW",
    "TOP",
    "Comparison",
    "Definition",
    "Verdict",
    "align",
    "as_json",
    "cells",
    "compare",
    "complexity_by_bins",
    "correlations",
    "coverage",
    "edge_differences",
    "histogram_top",
    "interval",
    "interval_of",
    "measured_size",
    "paired_score",
    "per_question",
    "range_of",
    "resample_counts",
    "significant",
    "verdict",
    "wilson",
]
