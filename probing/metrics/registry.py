"""The metrics: all that anybody needs to know of one stands in its record here, and a new one is a new record.

The comparison, its tables in the terminal and on pages, what the store keeps and what pages say of a metric all follow
from `METRICS`. Who singles out a metric does so by its record (`INTENSITY.key`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from probing.metrics import complexity, resampling, values
from probing.metrics.definition import Definition, range_of
from probing.metrics.resampling import Statistic
from probing.metrics.values import OfQuestions


@dataclass(frozen=True)
class Metric:
    """What a metric is called, what it is, and how it is computed."""

    key: str
    """Its name in files, stores and addresses; never changes."""
    label: str
    """Its name inside a sentence."""
    short: str
    """The same in one word, beside other metrics."""
    meaning: str
    formula: str
    """In LaTeX, over the matrices W of n questions; n_o writers, n_i readers, E edges; a bar is a mean over k."""
    interval_of: str | Callable[[Definition], str]
    """What its interval is one of: the number that all questions of the kind would give."""
    of_questions: OfQuestions
    """Each question's own value."""
    statistic: Statistic | None = None
    """The metric, where it is not the mean of the questions' own values."""
    stretched: bool = False
    """Whether its interval is stretched whatever the number of questions, because percentiles hold too little."""
    unit: str = ""
    per: str = ""
    """What the unit is counted for, if that needs to be said."""
    direction: int = 0
    """Where it goes under online RL according to the paper: +1 or -1, or 0 if the paper finds no pattern."""
    least: int = 1
    """How many questions it takes for one to have a value of its own."""
    coverage: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """By the number of questions: the share of 95 % intervals of the difference, and of those of the relative
    difference, that held the true value; of 2 000 samples each, so known to within a point (`benchmarks.coverage`)."""

    @property
    def name(self) -> str:
        """The label as a heading."""
        return self.label[0].upper() + self.label[1:]

    @property
    def title(self) -> str:
        """The heading with the unit."""
        return with_unit(self.name, self.unit)

    @property
    def full_unit(self) -> str:
        """The unit, and what it is counted for."""
        return f"{self.unit} per {self.per}" if self.per else self.unit


def with_unit(text: str, unit: str) -> str:
    """A name, and behind it a unit if there is one."""
    return f"{text} ({unit})" if unit else text


def _of_bins(definition: Definition) -> str:
    if definition.histogram_max == "observed":
        return (
            "the entropy over all such questions in these very bins, which end at the largest |score| of the "
            "questions at hand; other questions have other bins, for which it says nothing"
        )
    return f"the entropy over all such questions, in bins that end at {range_of(definition)}"


_OF_MEANS = "taken of the mean |score| of each edge over all such questions"

INTENSITY = Metric(
    "activation_intensity",
    "activation intensity",
    "intensity",
    "Mean of |score| over questions and cells: how much an average edge matters.",
    r"\frac{1}{n\, n_o n_i} \sum_{k,o,i} \left| W^{(k)}_{oi} \right|",
    "the mean over all such questions",
    values.intensity,
    unit="nats",
    direction=+1,
    coverage={20: (0.97, 0.95), 50: (0.94, 0.93), 100: (0.94, 0.93)},
)

COMPLEXITY = Metric(
    "information_complexity",
    "information complexity",
    "complexity",
    "Entropy of the histogram of all |scores|: high when edges of many sizes are in use.",
    r"-\sum_b p_b \ln(p_b + \varepsilon), \quad p = \text{histogram of all } |W|",
    _of_bins,
    values.complexity,
    complexity.statistic,
    unit="nats",
    direction=+1,
    coverage={20: (0.96, 0.96), 50: (0.94, 0.94), 100: (0.94, 0.94)},
)

KURTOSIS = Metric(
    "distribution_kurtosis",
    "distribution kurtosis",
    "kurtosis",
    "Mean excess kurtosis of a question's scores: high when few edges tower over the rest.",
    r"\frac{1}{n} \sum_k \left( \frac{m_4(W^{(k)})}{m_2(W^{(k)})^2} - 3 \right)",
    "the mean over all such questions of a question's own kurtosis",
    values.kurtosis,
    direction=-1,
    coverage={20: (0.91, 0.91), 50: (0.95, 0.94), 100: (0.94, 0.94)},
)

