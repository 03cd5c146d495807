"""One job as it is done: both sides' answers, what is selected of them at each cut, its scores, and what else is asked.

Each step looks first whether the store has its result already. Answers are the longest thing that a job holds: those
of a side are read once, cut for all selections, and let go.
"""

import time
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from probing.checkpoints import Checkpoint
from probing.errors import RolloutError, SelectionError
from probing.jobs.crew import Crew, Team, new_name
from probing.jobs.evaluating import evaluate
from probing.jobs.filling import fill
from probing.jobs.keys import key_of
from probing.jobs.plan import SIDES, Plan
from probing.jobs.progress import Progress
from probing.jobs.stages import Answering, Fetching, Resolving, Scoring
from probing.jobs.stages.answering import Grading
from probing.jobs.stages.fetching import Server
from probing.jobs.texts import check, texts
from probing.models import load_tokenizer, tokenizer_note
from probing.rollouts import Answer, Criteria, Selected, select
from probing.sameness import weights_note
from probing.scoring import together
from probing.sequences import Sample, by_length
from probing.store import Store
from probing.summary import summarise

find_weights_note = lru_cache(maxsize=4)(weights_note)  # of equal models it reads every weight


@lru_cache(maxsize=4)
def _tokenizer_note(base: Checkpoint, tuned: Checkpoint) -> str | None:
    """What differs between the tokenizers of a pair."""
    return tokenizer_note(load_tokenizer(base), load_tokenizer(tuned))


