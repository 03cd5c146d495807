"""Names, one-sentence definitions, and sentences made from numbers."""

from dataclasses import dataclass

from dashboard.theme import number, percent
from probing.metrics import PATTERN, Comparison, Verdict, verdict


@dataclass(frozen=True)
class Term:
    """How a metric is called, what it is, and its unit if it has one."""

    name: str
    meaning: str
    unit: str = ""


TERMS = {
    "activation_intensity": Term(
        "Activation intensity", "Mean of |score| over questions and cells: how much an average edge matters.", "nats"
    ),
    "information_complexity": Term(
        "Information complexity",
        "Entropy of the histogram of all |scores|: high when edges of many sizes are in use.",
        "nats",
    ),
    "distribution_kurtosis": Term(
        "Distribution kurtosis",
        "Mean excess kurtosis of a question's scores: high when few edges tower over the rest.",
    ),
    "inter_sample_diversity": Term(
        "Inter-sample diversity", "One minus the mean correlation between two questions' edge scores."
    ),
    "node_output_entropy": Term(
        "Node output entropy", "Entropy of |score| over the edges that leave a writer, averaged over writers.", "nats"
    ),
    "loss": Term("Loss", "Mean negative log-likelihood of the model's own answer, per scored token.", "nats"),
    "effective_edges": Term("Effective edges", "How many equally strong edges would be as spread out as these."),
    "gini": Term("Gini coefficient", "Inequality of edge strengths: 0 if all are equal, 1 if one edge has everything."),
}

FORMULAS = {
    "activation_intensity": r"\frac{1}{n\, n_o n_i} \sum_{k,o,i} \left| W^{(k)}_{oi} \right|",
    "information_complexity": r"-\sum_b p_b \ln(p_b + \varepsilon), \quad p = \text{histogram of all } |W|",
    "distribution_kurtosis": r"\frac{1}{n} \sum_k \left( \frac{m_4(W^{(k)})}{m_2(W^{(k)})^2} - 3 \right)",
    "inter_sample_diversity": r"1 - \frac{2}{n(n-1)} \sum_{k < l} \operatorname{corr}(W^{(k)}, W^{(l)})",
    "node_output_entropy": (
        r"-\frac{1}{n\, n_o} \sum_{k,o,i} q^{(k)}_{oi} \ln q^{(k)}_{oi}, \quad "
        r"q^{(k)}_{oi} = \frac{|W^{(k)}_{oi}|}{\sum_j |W^{(k)}_{oj}|}"
    ),
    "loss": r"\frac{1}{n} \sum_k L^{(k)}",
    "effective_edges": (
        r"\exp\Big( -\sum_e s_e \ln s_e \Big), \quad "
        r"s_e = \frac{\overline{|W_e|}}{\sum_f \overline{|W_f|}}"
    ),
    "gini": (
        r"\frac{\sum_{e,f} \left| \overline{|W_e|} - \overline{|W_f|} \right|}"
        r"{2 E \sum_e \overline{|W_e|}}"
    ),
}
"""Every metric over the matrices W of n questions; n_o writers, n_i readers, E edges; a bar is a mean over k."""

PATTERN_METRICS = tuple(PATTERN)

VERDICTS: dict[Verdict, tuple[str, str, str]] = {
    "follows": ("online-RL pattern", "green", ":material/check:"),
    "against": ("against the pattern", "orange", ":material/swap_vert:"),
    "noise": ("within noise", "gray", ":material/remove:"),
}
"""Words, colour and icon of a verdict on the online-RL pattern."""


def interval(comparison: Comparison) -> str:
    """The 95 % interval of a difference."""
    return f"{number(comparison.ci_low, signed=True)} to {number(comparison.ci_high, signed=True)}"


def relative_interval(comparison: Comparison) -> str:
    """Relative change and its interval, as percentages of the base."""
    if comparison.relative is None:
        return "–"
    ends = (percent(end / abs(comparison.base)) for end in (comparison.ci_low, comparison.ci_high))
    low, high = (end.removesuffix(" %") for end in ends)
    return f"{percent(comparison.relative)} ({low} to {high})"


def pattern_verdict(compared: dict[str, Comparison]) -> str:
    """In a few words, how the three metrics of the pattern moved."""
    found = [verdict(metric, compared[metric]) for metric in PATTERN_METRICS]
    if all(v == "follows" for v in found):
        return "follows"
    if all(v == "against" for v in found):
        return "against"
    if all(v == "noise" for v in found):
        return "within noise"
    return f"mixed ({found.count('follows')} with, {found.count('against')} against)"


def headline(algorithm: str, compared: dict[str, Comparison]) -> str:
    """What happened to a pair's circuits, in a sentence."""
    clauses = []
    for metric in PATTERN_METRICS:
        c, name = compared[metric], TERMS[metric].name.split()[-1].lower()
        if c.direction == 0 or not c.relative:
            clauses.append(f"did not move {name} beyond noise")
            continue
        ends = sorted(abs(end / c.base) for end in (c.ci_low, c.ci_high))
        low, high = (percent(end, signed=False) for end in ends)
        moved = "raised" if c.difference > 0 else "lowered"
        size = percent(abs(c.relative), signed=False)
        clauses.append(f"{moved} {name} by {size} (95 % interval {low.removesuffix(' %')} to {high})")
    return f"{algorithm} {clauses[0]}, {clauses[1]}, and {clauses[2]}."


def confound(compared: dict[str, Comparison]) -> str | None:
    """A caution where the loss moved with intensity, because gradients shrink as a model grows sure; else None."""
    intensity, loss = compared["activation_intensity"], compared["loss"]
    if loss.direction == 0 or loss.direction != intensity.direction or not loss.relative or not intensity.relative:
        return None
    return (
        f"The loss moved the same way ({percent(loss.relative)}; intensity {percent(intensity.relative)}). "
        "A model that is surer of its own answer has smaller gradients, and with them smaller scores, whatever its "
        "circuit looks like, so this change of intensity may be one of confidence."
    )