DIVERSITY = Metric(
    "inter_sample_diversity",
    "inter-sample diversity",
    "diversity",
    "One minus the mean correlation between two questions' edge scores.",
    r"1 - \frac{2}{n(n-1)} \sum_{k < l} \operatorname{corr}(W^{(k)}, W^{(l)})",
    "the mean over all pairs of two such questions",
    values.diversity,
    resampling.pairs,
    least=2,
    coverage={20: (0.93, 0.93), 50: (0.94, 0.94), 100: (0.94, 0.94)},
)

OUTPUT_ENTROPY = Metric(
    "node_output_entropy",
    "node output entropy",
    "entropy",
    "Entropy of |score| over the edges that leave a writer, averaged over writers.",
    r"-\frac{1}{n\, n_o} \sum_{k,o,i} q^{(k)}_{oi} \ln q^{(k)}_{oi}, \quad "
    r"q^{(k)}_{oi} = \frac{|W^{(k)}_{oi}|}{\sum_j |W^{(k)}_{oj}|}",
    "the mean over all such questions",
    values.output_entropy,
    unit="nats",
    coverage={20: (0.94, 0.94), 50: (0.94, 0.94), 100: (0.95, 0.95)},
)

LOSS = Metric(
    "loss",
    "loss",
    "loss",
    "Mean negative log-likelihood of the model's own answer, per scored token.",
    r"\frac{1}{n} \sum_k L^{(k)}",
    "the mean over all such questions",
    values.loss,
    unit="nats",
    per="token",
    coverage={20: (0.95, 0.96), 50: (0.94, 0.94), 100: (0.95, 0.95)},
)

EFFECTIVE_EDGES = Metric(
    "effective_edges",
    "effective edges",
    "edges",
    "How many equally strong edges would be as spread out as these.",
    r"\exp\Big( -\sum_e s_e \ln s_e \Big), \quad s_e = \frac{\overline{|W_e|}}{\sum_f \overline{|W_f|}}",
    f"the number of edges, {_OF_MEANS}",
    values.of_strengths(values.effective_edges),
    resampling.of_mean_strengths(values.effective_edges),
    stretched=True,
    coverage={20: (0.95, 0.96), 50: (0.96, 0.95), 100: (0.94, 0.94)},
)

GINI = Metric(
    "gini",
    "Gini coefficient",
    "concentration",
    "Inequality of edge strengths: 0 if all are equal, 1 if one edge has everything.",
    r"\frac{\sum_{e,f} \left| \overline{|W_e|} - \overline{|W_f|} \right|}{2 E \sum_e \overline{|W_e|}}",
    f"the coefficient, {_OF_MEANS}",
    values.of_strengths(values.gini),
    resampling.of_mean_strengths(values.gini),
    stretched=True,
    coverage={20: (0.94, 0.94), 50: (0.94, 0.94), 100: (0.94, 0.94)},
)

METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (INTENSITY, COMPLEXITY, KURTOSIS, DIVERSITY, OUTPUT_ENTROPY, LOSS, EFFECTIVE_EDGES, GINI)
}
"""Every metric by its key, in the order they are shown."""

PATTERN = tuple(key for key, metric in METRICS.items() if metric.direction)
"""The metrics that move one way under online RL, according to the paper."""


def interval_of(metric: str, definition: Definition) -> str:
    """What a metric's interval is one of."""
    said = METRICS[metric].interval_of
    return said if isinstance(said, str) else said(definition)


LOW_COVERAGE = 0.93
"""Shares of intervals that hold the true value below this are said beside the number."""


def measured_size(metric: str, questions: int) -> int:
    """The nearest number of questions for which coverage was measured that is not larger, or the smallest."""
    measured = METRICS[metric].coverage
    return max((size for size in measured if size <= questions), default=min(measured))


def coverage(metric: str, questions: int) -> float | None:
    """The lesser of both shares, as measured with about so many questions; None if it was not."""
    measured = METRICS[metric].coverage
    return min(measured[measured_size(metric, questions)]) if measured else None