@dataclass(frozen=True)
class Job:
    """A job under way: what one worker does of it, and others may do with it."""

    store: Store
    crew: Crew
    plan: Plan
    report: Progress
    worker: str = field(default_factory=new_name)

    def do(self) -> None:
        """Bring all its results into the store, or see that others do.

        Raises:
            PersonError: it cannot be done.
        """
        try:
            self._do()
        finally:
            self.crew.rest()
            self.store.leases.give_back(self.worker)

    def _do(self) -> None:
        check(self.plan)
        for side in SIDES:
            self._roll_out(side)
        answers = {side: self._answers(side) for side in SIDES}
        cuts = [self._select(criteria, *answers.values()) for criteria in self.plan.spec.selections()]
        possible = [selected for selected in cuts if selected is not None]
        scored = {side: texts(self.plan, side, answers[self.plan.author(side)], possible) for side in SIDES}
        answers.clear()
        for side in reversed(SIDES):  # the tuned model is the one loaded last
            for selected, chosen in scored[side]:
                self._attribute(side, selected, chosen)
        for selected in possible:
            self._summarise("tuned", selected)
        for side in self.plan.steps:
            self._roll_out(side)
            for selected, chosen in texts(self.plan, side, self._answers(self.plan.author(side)), possible):
                self._attribute(side, selected, chosen)
                self._summarise(side, selected)
        if self.plan.spec.question is not None:
            for side in SIDES:
                for selected, chosen in scored[side]:
                    self._resolve(side, selected, chosen, self.plan.spec.question)
        for task in self.plan.spec.also:
            for of in [None] if task.of_pair else possible:
                evaluate(self.team, self.plan, task, of)

    @property
    def team(self) -> Team:
        """This worker, at the store."""
        return Team(self.store, self.crew, self.report, self.worker)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _roll_out(self, side: str) -> None:
        fill(self.team, self.plan, side, partial(self._generator, side))

    def _answers(self, side: str) -> list[Answer]:
        return self.store.rollouts.answers(self.plan.rollout_key(side))

    def _generator(self, side: str) -> tuple[Answering, list[str]]:
        """Answers that the model gives, or a server for it."""
        plan, pair, key = self.plan, self.plan.pair, self.plan.rollout_key(side)
        if plan.spec.rollouts:
            raise RolloutError(
                "The answers that this job should use are not all in the store.",
                "Import their file again with 'python -m probing probe PAIR --rollouts FILE'.",
            )
        url = plan.server(side)
        if url == "yes":
            raise RolloutError(
                "The answers that a server gave for this comparison are not all in the store.",
                "Ask it again: 'python -m probing probe PAIR --served-base URL --served-tuned URL'.",
            )
        grading = Grading(key, side == "base", plan.question_set.grading)
        wanted = plan.wanted(side, plan.numerics.answers if url is None else None)
        asked = (key, wanted, tuple(plan.questions), grading, pair.template, pair.max_new_tokens, pair.stop)
        if url is None:
            stage = Answering(*asked)
        else:
            alone = [plan.server(other) for other in SIDES].count(url) == 1
            names = (getattr(pair, side), pair.model_name(side))
            stage = Fetching(*asked, server=Server(url, names, alone))
        return stage, [question.id for question in plan.questions]

    # -- selection -------------------------------------------------------------------------------------------------

    def _select(self, criteria: Criteria, base: list[Answer], tuned: list[Answer]) -> Selected | None:
        """The selection of one cut; None where it cannot be made, for a reason that the store keeps."""
        plan = self.plan
        selected, failure = None, None
        try:
            selected = select(base, tuned, criteria)
        except SelectionError as error:
            failure = str(error)
        key = plan.comparison_key(criteria)
        if not self.store.comparisons.saved(key):
            models = [plan.checkpoints[side] for side in SIDES]
            notes = (find_weights_note(*models), selected.warning if selected else None, _tokenizer_note(*models))
            warning = " ".join(filter(None, notes)) or None
            self.store.comparisons.save(
                key, plan.pair.name, plan.question_set.name, (plan.rollout_key("base"), plan.rollout_key("tuned")),
                plan.comparison_settings(criteria), selected, warning, failure,
            )  # fmt: skip
        return selected

    # -- scores ----------------------------------------------------------------------------------------------------

    def _runs(self, selected: Selected) -> dict[str, str]:
        """The runs that a cut's comparison is made of, which may be there already."""
        return self.store.comparisons.link(self.plan.comparison_key(selected.selection), self.plan.run_keys(selected))

    def _attribute(self, side: str, selected: Selected, chosen: list[Sample]) -> None:
        """Score the edges of one side at one cut."""
        plan, criteria = self.plan, selected.selection
        if self.store.runs.finished(self._runs(selected)[side]):
            return
        started = time.monotonic()
        method = plan.spec.method
        settings = [plan.run_settings(selected, side, one) for one in together(method)]
        stage = Scoring(tuple(map(key_of, settings)), plan.wanted(side), tuple(chosen), method)
        laid = self.crew.lay_out(stage, self.report)
        at_once = laid.at_once
        for key, deciding in zip(stage.keys, settings, strict=True):
            at_once = self.store.runs.start(
                key, plan.name_of(side), plan.checkpoints[side].identity, laid.graph, len(chosen), at_once,
                deciding | {"tokenizer": laid.vocabulary},
            )  # fmt: skip
        made = self.team.spread(
            replace(stage, at_once=at_once), f"{plan.name_of(side)} edges, {criteria.at.short}",
            [tuple(chosen[i].id for i in batch) for batch in by_length(chosen, at_once)],
            lambda: set.intersection(*map(self.store.runs.scored, stage.keys)),
        )  # fmt: skip
        for key in stage.keys:
            self.store.runs.finish(key, made, time.monotonic() - started)

    def _summarise(self, side: str, selected: Selected) -> None:
        """Compare the base with `side`, and keep what pages show of it at once."""
        plan, criteria = self.plan, selected.selection
        key = plan.comparison_key(criteria)
        if self.store.summaries.saved(key, side):
            return

        def save() -> None:
            runs = self._runs(selected)
            base, tuned = (self.store.runs.scores(runs[s]) for s in ("base", side))
            self.store.summaries.save(key, side, summarise(base, tuned))

        words = f"{plan.name_of(side)} compared, {criteria.at.short}"
        self.team.once(f"{key} {side}", words, lambda: self.store.summaries.saved(key, side), save)

    def _resolve(self, side: str, selected: Selected, chosen: list[Sample], question: str) -> None:
        """Score one question at every position."""
        plan, runs = self.plan, self.store.runs
        key = self._runs(selected)[side]

        def there() -> set[str]:
            return {question} if runs.positions(key, question) is not None else set()

        if there():
            return
        if plan.spec.method.path == "exact":
            raise SelectionError("What an edge really does is not known token by token.", "Choose an estimate.")
        if all(sample.id != question for sample in chosen):
            raise SelectionError(f"Question '{question}' is not among those that were scored.", "Choose another.")
        stage = Resolving(key, plan.wanted(side), tuple(chosen), plan.spec.method)
        self.team.spread(stage, f"{plan.name_of(side)} token by token", [(question,)], there)
