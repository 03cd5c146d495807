"""What is asked of the playground and what comes back, as values that travel between processes and in links.

An experiment is a question for both models of a pair, and changes that are made inside both while they answer: an edge,
or all that a node writes, is removed or swapped with what the other model writes there on the same text. One token of
the answers is looked at closely; each model's is the one at that place of its own answer, given its own answer before.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from probing.errors import PersonError
from probing.graph import ResidualGraph

Kind = Literal["zero", "mean", "swap"]
"""What stands in for what is taken away: nothing, what the writer writes on average, or what the other model's writes
on the same text."""

LONGEST_QUESTION = 200
"""Characters of a question."""

MOST_CHANGES = 24


class PlaygroundError(PersonError):
    """Something that the playground cannot do, or cannot do now."""


@dataclass(frozen=True)
class Change:
    """One thing that is changed in both models; written `zero:m2->a5<q>`, `swap:a0`."""

    kind: Kind
    name: str
    """An edge; or a writer, which stands for all edges out of it; or a block, which stands for all its heads."""

    def __str__(self) -> str:
        """As `of` reads it."""
        return f"{self.kind}:{self.name}"

    @staticmethod
    def of(text: str) -> "Change":
        """The change that is written so.

        Raises:
            PlaygroundError: it is no change. Whether a graph has the name is seen only where the graph is.
        """
        kind, _, name = text.partition(":")
        if kind not in get_args(Kind) or not name:
            raise PlaygroundError(f"“{text}” is no change.", "One is written zero:m2->a5<q>, mean:m3 or swap:a0.")
        return Change(kind, name)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Experiment:
    """What both models of a pair are asked, and what is changed in them meanwhile."""

    pair: str
    question: str
    changes: tuple[Change, ...] = ()
    token: int | None = 0
    """Which token of each answer is looked at closely, from 0; past an answer's end, its last. None is the first at
    which the two answers with nothing changed differ, or 0."""

    def __post_init__(self) -> None:
        """Raise a PlaygroundError if it is out of bounds."""
        if not self.question.strip():
            raise PlaygroundError("There is no question.", "Type one.")
        if len(self.question) > LONGEST_QUESTION:
            raise PlaygroundError(
                f"The question has {len(self.question)} characters.", f"{LONGEST_QUESTION} are the most."
            )
        if len(self.changes) > MOST_CHANGES:
            raise PlaygroundError(f"There are {len(self.changes)} changes.", f"{MOST_CHANGES} are the most.")
        if self.token is not None and self.token < 0:
            raise PlaygroundError(f"There is no token {self.token}.", "They are counted from 0.")

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {**asdict(self), "changes": [str(change) for change in self.changes]}

    @staticmethod
    def from_json(written: Mapping[str, Any]) -> "Experiment":
        """The experiment that is written so."""
        return Experiment(**{**written, "changes": tuple(map(Change.of, written["changes"]))})


@dataclass(frozen=True)
class Said:
    """An answer, token by token."""

    tokens: tuple[str, ...]
    """The text that each adds; the one that ends the answer is the last, if the answer ends."""
    probabilities: tuple[float, ...]
    text: str
    is_right: bool | None
    """Whether it is the answer to the question; None where nobody knows."""

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> "Said":
        """The answer that is written so."""
        return Said(**{**row, "tokens": tuple(row["tokens"]), "probabilities": tuple(row["probabilities"])})


@dataclass(frozen=True)
class Chosen:
    """What a model makes of the token that is looked at."""

    token: str
    probability: float
    margin: float
    """Its logit less that of the likeliest other token, in nats; negative where the model would say another."""
    likeliest: tuple[tuple[str, float], ...]
    """The likeliest tokens at that place and their probabilities, the likeliest first."""

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> "Chosen":
        """What is written so."""
        return Chosen(**{**row, "likeliest": tuple((token, share) for token, share in row["likeliest"])})


@dataclass(frozen=True)
class Side:
    """What one model of the pair says."""

    answer: Said
    """With nothing changed."""
    changed: Said | None
    """The same under the changes; None if there are none."""
    chosen: Chosen
    without: Chosen | None
    """The same token after the same text, under the changes; None if there are none."""
    promised: float | None
    """What the margin was promised to become less the margin, in nats: the sum of the changes' estimates (norms taken
    exactly, of the margin, against what stands in)."""
    scores: Float[np.ndarray, " edge"]
    """Of every edge, for the token that is looked at: what removing the edge takes from its margin, in nats, by the
    estimate (`norm-exact`, margin, against zero), in the graph's order."""

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {**asdict(self), "scores": self.scores.tolist()}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> "Side":
        """The side that is written so."""
        parts = {"answer": Said.from_json(row["answer"]), "chosen": Chosen.from_json(row["chosen"])}
        changed, without = row["changed"], row["without"]
        parts |= {"changed": changed and Said.from_json(changed), "without": without and Chosen.from_json(without)}
        return Side(**{**row, **parts, "scores": np.array(row["scores"], np.float32)})


@dataclass(frozen=True)
class Outcome:
    """What comes back."""

    base: Side
    tuned: Side
    token: int
    """Which token of each answer was looked at; past an answer's end, its last."""
    graph: ResidualGraph
    """Of both models; attention blocks read as queries, keys and values."""
    seconds: float
    """How long the process took, without the time in which the experiment waited for its turn."""

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        sides = {"base": self.base.as_json(), "tuned": self.tuned.as_json()}
        return {**sides, "token": self.token, "graph": self.graph.as_text(), "seconds": self.seconds}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> "Outcome":
        """The outcome that is written so.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: it is none.
        """
        sides = {side: Side.from_json(row[side]) for side in ("base", "tuned")}
        return Outcome(**{**row, **sides, "graph": ResidualGraph.from_text(row["graph"])})
