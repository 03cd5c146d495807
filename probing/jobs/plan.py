"""What a job is asked to do, and the keys of what it will make.

Everything that could change a result goes into its key, so that the same key is never computed twice and results of
different settings are never mixed up: a rollout's holds the model's identity, the question set's content, template and
decoding; a comparison's the two rollouts' and the selection; a run's the model's identity, the samples that it is
scored on (whose answers, which questions, cut where) and the method, whoever asks for it: comparisons that need the
same scores share them; an evaluation's what its kind of task says. Devices and dtypes go in as they are, not as they
were wished for. Whoever may not look at a device (the web process) knows a comparison by its `request_key`, which
leaves them out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from probing.checkpoints import Checkpoint, find
from probing.cuts import Cut
from probing.graph import Granularity
from probing.jobs import tasks
from probing.jobs.keys import key_of
from probing.method import SCORES_VERSION, Method
from probing.pairs import Pair, QuestionSet, Registry
from probing.questions import Question, check_template, digest, load_questions
from probing.rollouts import ALPHAS, Criteria, Selected
from probing.store.records import ComparisonRow

ANSWERS_VERSION = 3
"""Raised when the code that answers and grades changes its results."""

SIDES = ("base", "tuned")

_AS_THE_PAIR_SAYS = ("auto", "auto")


@dataclass(frozen=True)
class Spec:
    """A job: one pair, one question set, one cohort, and the cuts to score."""

    pair: str
    questions: str
    cuts: tuple[Cut, ...] = ALPHAS
    selection: Criteria = field(default_factory=Criteria)
    """Its cut is replaced by each of `cuts`."""
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
    method: Method = field(default_factory=Method)
    """How its scores are made."""
    also: tuple[tasks.Task, ...] = ()
    """What is to be measured beside scores."""
    served: tuple[str, str] = _AS_THE_PAIR_SAYS
    """Who answers for the base and for the tuned model: the inference server of a URL, `auto` for that of the pair if
    it names one, `no` for the model itself; `yes` where a server has answered, and the answers are in the store."""

    def as_json(self) -> dict[str, Any]:
        """What the store keeps of it."""
        told = asdict(self)
        del told["cuts"]
        if self.served == _AS_THE_PAIR_SAYS:
            del told["served"]  # as earlier versions kept it
        return {
            **told,
            "alphas": tuple(cut.as_json() for cut in self.cuts),
            "selection": self.selection.as_json(),
            "method": self.method.as_json(),
            "also": [task.as_json() for task in self.also],
        }

    @staticmethod
    def from_json(row: dict[str, Any]) -> "Spec":
        """The spec that `as_json` gave, or an earlier version's, whose methods differed in their granularity alone."""
        told = {"also": (), **row}
        method = told.pop("method", None) or {"granularity": told.pop("granularity", "projections")}
        parts: dict[str, Any] = {"cuts": tuple(map(Cut.from_json, told.pop("alphas")))}
        parts |= {"selection": Criteria.from_json(row["selection"])}
        parts |= {"served": tuple(told.get("served", _AS_THE_PAIR_SAYS))}
        parts |= {"also": tuple(map(tasks.from_json, told["also"])), "method": Method.from_json(method).present}
        return Spec(**{**told, **parts})

    def selections(self) -> list[Criteria]:
        """The selection of each cut."""
        return [replace(self.selection, at=cut) for cut in self.cuts]


@dataclass(frozen=True)
class Numerics:
    """In what a job's models run: the same for both sides of a comparison."""

    device: str
    """`cpu` or `cuda`."""
    answers: str
    """The dtype in which models answer."""
    scores: str
    """The dtype in which edges are scored."""
    attention: str
    """The implementation of attention."""

    def settings(self, dtype: str) -> dict[str, str]:
        """What of it decides a result that was computed in `dtype`."""
        return {"device": self.device, "dtype": dtype, "attention": self.attention}


@dataclass(frozen=True)
class Wanted:
    """A model as a stage of a job needs it."""

    checkpoint: Checkpoint
    numerics: Numerics
    dtype: str
    granularity: Granularity


