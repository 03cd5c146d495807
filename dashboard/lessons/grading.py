"""The lessons' questions, made from what the models just did, and what is said to each answer.

Whatever depends on the models is an argument here, so that every question can be tried with models that nobody has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from jaxtyping import Float

from dashboard.seeds import Band
from probing.figures.theme import number
from probing.graph import ResidualGraph, typeset
from probing.metrics import Comparison
from probing.playground import Said, Side


@dataclass(frozen=True)
class Verdict:
    """What is said to an answer."""

    is_right: bool
    why: str


@dataclass(frozen=True)
class Option:
    """One of the answers that can be chosen."""

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Choice:
    """A question with some answers, of which one is right."""

    text: str
    options: tuple[Option, ...]

    def grade(self, given: int) -> Verdict:
        """What is said to the option of that number."""
        return self.options[given].verdict


@dataclass(frozen=True)
class Count:
    """A question whose answer is a whole number."""

    text: str
    right: int
    why: str
    hint: str
    """What helps where the answer is another."""

    def grade(self, given: int) -> Verdict:
        """What is said to a number."""
        return Verdict(True, self.why) if given == self.right else Verdict(False, self.hint)


Question = Choice | Count


def _shuffled(options: Sequence[Option]) -> tuple[Option, ...]:
    """In an order that gives nothing away, and is the same every time."""
    return tuple(sorted(options, key=lambda option: crc32(option.text.encode())))


def writers_before(graph: ResidualGraph, layer: int) -> Count:
    """Lesson 1: how many have written when an MLP reads."""
    right = int(graph.writers_before[graph.mlp_reader(layer)])
    names = graph.writers[:right]
    return Count(
        f"The MLP `m{layer}` reads the stream. How many have written into it by then? Count `input` as well.",
        right,
        f"These have written before it: {', '.join(f'`{name}`' for name in names)}. The sum of all of them is "
        "what it reads.",
        f"Go through them in order: `input`, `a0`, `m0`, and so on. `m{layer}` itself has not written yet, but the "
        f"attention block `a{layer}` of the same layer has.",
    )


def most_helpful(graph: ResidualGraph, scores: Float[np.ndarray, " edge"], token: str) -> Choice:
    """Lesson 2: which of four edges helps a token most, by its score; there are a strong hindering one and two weaker
    ones that help."""
    order = np.argsort(scores)
    helping = [int(edge) for edge in order[::-1] if scores[edge] > 0]
    best, hindering = helping[0], int(order[0])
    weaker = [helping[len(helping) // 4], helping[len(helping) // 2]]
    options = [Option(_scored(graph, scores, edge), _of_edge(graph, scores, edge, best)) for edge in (best, *weaker)]
    if scores[hindering] < 0:
        options.append(Option(_scored(graph, scores, hindering), _of_edge(graph, scores, hindering, best)))
    return Choice(f"Which of these edges helps the token “{token}” most, by its score?", _shuffled(options))


def _scored(graph: ResidualGraph, scores: np.ndarray, edge: int) -> str:
    return f"`{typeset(graph.names([edge])[0])}`, score {number(float(scores[edge]), signed=True)} nats"


def _of_edge(graph: ResidualGraph, scores: np.ndarray, edge: int, best: int) -> Verdict:
    score = float(scores[edge])
    name = typeset(graph.names([edge])[0])
    if edge == best:
        return Verdict(True, f"Without `{name}` the margin would shrink by about {number(score)} nats, says the score.")
    if score < 0:
        return Verdict(
            False,
            f"This one is strong, but its score is below zero: without `{name}` the margin would grow by about "
            f"{number(-score)} nats. It pulls for another token.",
        )
    return Verdict(False, f"It helps, by about {number(score)} nats. Another of these helps more: compare the numbers.")


_NEAR = 0.25
"""A share of what was promised within which a promise counts as kept."""


def kept_promise(side: Side, edge: str, model: str) -> Choice | None:
    """Lesson 3: how what removing an edge really did to the margin compares with what was promised; None where nothing
    was removed."""
    if side.without is None or side.promised is None:
        return None
    really, promised = side.without.margin - side.chosen.margin, side.promised
    numbers = f"Promised was {number(promised, signed=True)} nats, and it became {number(really, signed=True)} nats."
    if really * promised < 0:
        right = "other way"
    elif abs(really - promised) <= _NEAR * abs(promised):
        right = "kept"
    else:
        right = "more" if abs(really) > abs(promised) else "less"
    texts = {
        "more": "The margin moved the way that was promised, and further.",
        "kept": "The margin moved about as far as was promised (within a quarter).",
        "less": "The margin moved the way that was promised, but not so far.",
        "other way": "The margin moved the other way.",
    }
    look = "Compare how far the promised and the real bar lie from the first one, and on which side."
    return Choice(
        f"Take `{typeset(edge)}`, removed from the {model}. Was the promise kept?",
        tuple(Option(text, Verdict(key == right, numbers if key == right else look)) for key, text in texts.items()),
    )


def first_difference(base: Said, tuned: Said) -> Count | None:
    """Lesson 4: at which token two answers part; None if they do not."""
    pairs = enumerate(zip(base.tokens, tuned.tokens, strict=False), start=1)
    place = next((at for at, (one, other) in pairs if one != other), None)
    if place is None:
        return None
    one, other = base.tokens[place - 1], tuned.tokens[place - 1]
    return Count(
        "At which token do the two answers part? Count from the left; the first is 1, and blanks count.",
        place,
        f"There the base says “{one}”, with a probability of {base.probabilities[place - 1]:.0%}, and the tuned model "
        f"“{other}”, with {tuned.probabilities[place - 1]:.0%}. All that follows is written on top of that.",
        "Compare the two rows token by token, from the left. Each blank between the columns is a token as well.",
    )


def what_may_be_said(change: Comparison, band: Band | None) -> Choice:
    """Lesson 5: what may be said of a change of intensity, beside its interval and the seed band."""
    if change.direction == 0:
        right, why = (
            "nothing",
            "The interval includes zero: with other questions it may be the other way.",
        )
    elif band is None or change.relative is None:
        right, why = "questions", "The interval excludes zero. What another seed does is not known here."
    elif band.place(change) != "beyond":
        right, why = "questions", "The interval excludes zero, but another seed may move a model as far."
    else:
        right, why = "both", "The interval excludes zero, and lies outside what other seeds do."
    texts = {
        "nothing": "These questions do not tell whether intensity rose or fell.",
        "questions": "It moved beyond question noise. That training moved it, and not chance, is not shown.",
        "both": "It moved beyond question noise, and further than another seed would move it.",
    }
    look = "Ask two things. Is zero inside the interval? And do other seeds move a model as far?"
    return Choice(
        "What may be said of this change?",
        tuple(Option(text, Verdict(key == right, why if key == right else look)) for key, text in texts.items()),
    )


def not_needed(side: Side, edge: str) -> Verdict:
    """Lesson 6: whether a model that was right is right without an edge."""
    assert side.changed is not None
    name = typeset(edge)
    if side.changed.is_right:
        return Verdict(
            True, f"Without `{name}` the base still says “{side.changed.text}”. High in the ranks, not needed."
        )
    return Verdict(False, f"Without `{name}` the base says “{side.changed.text}”, which is wrong. It needs this edge.")


def enough(side: Side, block: str) -> Verdict:
    """Lesson 6: whether a model that was wrong is right with another's block."""
    assert side.changed is not None
    if side.changed.is_right:
        return Verdict(
            True, f"With the tuned model's `{block}` the base says “{side.changed.text}”. One block was enough."
        )
    return Verdict(
        False, f"With the tuned model's `{block}` the base says “{side.changed.text}”, which is still wrong."
    )
