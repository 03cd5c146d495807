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

`registry` has a record of each metric: its words, its formula and how it is computed. `definition` has the choices that
the paper leaves open, `values` the formulas of a question's own numbers, `bootstrap` the intervals over questions,
`resampling` and `complexity` what it takes to resample other statistics, `comparison` puts them together, and
`proportions` has the intervals of shares of right answers. `permutation` tests many edges at once. `agreement` compares
scores with what really happens, and `curves` say how much of a model its circuits keep.
"""

from probing.metrics.agreement import Agreement, agreement
from probing.metrics.bootstrap import STUDENTISED_BELOW, Estimate, interval, resample_counts
from probing.metrics.comparison import (
    BIN_CHOICES,
    Comparison,
    Verdict,
    align,
    as_json,
    compare,
    complexity_by_bins,
    edge_differences,
    edge_means,
    from_resamples,
    per_question,
    significant,
    verdict,
)
from probing.metrics.curves import AREAS, Curve, areas, curve, kept
from probing.metrics.definition import TOP, Definition, range_of
from probing.metrics.permutation import FALSE_DISCOVERIES, benjamini_hochberg, flips_over, sign_flip_p
from probing.metrics.proportions import paired_score, wilson
from probing.metrics.registry import (
    COMPLEXITY,
    DIVERSITY,
    EFFECTIVE_EDGES,
    GINI,
    INTENSITY,
    KURTOSIS,
    LOSS,
    LOW_COVERAGE,
    METRICS,
    OUTPUT_ENTROPY,
    PATTERN,
    Metric,
    coverage,
    interval_of,
    measured_size,
    with_unit,
)
from probing.metrics.values import correlations, histogram_top, in_parts, parts, sizes, zeros

__all__ = [
    "AREAS",
    "BIN_CHOICES",
    "COMPLEXITY",
    "DIVERSITY",
    "EFFECTIVE_EDGES",
    "FALSE_DISCOVERIES",
    "GINI",
    "INTENSITY",
    "KURTOSIS",
    "LOSS",
    "LOW_COVERAGE",
    "METRICS",
    "OUTPUT_ENTROPY",
    "PATTERN",
    "STUDENTISED_BELOW",
    "TOP",
    "Agreement",
    "Comparison",
    "Curve",
    "Definition",
    "Estimate",
    "Metric",
    "Verdict",
    "agreement",
    "align",
    "areas",
    "as_json",
    "benjamini_hochberg",
    "compare",
    "complexity_by_bins",
    "correlations",
    "coverage",
    "curve",
    "edge_differences",
    "edge_means",
    "flips_over",
    "from_resamples",
    "histogram_top",
    "in_parts",
    "interval",
    "interval_of",
    "kept",
    "measured_size",
    "paired_score",
    "parts",
    "per_question",
    "range_of",
    "resample_counts",
    "sign_flip_p",
    "significant",
    "sizes",
    "verdict",
    "wilson",
    "with_unit",
    "zeros",
]