@dataclass(frozen=True)
class Request:
    """A job with its models and questions found."""

    spec: Spec
    pair: Pair
    question_set: QuestionSet
    questions: list[Question]
    checkpoints: dict[str, Checkpoint]

    def asked(self, side: str) -> dict[str, Any]:
        """All but the numerics that decides the answers of one side: `base`, `tuned`, or a step (`side_of_step`)."""
        return {
            "identity": self.checkpoints[side].identity,
            "questions": digest(self.questions),
            "grading": self.question_set.grading,
            "template": self.pair.template,
            "decoding": self._decoding(side),
            "version": ANSWERS_VERSION,
        }

    def _decoding(self, side: str) -> dict[str, Any]:
        """How one side's answers come about. That a server gave them is said, and not which: the model is the same."""
        if self.spec.rollouts:
            return {"imported": self.spec.rollouts}
        how: dict[str, Any] = {"stop": self.pair.stop} if self.pair.stop else {}
        how |= {"served": True} if self.server(side) is not None else {}
        return {"greedy": True, "max_new_tokens": self.pair.max_new_tokens, **how}

    def server(self, side: str) -> str | None:
        """The URL of the server that answers for a side; `yes` for one that has; None where none does. Steps of a
        tuning answer themselves."""
        if self.spec.rollouts or side not in SIDES:
            return None
        wish = self.spec.served[SIDES.index(side)]
        if wish == "auto":
            return getattr(self.pair.answers, side, None)
        return None if wish == "no" else wish

    def request_key(self, selection: Criteria) -> str:
        """Key of the comparison that this pair makes with this selection, whatever it is computed on."""
        sides = [self.asked(side) for side in SIDES]
        wishes = {"dtype": self.spec.dtype, "attention": self.spec.attention}
        return key_of({"pair": self.pair.name, "sides": sides, **self._compared(selection), **wishes})

    def _compared(self, selection: Criteria) -> dict[str, Any]:
        served = [side for side in SIDES if self.server(side) is not None]
        return {
            "selection": selection.as_json(),
            "method": self.spec.method.as_json(),
            **({"answers": "imported"} if self.spec.rollouts else {}),
            **({"served": served} if served else {}),
            **self._counterparts(self.questions),
        }

    def _counterparts(self, questions: Sequence[Question]) -> dict[str, str]:
        """Digest of the counterparts of some questions, where a reference is read on them; no answer has them."""
        if self.spec.method.reference != "patch":
            return {}
        return {"counterparts": key_of([[question.id, question.counterpart] for question in questions])}

    @property
    def steps(self) -> list[str]:
        """The sides that are steps of the tuning, if the job asks for them."""
        return [side for side in self.checkpoints if side not in SIDES]

    def name_of(self, side: str) -> str:
        """A short name for the model of a side."""
        return self.pair.model_name(side) if side in SIDES else f"{self.pair.model_name('tuned')} {side}"


