"""What a comparison says about the paper's pattern: by one definition in a few words, by several in a sentence.

The likelihood's slope vanishes as a model grows sure, so by it intensity falls with the loss whatever the circuit does.
Of such a definition nothing is said to go against the pattern, and its numbers never stand alone where the losses of
the two models differ: beside them stands what the margin gives, which does not fall with the loss, and what removing
every edge really does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dashboard.seeds import Band
from dashboard.words import as_text, has_relative_interval, listed
from probing.figures.theme import number, percent
from probing.method import PAPERS, Method
from probing.metrics import GINI, INTENSITY, LOSS, METRICS, PATTERN, Comparison, verdict
from probing.pairs import Pair

FOUND = (
    "The paper found that online RL (PPO, GRPO) makes edges stronger (intensity up) and more diverse (complexity up, "
    "kurtosis down), and that DPO does not: the online-RL pattern."
)
"""What the pattern is, for those who are then told whether it is there."""

Direction = Literal["follows", "against", "noise", "with the loss", "likelihood"]
"""How a metric moved: as the paper found for online RL, or the other way; not for sure; by a likelihood, as the loss
did; or by a likelihood otherwise than the paper found, which may be no more than a change of confidence."""

_NAMES = {
    ("eap", "nll"): ("the paper's definition", "by the paper's definition"),
    ("norm-exact", "margin"): ("the margin", "by the margin"),
    ("exact", "nll"): ("really removed", "with every edge really removed"),
    ("exact", "margin"): ("really removed, margin", "by the margin with every edge really removed"),
}
"""What a path and a loss are called, as a name and inside a sentence."""


@dataclass(frozen=True)
class Told:
    """What one definition says of a pair."""

    method: Method
    compared: Mapping[str, Comparison]
    bands: Mapping[str, Band] = field(default_factory=dict)
    """How far other seeds move each metric by the same definition."""
    estimated: bool = False
    """Whether only some edges were removed, and the rest is inferred."""

    @property
    def name(self) -> str:
        """What the definition is called."""
        return self._words(0, ", ")

    @property
    def phrase(self) -> str:
        """The same inside a sentence."""
        return self._words(1, " ")

    def _words(self, which: int, joined: str) -> str:
        known = _NAMES.get((self.method.path, self.method.loss))
        if known is None:
            words = ", ".join(self.method.words)
            return f"with {words}" if which else words
        others = replace(self.method, path=PAPERS.path, loss=PAPERS.loss).words
        return f"{known[which]}{joined}({', '.join(others)})" if others else known[which]

    @property
    def is_likelihood(self) -> bool:
        """Whether it falls as a model grows sure."""
        return self.method.loss == "nll"

    @property
    def loss_moved(self) -> int:
        """In which direction the loss moved, if this definition moves with it; else 0."""
        return self.compared[LOSS.key].direction if self.is_likelihood and LOSS.key in self.compared else 0

    @property
    def is_doubtful(self) -> bool:
        """Whether its intensity moved as the loss did."""
        return self.loss_moved != 0 and self.loss_moved == self.compared[INTENSITY.key].direction


def direction(told: Told, metric: str) -> Direction:
    """How a metric with a pattern moved by a definition."""
    change = told.compared[metric]
    said = verdict(metric, change)
    if said == "noise" or not told.is_likelihood:
        return said
    if told.loss_moved == change.direction:
        return "with the loss"
    return "likelihood" if said == "against" else said


def badge(told: Told, metric: str) -> tuple[str, str, str]:
    """Words, colour and icon of that."""
    found = direction(told, metric)
    verb = "rises" if told.compared[metric].direction > 0 else "falls"
    if found == "with the loss":
        return f"{verb} with the loss", "gray", ":material/balance:"
    if found == "likelihood":
        loss = {1: "rises", -1: "falls"}.get(told.loss_moved)
        words = f"{verb} as the loss {loss}" if loss else f"{verb}, by likelihood"
        return words, "gray", ":material/balance:"
    return {
        "follows": ("online-RL pattern", "green", ":material/check:"),
        "against": ("against the pattern", "orange", ":material/swap_vert:"),
        "noise": ("within question noise", "gray", ":material/remove:"),
    }[found]


def in_short(told: Told) -> str:
    """In a few words, how the three metrics of the pattern moved."""
    found = [direction(told, metric) for metric in PATTERN]
    if len(set(found)) == 1 and found[0] in ("follows", "against"):
        return found[0]
    if set(found) == {"noise"}:
        return "within question noise"
    if told.is_doubtful:
        return badge(told, INTENSITY.key)[0]
    names = {"follows": "with", "against": "against", "with the loss": "with the loss", "likelihood": "by likelihood"}
    counts = [f"{found.count(kind)} {name}" for kind, name in names.items() if kind in found]
    return f"mixed ({', '.join(counts)})"


def subject(pair: Pair) -> str:
    """What a pair's difference comes from, as Markdown."""
    if pair.control == "seed":
        return "another seed"
    return as_text(f"further {pair.algorithm}" if pair.control else pair.algorithm)


