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
from probing.questions import Question, check_template, digest, load_questions
from probing.residual_graph import Granularity
from probing.rollouts import ALPHAS, Selection

ANSWERS_VERSION = 2
"""Raised when the code that answers and grades changes its results."""

SCORES_VERSION = 1
"""Raised when the code that selects and scores changes its results."""

SIDES = ("base", "tuned")


def method(granularity: Granularity = "projections") -> dict[str, Any]:
    """How the scores of a comparison are made: edge attribution patching, -<dL/dreader, writer>."""
    return {"method": "eap", "reference": "zero", "granularity": granularity, "version": SCORES_VERSION}


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
    timeline: bool = False
    """Whether to compare the base with every checkpoint of the tuning too."""
    question: str | None = None
    """A selected question to score at every position too."""
    pickled: bool = False
    """Whether weights may be unpickled, whatever the pair says."""
    rollouts: str | None = None
    """Digest of answers that were made elsewhere and imported; None where the models are to answer."""
    granularity: Granularity = "projections"

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
        """All that decides the answers of one side: `base`, `tuned`, or a step (`side_of_step`)."""
        return {
            "identity": self.checkpoints[side].identity,
            "questions": digest(self.questions),
            "grading": self.question_set.grading,
            "template": self.pair.template,
            "decoding": self._decoding(),
            "device": self.spec.device,
            "dtype": self.spec.dtype,
            "attention": self.spec.attention,
            "version": ANSWERS_VERSION,
        }

    def _decoding(self) -> dict[str, Any]:
        if self.spec.rollouts:
            return {"imported": self.spec.rollouts}
        stop = {"stop": self.pair.stop} if self.pair.stop else {}
        return {"greedy": True, "max_new_tokens": self.pair.max_new_tokens, **stop}

    def rollout_key(self, side: str) -> str:
        """Key of the answers of one side."""
        return _key(self.rollout_settings(side))

    def comparison_settings(self, selection: Selection) -> dict[str, Any]:
        """All that decides the runs of both sides."""
        return {
            "rollouts": [self.rollout_key(side) for side in SIDES],
            "selection": asdict(selection),
            "method": method(self.spec.granularity),
            **({"answers": "imported"} if self.spec.rollouts else {}),
        }

    def comparison_key(self, selection: Selection) -> str:
        """Key of the comparison that this pair makes with this selection."""
        return _key({"pair": self.pair.name, **self.comparison_settings(selection)})

    @property
    def steps(self) -> list[str]:
        """The sides that are steps of the tuning, if the job asks for them."""
        return [side for side in self.checkpoints if side not in SIDES]

    def name_of(self, side: str) -> str:
        """A short name for the model of a side."""
        return self.pair.model_name(side) if side in SIDES else f"{self.pair.model_name('tuned')} {side}"

    def run_key(self, selection: Selection, side: str) -> str:
        """Key of the scores of one side."""
        return _key({"comparison": self.comparison_key(selection), "side": side})


def _key(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def find_side(spec: Spec, pair: Pair, side: str, weights: bool = True) -> Checkpoint:
    """The base or the tuned model of a pair; without `weights`, so that it can be planned with but not loaded.

    Raises:
        ModelError: it is not there.
    """
    pickled = pair.pickled or spec.pickled
    return find(getattr(pair, side), getattr(pair, f"{side}_revision"), pickled, weights)


def make_plan(spec: Spec, registry: Registry) -> Plan:
    """Find what a job needs.

    Raises:
        PersonError: an unknown pair or question set, a model that is not there, questions that cannot be read.
    """
    pair = registry.pair(spec.pair)
    check_template(pair.template)
    question_set = registry.question_set(spec.questions)
    checkpoints = {side: find_side(spec, pair, side) for side in SIDES}
    if spec.timeline:
        pickled = pair.pickled or spec.pickled
        checkpoints |= {side_of_step(step): find(folder, pickled=pickled) for step, folder in pair.steps.items()}
    questions = [] if spec.rollouts else load_questions(question_set)
    return Plan(spec, pair, question_set, questions, checkpoints)


def side_of_step(step: int) -> str:
    """What stands for a training step where otherwise `base` or `tuned` does; sorts as the steps do."""
    return f"step-{step:06d}"


def step_of_side(side: str) -> int:
    """The training step that `side_of_step` stands for."""
    return int(side.removeprefix("step-"))


def spec_of(comparison: dict[str, Any], **wanted: Any) -> Spec:
    """The job that made a comparison (a row of `Database.comparisons`), asking for `wanted` too."""
    rollout = json.loads(comparison["rollout_settings"])
    settings = json.loads(comparison["settings"])
    selection = Selection(**settings["selection"])
    how = {name: rollout[name] for name in ("device", "dtype", "attention")}
    how |= {"rollouts": rollout["decoding"].get("imported"), "granularity": settings["method"]["granularity"]}
    return Spec(comparison["pair"], comparison["question_set"], (selection.alpha,), selection, **how, **wanted)


def is_outdated(comparison: dict[str, Any]) -> bool:
    """Whether a comparison (a row of `Database.comparisons`) was made by code that answered or scored otherwise."""
    answered, scored = json.loads(comparison["rollout_settings"]), json.loads(comparison["settings"])["method"]
    return (answered.get("version"), scored.get("version")) != (ANSWERS_VERSION, SCORES_VERSION)


def shipped(registry: Registry) -> list[Spec]:
    """The jobs that a fresh store starts with: for every pair on this machine, the default cut first, steps last."""
    first = Selection().alpha
    rest = tuple(alpha for alpha in ALPHAS if alpha != first)
    local = [pair for pair in registry.pairs.values() if pair.is_local]
    jobs = [Spec(pair.name, pair.questions[0], cuts) for cuts in ((first,), rest) for pair in local]
    return jobs + [Spec(pair.name, pair.questions[0], (first,), timeline=True) for pair in local if pair.steps]
