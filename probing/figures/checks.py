"""How verdicts on estimates are shown: what the real effect of an edge says of its score."""

from dataclasses import dataclass

from probing.evidence import Verdict
from probing.figures.theme import FAINT, NEUTRAL


@dataclass(frozen=True)
class Check:
    """How a verdict on the estimate of an edge's effect is shown."""

    badge: str
    """The colour of a badge."""
    colour: str
    """That of figures."""
    meaning: str
    """What is so of the real effect."""


CHECKS: dict[Verdict, Check] = {
    "confirmed": Check("green", "#2f9e77", "its interval excludes zero, and it has the sign of the estimate"),
    "opposite": Check("red", "#cf3f5b", "its interval excludes zero, and it has the other sign"),
    "overestimated": Check("orange", "#c79a1b", "its interval holds zero and not the estimate"),
    "open": Check("blue", NEUTRAL, "its interval holds both zero and the estimate"),
    "not checked": Check("gray", FAINT, "nobody knows it, as nobody has removed the edge"),
}

CONTRADICTED: tuple[Verdict, ...] = ("opposite", "overestimated")
"""Where reality speaks against an estimate."""

CHECKS_MEANING = (
    "The real effect of an edge is the change of the loss when it alone is removed, with its 95 % interval over "
    "questions. An estimate is "
    + "; ".join(f"*{verdict}* if {shown.meaning}" for verdict, shown in CHECKS.items())
    + "."
)
