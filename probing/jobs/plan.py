"""What a job is asked to do, and the keys of what it will make.

Everything that could change a result goes into its key, so that the same key is never computed twice and results of
different settings are never mixed up: a rollout's holds the model's identity, the question set's content, template and
decoding; a comparison's the two rollouts' and the selection; a run's the comparison's and the side.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from probing.checkpoints import Checkpoint, find
from probing.pairs import Pair, QuestionSet, Registry
from probing.questions import Question, digest, load_questions
from probing.rollouts import ALPHAS, Selection

ANSWERS_VERSION = 1
"""Raised when the code that answers and grades changes its results."""

SCORES_VERSION = 1
"""Raised when the code that selects and scores changes its results."""

SIDES = ("base", "tuned")

METHOD = {
    "method": "edge attribution patching, zero ablation",
    "granularity": "blocks, q/k/v apart",
    "score": "-<dL/dreader, writer>",
    "version": SCORES_VERSION,
}


@dataclass(frozen=True)
class Spec:
    """A job: one pair, one question set, one cohort, and the cuts to score."""

    pair: str
    questions: str
    alphas: tuple[float, ...] = ALPHAS
    selection: Selection = field(default_factory=Selection)
    """Its alpha is replaced by each of `alphas`."""
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "sdpa"

    def as_json(self) -> dict[str, Any]:
        """What the store keeps of it."""
        return asdict(self)

    @staticmethod
    def from_json(row: dict[str, Any]) -> "Spec":
        """The spec that `as_json` gave."""
        return Spec(**{**row, "alphas": tuple(row["alphas"]), "selection": Selection(**row["selection"])})

    def selections(self) -> list[Selection]:
        """The selection of each cut."""
        return [replace(self.selection, alpha=alpha) for alpha in self.alphas]


@dataclass(frozen=True)
class Plan:
    """A job with its models and questions found, and the settings and keys that follow."""

    spec: Spec
    pair: Pair
    question_set: QuestionSet
    questions: list[Question]
    checkpoints: dict[str, Checkpoint]

    def rollout_settings(self, side: str) -> dict[str, Any]:
        """All that decides the answers of one side."""
        return {
            "identity": self.checkpoints[side].identity,
            "questions": digest(self.questions),
            "grading": self.question_set.grading,
            "template": self.pair.template,
            "decoding": {"greedy": True, "max_new_tokens": self.pair.max_new_tokens},
            "device": self.spec.device,
            "dtype": self.spec.dtype,
            "attention": self.spec.attention,
            "version": ANSWERS_VERSION,
        }

    def rollout_key(self, side: str) -> str:
        """Key of the answers of one side."""
        return _key(self.rollout_settings(side))

    def comparison_settings(self, selection: Selection) -> dict[str, Any]:
        """All that decides the runs of both sides."""
        return {
            "rollouts": [self.rollout_key(side) for side in SIDES],
            "selection": asdict(selection),
            "method": METHOD,
        }

    def comparison_key(self, selection: Selection) -> str:
        """Key of the comparison that this pair makes with this selection."""
        return _key({"pair": self.pair.name, **self.comparison_settings(selection)})

    def run_key(self, selection: Selection, side: str) -> str:
        """Key of the scores of one side."""
        return _key({"comparison": self.comparison_key(selection), "side": side})


def _key(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def make_plan(spec: Spec, registry: Registry) -> Plan:
    """Find what a job needs.

    Raises:
        PersonError: an unknown pair or question set, a model that is not there, questions that cannot be read.
    """
    pair = registry.pair(spec.pair)
    question_set = registry.question_set(spec.questions)
    checkpoints = {
        "base": find(pair.base, pair.base_revision),
        "tuned": find(pair.tuned, pair.tuned_revision),
    }
    return Plan(spec, pair, question_set, load_questions(question_set), checkpoints)


def shipped(registry: Registry) -> list[Spec]:
    """The jobs that a fresh store starts with: for every pair that is on this machine, the default cut first."""
    first = Selection().alpha
    rest = tuple(alpha for alpha in ALPHAS if alpha != first)
    local = [pair for pair in registry.pairs.values() if pair.is_local]
    return [Spec(pair.name, pair.questions[0], cuts) for cuts in ((first,), rest) for pair in local]
