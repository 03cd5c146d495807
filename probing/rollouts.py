"""The answers of both models, and which questions are kept of them.

Each model answers every question greedily; answers are graded; a question belongs to one of four cohorts. From the
chosen cohort a question is kept when its prompt has equally many tokens for both models, its mean answer length lies
within [β T̄, γ T̄], and the two lengths differ by at most δ of their mean. T̄ is the cohort's mean answer length (the
smaller of the two models', or their mean). Of what is left, n questions are drawn; each answer is cut to its first
T_cut tokens, shorter ones staying whole: max(1, ⌊α T̄⌋), or as many as the cut says (`probing.cuts`).

Source: arXiv:2509.21044, section 3 and its code.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from probing.cuts import Cut
from probing.errors import SelectionError
from probing.sequences import Sample

Cohort = Literal["both_correct", "both_wrong", "base_only", "tuned_only"]
COHORTS: tuple[Cohort, ...] = ("both_correct", "both_wrong", "base_only", "tuned_only")
Chosen = Cohort | Literal["any"]
CHOICES: tuple[Chosen, ...] = (*COHORTS, "any")
"""What a selection may be of: a cohort, or all questions, whoever is right."""
DEFAULT_CUT = Cut(0.3)
ALPHAS = (Cut(0.03), Cut(0.1), DEFAULT_CUT, Cut(0.5))
"""The cuts that the paper reports."""


@dataclass(frozen=True)
class Answer:
    """What one model answered to one question, and whether it was right. `tokens` include the end token."""

    question_id: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    correct: bool


@dataclass(frozen=True)
class Criteria:
    """The rules by which questions are kept and answers cut. Defaults: the paper's full grid."""

    at: Cut = DEFAULT_CUT
    """Where answers are cut."""
    beta: float = 0.5
    gamma: float = 1.5
    delta: float = 0.5
    n: int = 100
    seed: int = 42
    mean_length: Literal["min", "mean"] = "min"
    """T̄: the smaller of the two models' mean lengths (the paper's code), or their mean (its text)."""
    cohort: Chosen = "both_correct"

    def __post_init__(self) -> None:
        """Refuse values that make no sense, in a sentence."""
        wrong = [
            name
            for name, bad in {
                "beta and gamma": not 0 <= self.beta <= self.gamma,
                "delta": not self.delta >= 0,
                "n": self.n < 1,
                "mean_length": self.mean_length not in ("min", "mean"),
                "cohort": self.cohort not in CHOICES,
            }.items()
            if bad
        ]
        if wrong:
            raise SelectionError(
                f"The selection's {', '.join(wrong)} cannot be used.",
                "Needed: 0 <= beta <= gamma, delta >= 0, n >= 1, and a known rule and cohort.",
            )

    def as_json(self) -> dict[str, Any]:
        """What goes into keys and into the store."""
        rules = asdict(self)
        del rules["at"]
        return {"alpha": self.at.as_json(), **rules}

    @staticmethod
    def from_json(row: dict[str, Any]) -> "Criteria":
        """The criteria that `as_json` gave.

        Raises:
            SelectionError: some value makes no sense.
        """
        rules = dict(row)
        return Criteria(Cut.from_json(rules.pop("alpha")), **rules)


EVERY = Criteria(beta=0.0, gamma=1e6, delta=2.0, cohort="any")
"""Leaves every question, as far as `n` goes: two lengths differ by at most twice their mean."""

Reason = Literal["other_cohort", "prompt_lengths", "length_range", "length_difference", "not_drawn"]
REASONS: dict[Reason, str] = {
    "other_cohort": "belongs to another cohort",
    "prompt_lengths": "its prompt has different numbers of tokens for the two models",
    "length_range": "its mean answer length is outside [β T̄, γ T̄]",
    "length_difference": "the two answers' lengths differ by more than δ of their mean",
    "not_drawn": "was eligible but not drawn",
}
"""Why a question was not selected, in the order in which the filters apply."""


@dataclass(frozen=True)
class Outcome:
    """What became of one question."""

    question_id: str
    cohort: Cohort
    reason: Reason | None
    """None if it was selected."""


