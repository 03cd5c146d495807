"""How scores are made, as a value: it goes into keys and, separately, into words."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from probing.graph import Granularity

SCORES_VERSION = 1
"""Raised when the code that selects and scores changes its results."""

Path = Literal["eap", "norm-exact", "eap-ig", "exact"]
"""Which estimate: edge attribution patching's tangent (Syed et al. 2023, arXiv:2310.10348), the same with the reader's
norm as it is, or with gradients averaged on the way from the reference's embedding (Hanna et al. 2024,
arXiv:2403.17806); or no estimate: each edge is really removed, alone."""

ESTIMATES: tuple[Path, ...] = ("eap", "norm-exact", "eap-ig")
"""Those that estimate."""

Reference = Literal["zero", "mean", "patch"]
"""What stands in for what is removed: nothing, a writer's mean over all samples, or what it writes on a counterpart."""

Loss = Literal["nll", "margin", "log-odds"]
"""What is differentiated: see `attribution.passes`."""

Text = Literal["own", "shared", "shared-tuned", "shared-reference"]
"""What a comparison scores: each model's own answers, or for both the base's, the tuned's, or the reference's."""


def told_together(loss: Loss) -> list[Loss]:
    """The losses that are read off a pass without an edge where one of them is asked for, which comes first: what a
    model says tells them all, and the margin is what confidence does not hide."""
    both: tuple[Loss, ...] = ("nll", "margin")
    return list(dict.fromkeys((loss, *both)))


STEPS = 5
"""Points that `eap-ig` averages over, unless told otherwise."""

_WORDS: dict[str, dict[str, str]] = {
    "granularity": {"blocks": "attention blocks as one reader", "heads": "heads apart"},
    "path": {
        "norm-exact": "norms taken exactly",
        "eap-ig": "integrated gradients",
        "exact": "each edge really removed",
    },
    "reference": {"mean": "against each writer's mean", "patch": "against a counterpart"},
    "loss": {"margin": "margin as loss", "log-odds": "log-odds as loss"},
    "text": {
        "shared": "both on the base's answers",
        "shared-tuned": "both on the tuned model's answers",
        "shared-reference": "both on the reference answers",
    },
}
"""What values other than the paper's are called."""


@dataclass(frozen=True)
class Method:
    """How it is found what removing each edge does to a loss; the default is the paper's."""

    granularity: Granularity = "projections"
    path: Path = "eap"
    reference: Reference = "zero"
    loss: Loss = "nll"
    text: Text = "own"
    steps: int = STEPS
    """Of `eap-ig`; others have none, so theirs are all the same."""
    version: int = SCORES_VERSION

    def __post_init__(self) -> None:
        """Forget steps that are not taken."""
        if self.path != "eap-ig":
            object.__setattr__(self, "steps", STEPS)

    def as_json(self) -> dict[str, Any]:
        """What goes into keys, and what the store keeps of it: the later settings only where they are not the first."""
        told = {
            "granularity": self.granularity,
            "method": self.path,
            "reference": self.reference,
            "version": self.version,
        }
        told |= {} if self.path != "eap-ig" else {"steps": self.steps}
        later = {"loss": self.loss, "text": self.text}
        return told | {name: value for name, value in later.items() if value != getattr(PAPERS, name)}

    @staticmethod
    def from_json(row: dict[str, Any]) -> "Method":
        """The method that `as_json` gave; what an earlier version did not say of its own is as it was then.

        Raises:
            ValueError: it has a value that is not known.
            TypeError: it has a setting that is not known.
        """
        made = Method(**{"path" if name == "method" else name: value for name, value in row.items()})
        known = {"granularity": Granularity, "path": Path, "reference": Reference, "loss": Loss, "text": Text}
        for name, kind in known.items():
            if getattr(made, name) not in get_args(kind):
                raise ValueError(f"no such {name}: {getattr(made, name)}")
        if not isinstance(made.steps, int) or made.steps < 1:
            raise ValueError(f"no number of steps: {made.steps}")
        return made

    @property
    def present(self) -> "Method":
        """The same as the present version makes it."""
        return replace(self, version=SCORES_VERSION)

    @property
    def of_samples(self) -> "Method":
        """The same for whoever is given what is scored: whose text it is, the samples themselves say."""
        return replace(self, text="own")

    @property
    def sums_to_zero(self) -> bool:
        """Whether the scores into a reader behind a norm sum to zero: those of the tangent against zero do, as a norm
        ignores the scale of what it reads. Against another reference the writers' sum is not what is taken away; with
        the norm as it is, gradients averaged over other points, or real effects, no such rule holds."""
        return self.path == "eap" and self.reference == "zero"

    def passes(self, edges: int) -> float:
        """How many passes forward and back it takes of each sample, in a graph of so many edges; one forward alone is
        half of one, at most."""
        by_path = {"eap-ig": float(self.steps), "exact": (edges + 1) / 2}
        return by_path.get(self.path, 1.0) + (0 if self.reference == "zero" else 0.5)

    @property
    def words(self) -> list[str]:
        """In what it differs from the paper's."""
        found = [_WORDS[name][value] for name in _WORDS if (value := getattr(self, name)) in _WORDS[name]]
        if self.path == "eap-ig":
            found[found.index(_WORDS["path"]["eap-ig"])] += f" ({self.steps} steps)"
        return found


PAPERS = Method()
"""That of arXiv:2509.21044."""