def headline(algorithm: str, told: Sequence[Told]) -> str:
    """What happened to a pair's circuits, in a sentence: by the definition in view, which is the first, and by others.

    `algorithm` is what the difference comes from. A likelihood's numbers stand beside what other definitions give, or
    beside the loss that moved.
    """
    own, *others = told
    if not others and not own.loss_moved:
        return _capital(_all_metrics(algorithm, own))
    change = own.compared[INTENSITY.key]
    verb = {1: "raised", -1: "lowered"}.get(change.direction)
    did = f"{algorithm} {verb} intensity by {_amount(change)}" if verb else _still("intensity")
    by = f"{own.phrase} {did}"
    if others:
        return _capital(f"{by}; {listed(_others(others))}: {_conclusion(told)}.")
    loss = own.compared[LOSS.key]
    loss_did = f"the loss {'rose' if loss.direction > 0 else 'fell'} by {_amount(loss, '')}"
    unknown = "what the margin says, and what removing edges really does, has not been computed"
    if own.is_doubtful:
        return _capital(f"{by}, but {loss_did}, and this may be confidence alone: {unknown}.")
    return _capital(f"{by}, while {loss_did}: {unknown}.")


def _all_metrics(algorithm: str, told: Told) -> str:
    """How each metric of the pattern moved by one definition."""
    moved, still = [], []
    for metric in PATTERN:
        change, name = told.compared[metric], METRICS[metric].short
        if change.direction == 0:
            still.append(name)
            continue
        verb = "raised" if change.difference > 0 else "lowered"
        moved.append(f"{verb} {name} by {_amount(change)}")
    clauses = [f"{algorithm} {listed(moved)}"] if moved else []
    if still:
        clauses.append(_still(listed(still)))
    spread = told.compared[GINI.key]
    if spread.direction:
        clauses.append(f"the circuit is {'more' if spread.direction > 0 else 'less'} concentrated")
    by = f"{told.phrase} " if told.method.words else ""
    return f"{by}{'; '.join(clauses)}."


def _others(told: Sequence[Told]) -> list[str]:
    """A clause for each definition; both losses of what was really removed share one where they agree."""
    clauses = []
    by_loss = {of.method.loss: of for of in told if of.method.path == "exact"}
    pair = [by_loss[loss] for loss in ("nll", "margin") if loss in by_loss]
    signs = {of.compared[INTENSITY.key].direction for of in pair}
    together = len(pair) == 2 and len(signs) == 1 and 0 not in signs
    for of in told:
        change = of.compared[INTENSITY.key]
        if together and of in pair:
            if of is pair[0]:
                way = "rose" if change.direction > 0 else "fell"
                both = " and ".join(
                    f"{_amount(one.compared[INTENSITY.key], f'{name}, ')}"
                    for one, name in zip(pair, ("likelihood", "margin"), strict=True)
                )
                clauses.append(f"{of.phrase} it {way} by {both}{_estimated(of)}")
            continue
        verb = {1: "rose", -1: "fell"}.get(change.direction)
        did = f"it {verb} by {_amount(change, '')}" if verb else _still("it")
        clauses.append(f"{of.phrase} {did}{_estimated(of)}")
    return clauses