@dataclass(frozen=True)
class Selected:
    """The outcome of a selection: every question's fate, the cut, and the counts at each stage."""

    selection: Criteria
    outcomes: tuple[Outcome, ...]
    mean_length: float
    """T̄ in tokens."""
    cut: int
    """T_cut in tokens."""
    counts: dict[str, int]
    """Questions in each cohort, then those left after each filter: `equal_prompts`, `in_range`, `alike`, `selected`."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The selected questions, in the order of the question set."""
        return tuple(outcome.question_id for outcome in self.outcomes if outcome.reason is None)

    @property
    def warning(self) -> str | None:
        """A sentence with the counts where fewer questions are left than were asked for."""
        if self.counts["selected"] == self.selection.n:
            return None
        return f"Only {self.counts['selected']} of the {self.selection.n} questions asked for are left: {self.funnel}."

    @property
    def funnel(self) -> str:
        """The counts at each stage, in words."""
        c, cohort = self.counts, self.selection.cohort
        members = "" if cohort == "any" else f"{c[cohort]} {cohort.replace('_', ' ')}, "
        return (
            f"{c['questions']} questions, {members}"
            f"{c['equal_prompts']} with equal prompt lengths, {c['in_range']} with lengths in range, "
            f"{c['alike']} of like length, {c['selected']} selected"
        )


def cohort_of(base: Answer, tuned: Answer) -> Cohort:
    """The cohort of a question, by who answered it correctly."""
    if base.correct:
        return "both_correct" if tuned.correct else "base_only"
    return "tuned_only" if tuned.correct else "both_wrong"


def select(base: Sequence[Answer], tuned: Sequence[Answer], selection: Criteria) -> Selected:
    """Apply the rules to the two models' answers to the same questions in the same order.

    Raises:
        SelectionError: no question is left; the sentence says after which filter.
    """
    pairs = list(zip(base, tuned, strict=True))
    cohorts = [cohort_of(b, t) for b, t in pairs]
    tally = Counter(cohorts)
    counts = {"questions": len(pairs)} | {name: tally[name] for name in COHORTS}
    members = [i for i, cohort in enumerate(cohorts) if selection.cohort in (cohort, "any")]
    reasons: dict[int, Reason | None] = dict.fromkeys(range(len(pairs)), "other_cohort")
    if not members:
        raise SelectionError(
            f"No question is {selection.cohort.replace('_', ' ')}: "
            + ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in COHORTS)
            + ".",
            "Choose another cohort or ask more questions.",
        )
    means = [Fraction(sum(len(side[i].tokens) for i in members), len(members)) for side in (base, tuned)]
    mean_length = min(means) if selection.mean_length == "min" else sum(means) / 2
    beta, gamma, delta = (Fraction(str(getattr(selection, k))) for k in ("beta", "gamma", "delta"))

    def fate(i: int) -> Reason | None:
        b, t = pairs[i]
        mean = Fraction(len(b.tokens) + len(t.tokens), 2)
        if len(b.prompt_tokens) != len(t.prompt_tokens):
            return "prompt_lengths"
        if not beta * mean_length <= mean <= gamma * mean_length:
            return "length_range"
        if abs(len(b.tokens) - len(t.tokens)) > delta * mean:
            return "length_difference"
        return None

    for i in members:
        reasons[i] = fate(i)
    fates = Counter(reasons[i] for i in members)
    left = len(members)
    stages: dict[str, Reason] = {
        "equal_prompts": "prompt_lengths",
        "in_range": "length_range",
        "alike": "length_difference",
    }
    for stage, reason in stages.items():
        counts[stage] = left = left - fates[reason]
        if not left:
            raise SelectionError(
                f"Of {len(members)} questions none is left after the filter on "
                f"{reason.replace('_', ' ')}: for each, {REASONS[reason]}.",
                "Relax that filter or ask more questions.",
            )
    eligible = [i for i in members if reasons[i] is None]
    drawn = set(random.Random(selection.seed).sample(eligible, min(selection.n, len(eligible))))
    for i in eligible:
        reasons[i] = None if i in drawn else "not_drawn"
    counts["selected"] = len(drawn)
    outcomes = tuple(Outcome(b.question_id, cohorts[i], reasons[i]) for i, (b, _) in enumerate(pairs))
    return Selected(selection, outcomes, float(mean_length), selection.at.tokens_of(mean_length), counts)


def samples(answers: Sequence[Answer], selected: Selected) -> list[Sample]:
    """The truncated sequences of one model's answers to the selected questions."""
    chosen = set(selected.ids)
    return [
        Sample(
            a.question_id,
            a.prompt_tokens + a.tokens[: selected.cut],
            len(a.prompt_tokens),
            len(a.tokens[: selected.cut]),
        )
        for a in answers
        if a.question_id in chosen
    ]