@dataclass(frozen=True)
class Plan(Request):
    """A job of which everything is known that decides its results: `numerics.make_plan` makes it."""

    numerics: Numerics

    def wanted(self, side: str, dtype: str | None = None) -> Wanted:
        """One side's model, in the dtype of scores unless another is given."""
        how = self.numerics
        return Wanted(self.checkpoints[side], how, dtype or how.scores, self.spec.method.granularity)

    def rollout_settings(self, side: str) -> dict[str, Any]:
        """All that decides the answers of one side, as far as it is known: not in what a server computes; where they
        were made elsewhere, nothing here does."""
        if self.spec.rollouts or self.server(side) is not None:
            return self.asked(side)
        return {**self.asked(side), **self.numerics.settings(self.numerics.answers)}

    def rollout_key(self, side: str) -> str:
        """Key of the answers of one side."""
        return key_of(self.rollout_settings(side))

    def _deciding(self, selection: Criteria) -> dict[str, Any]:
        how = self.numerics.settings(self.numerics.scores)
        return {"rollouts": [self.rollout_key(side) for side in SIDES], **self._compared(selection), "scored": how}

    def comparison_settings(self, selection: Criteria) -> dict[str, Any]:
        """All that decides the runs of both sides, the request that they answer, and the permission that they need."""
        permission = {"pickled": True} if self.spec.pickled else {}
        return {**self._deciding(selection), "request": self.request_key(selection), **permission}

    def comparison_key(self, selection: Criteria) -> str:
        """Key of the comparison that this pair makes with this selection."""
        return key_of({"pair": self.pair.name, **self._deciding(selection)})

    def run_settings(self, selected: Selected, side: str, method: Method | None = None) -> dict[str, Any]:
        """All that decides the scores of one side's model on the samples that a selection makes of its answers, by the
        job's method or another."""
        return {
            "model": self.checkpoints[side].identity,
            "rollout": self.rollout_key(self.author(side)),
            "questions": key_of(sorted(selected.ids)),
            "cut": selected.cut,
            "method": (method or self.spec.method).of_samples.as_json(),
            "scored": self.numerics.settings(self.numerics.scores),
            **self._other_texts(selected),
        }

    def author(self, side: str) -> str:
        """The side whose answers are scored under a side's model."""
        return {"own": side, "shared-tuned": "tuned"}.get(self.spec.method.text, "base")

    def _other_texts(self, selected: Selected) -> dict[str, str]:
        """Digests of what is scored, or stands in, and is in no answer: references, and counterparts."""
        ids = set(selected.ids)
        chosen = [question for question in self.questions if question.id in ids]
        found = self._counterparts(chosen)
        if self.spec.method.text == "shared-reference":
            found["references"] = key_of([[question.id, question.reference] for question in chosen])
        return found

    def run_keys(self, selected: Selected) -> dict[str, str]:
        """The keys of the scores of all sides."""
        return {side: key_of(self.run_settings(selected, side)) for side in (*SIDES, *self.steps)}

    def case(self, selected: Selected | None = None, runs: Mapping[str, str] | None = None) -> tasks.Case:
        """What a task is done on: the pair as a whole, or a selection, of which `runs` are both sides' scores."""
        answers = {side: self.rollout_settings(side) for side in SIDES}
        scored = self.numerics.settings(self.numerics.scores)
        samples = {} if selected is None else {side: self.run_settings(selected, side) for side in SIDES}
        return tasks.Case(answers, self.spec.method.as_json(), scored, runs or {}, samples)


def evaluation_settings(task: tasks.Task, case: tasks.Case) -> dict[str, Any]:
    """All that decides what a task measures."""
    return {"kind": task.kind, "version": task.version, **task.settings(case)}


def evaluation_key(task: tasks.Task, case: tasks.Case) -> str:
    """Key of what a task measures."""
    return key_of(evaluation_settings(task, case))


def find_side(spec: Spec, pair: Pair, side: str, weights: bool = True) -> Checkpoint:
    """The base or the tuned model of a pair; without `weights`, so that it can be planned with but not loaded.

    Raises:
        ModelError: it is not there.
    """
    pickled = pair.pickled or spec.pickled
    return find(getattr(pair, side), getattr(pair, f"{side}_revision"), pickled, weights)


def make_request(spec: Spec, registry: Registry) -> Request:
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
    return Request(spec, pair, question_set, questions, checkpoints)


def side_of_step(step: int) -> str:
    """What stands for a training step where otherwise `base` or `tuned` does; sorts as the steps do."""
    return f"step-{step:06d}"


def step_of_side(side: str) -> int:
    """The training step that `side_of_step` stands for."""
    return int(side.removeprefix("step-"))


def spec_of(comparison: ComparisonRow, **wanted: Any) -> Spec:
    """The job that made a comparison, asking for `wanted` too, or for that in place of what it did.

    Where answers and scores were made in different dtypes, `auto` did that, and does it again.
    """
    rollout, settings = comparison.rollout_settings, comparison.settings
    selection = Criteria.from_json(settings["selection"])
    scored = settings.get("scored", rollout)  # earlier versions kept one for both
    how = {name: scored[name] for name in ("device", "dtype", "attention")}
    if rollout.get("dtype", how["dtype"]) != how["dtype"]:
        how["dtype"] = "auto"
    how |= {"rollouts": rollout["decoding"].get("imported"), "pickled": settings.get("pickled", False)}
    how |= {"served": tuple("yes" if side in settings.get("served", ()) else "no" for side in SIDES)}
    how |= {"method": Method.from_json(settings["method"]).present}
    return Spec(comparison.pair, comparison.question_set, (selection.at,), selection, **{**how, **wanted})


def is_outdated(comparison: ComparisonRow) -> bool:
    """Whether a comparison was answered, scored or summarised by other code."""
    made = (comparison.rollout_settings.get("version"), comparison.settings["method"].get("version"))
    return made != (ANSWERS_VERSION, SCORES_VERSION) or not comparison.up_to_date