def _estimated(told: Told) -> str:
    return ", as estimated from some edges" if told.estimated else ""


def _conclusion(told: Sequence[Told]) -> str:
    """Whether the definitions agree on intensity, and if not, whether confidence is why."""
    signs = [of.compared[INTENSITY.key].direction for of in told]
    doubtful = next((of for of in told if of.is_doubtful and of.method.path != "exact"), None)
    # What was really removed moves with the loss too, if it is of the likelihood: it speaks where nothing else does.
    sure = [of.compared[INTENSITY.key].direction for of in told if not of.is_likelihood]
    sure = sure or [of.compared[INTENSITY.key].direction for of in told if of.method.path == "exact"]
    if doubtful is not None and sure:
        way = doubtful.loss_moved
        what = "rise" if way > 0 else "fall"
        if way not in sure:
            return f"the {what} is one of confidence"
        if set(sure) == {way}:
            return f"the {what} is more than confidence"
    return "they agree" if len(set(signs)) == 1 else "they do not agree"


def agreement(told: Sequence[Told]) -> str:
    """Whether definitions agree on the three metrics, in a sentence, and whether that is more than seeds do."""
    whole = [of for of in told if not of.estimated]
    sure = [of for of in whole if not of.is_likelihood] or whole
    if len(whole) < 2:
        return ""
    differ = [METRICS[metric].short for metric in PATTERN if len(_signs(whole, metric)) > 1]
    if not differ:
        said = f"All {len(whole)} definitions agree: {_found(whole)}."
    elif len(sure) > 1:
        said = (
            f"The definitions do not agree on {listed(differ)}; those that do not fall with the loss find "
            f"{_found(sure)}."
        )
    else:
        said = f"The definitions do not agree on {listed(differ)}."
    return " ".join(part for part in (said, _beside_seeds(sure)) if part)


def _signs(told: Sequence[Told], metric: str) -> set[int]:
    return {of.compared[metric].direction for of in told}


def _found(told: Sequence[Told]) -> str:
    """Where each metric of the pattern went."""
    ways = {1: "up", -1: "down", 0: "unmoved"}
    return listed([
        f"{METRICS[metric].short} {' or '.join(ways[s] for s in (1, 0, -1) if s in _signs(told, metric))}"
        for metric in PATTERN
    ])  # fmt: skip


def _beside_seeds(told: Sequence[Told]) -> str:
    """Which metrics moved further than seeds do by all of some definitions."""
    if not all(metric in of.bands for of in told for metric in PATTERN):
        return ""
    beyond = [
        METRICS[metric].short
        for metric in PATTERN
        if all(of.bands[metric].place(of.compared[metric]) == "beyond" for of in told)
    ]
    if not beyond:
        return "By them none of the three is beyond the seed band."
    return f"By them {listed(beyond)} {'are' if len(beyond) > 1 else 'is'} beyond the seed band."


def _still(what: str) -> str:
    return f"{what} did not move beyond question noise"


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}"


def _amount(change: Comparison, name: str = "95 % interval ") -> str:
    """By how much a metric moved in its direction, with the interval: relative to the base where that has one."""
    if change.relative is not None and has_relative_interval(change):
        ends = sorted(change.direction * end for end in (change.relative_low, change.relative_high))
        low, high = (percent(end, signed=False) for end in ends)
        return f"{percent(abs(change.relative), signed=False)} ({name}{low.removesuffix(' %')} to {high})"
    low, high = (number(end) for end in sorted(change.direction * end for end in (change.ci_low, change.ci_high)))
    return f"{number(abs(change.difference))} ({name}{low} to {high})"
