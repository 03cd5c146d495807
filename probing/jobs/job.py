"""One job as it is done: both sides' answers, what is selected of them at each cut, its scores, and what else is asked.

Each step looks first whether the store has its result already. Answers are the longest thing that a job holds: those
of a side are read once, cut for all selections, and let go.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from probing.attribution import Attributor, References, find_references
from probing.checkpoints import Checkpoint
from probing.errors import RolloutError, SelectionError
from probing.fitting import batch_by_batch, batch_that_fits, cache_bytes, free_bytes, shape_of
from probing.jobs.evaluating import evaluate
from probing.jobs.filling import Given, Source, fill
from probing.jobs.keys import key_of
from probing.jobs.loading import Models
from probing.jobs.plan import SIDES, Plan
from probing.jobs.progress import Progress, now_and_then
from probing.jobs.texts import check, texts
from probing.models import answer, load_tokenizer, tokenizer_note, vocabulary_digest
from probing.questions import prompt_for
from probing.rollouts import Answer, Criteria, Selected, select
from probing.sameness import weights_note
from probing.scoring import samples_at_once, score, together
from probing.sequences import Sample
from probing.store import Store
from probing.store.spool import ScoreBatch
from probing.summary import summarise

find_weights_note = lru_cache(maxsize=4)(weights_note)  # of equal models it reads every weight


@lru_cache(maxsize=4)
def _tokenizer_note(base: Checkpoint, tuned: Checkpoint) -> str | None:
    """What differs between the tokenizers of a pair."""
    return tokenizer_note(load_tokenizer(base), load_tokenizer(tuned))


@dataclass(frozen=True)
class Job:
    """A job under way."""

    store: Store
    models: Models
    plan: Plan
    report: Progress

    def do(self) -> None:
        """Bring all its results into the store."""
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
                evaluate(self.store, self.models, self.plan, task, of, self.report)

    def _load(self, side: str, dtype: str) -> tuple[Attributor, Any]:
        plan = self.plan
        return self.models.load(plan.checkpoints[side], plan.numerics, dtype, plan.spec.method.granularity, self.report)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _roll_out(self, side: str) -> None:
        fill(self.store, self.plan, side, partial(self._generator, side), self.report)

    def _answers(self, side: str) -> list[Answer]:
        return self.store.rollouts.answers(self.plan.rollout_key(side))

    def _generator(self, side: str) -> Source:
        """Answers that the model gives."""
        plan, pair, questions = self.plan, self.plan.pair, self.plan.questions
        if plan.spec.rollouts:
            raise RolloutError(
                "The answers that this job should use are not all in the store.",
                "Import their file again with 'python -m probing probe PAIR --rollouts FILE'.",
            )
        attributor, tokenizer = self._load(side, plan.numerics.answers)
        model = attributor.model
        prompts = [prompt_for(question, pair.template, tokenizer) for question in questions]
        longest = max(len(prompt.tokens) for prompt in prompts) + pair.max_new_tokens
        each = cache_bytes(shape_of(model.config, 0), longest, model.dtype.itemsize)

        def give(batch: list[int], say: Callable[[], None]) -> list[Given]:
            fed = [prompts[i].tokens for i in batch]
            said = answer(model, tokenizer, fed, pair.max_new_tokens, pair.stop, now_and_then(say))
            return [
                Given(questions[i], prompts[i].text, prompts[i].tokens, *s) for i, s in zip(batch, said, strict=True)
            ]

        ids = [question.id for question in questions]
        return Source(ids, give, batch_that_fits(free_bytes(model.device), each), tokenizer, self.models.provenance())

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
        attributor, tokenizer = self._load(side, plan.numerics.scores)
        attributor.check(chosen)
        method = plan.spec.method
        keys, scored = {}, []
        batch_size = samples_at_once(method, attributor.graph.size, len(attributor.batches(chosen)[0]))
        for one in together(method):
            settings = plan.run_settings(selected, side, one)
            key = keys[one] = key_of(settings)
            batch_size = self.store.runs.start(
                key, plan.name_of(side), plan.checkpoints[side].identity, attributor.graph, len(chosen), batch_size,
                settings | {"tokenizer": vocabulary_digest(tokenizer)},
            )  # fmt: skip
            scored.append(self.store.runs.scored(key))
        there, done = set.intersection(*scored), 0
        say = partial(self.report, f"{plan.name_of(side)} edges, {criteria.at.short}")
        references = self._references(attributor, side, chosen, batch_size)

        def do(batch: list[int]) -> None:
            nonlocal done
            say(done, len(chosen))
            if not all(chosen[i].id in there for i in batch):
                alive = now_and_then(partial(say, done, len(chosen)))
                parts = score(attributor, [chosen[i] for i in batch], method, references, alive)
                for key, part in zip(keys.values(), parts, strict=True):
                    self.store.spool.put(ScoreBatch(key, part.ids, part.loss, part.edges))
                self.store.batches.ingest()
            done += len(batch)

        largest = batch_by_batch(attributor.batches(chosen, batch_size), do)
        batches = f"{batch_size}" if largest in (batch_size, len(chosen)) else f"{batch_size}, then {largest}"
        made = self.models.provenance() | {"batch size": batches}
        for key in keys.values():
            self.store.runs.finish(key, made, time.monotonic() - started)

    def _references(
        self, attributor: Attributor, side: str, chosen: list[Sample], batch_size: int | None = None
    ) -> References:
        """What stands in for what is removed from one side's model."""

        def progress(done: int) -> None:
            self.report(f"{self.plan.name_of(side)} references", done, len(chosen))

        return find_references(attributor, self.plan.spec.method.reference, chosen, batch_size, progress)

    def _summarise(self, side: str, selected: Selected) -> None:
        """Compare the base with `side`, and keep what pages show of it at once."""
        plan, criteria = self.plan, selected.selection
        key = plan.comparison_key(criteria)
        if self.store.summaries.saved(key, side):
            return
        self.report(f"{plan.name_of(side)} compared, {criteria.at.short}", 0, 1)
        runs = self._runs(selected)
        base, tuned = (self.store.runs.scores(runs[s]) for s in ("base", side))
        self.store.summaries.save(key, side, summarise(base, tuned))

    def _resolve(self, side: str, selected: Selected, chosen: list[Sample], question: str) -> None:
        """Score one question at every position."""
        plan = self.plan
        key = self._runs(selected)[side]
        if self.store.runs.positions(key, question) is not None:
            return
        if plan.spec.method.path == "exact":
            raise SelectionError("What an edge really does is not known token by token.", "Choose an estimate.")
        sample = next((sample for sample in chosen if sample.id == question), None)
        if sample is None:
            raise SelectionError(f"Question '{question}' is not among those that were scored.", "Choose another.")
        self.report(f"{plan.name_of(side)} token by token", SIDES.index(side), len(SIDES))
        attributor, _ = self._load(side, plan.numerics.scores)
        references = self._references(attributor, side, chosen)
        scores = attributor.score_positions(sample, plan.spec.method, references)
        self.store.runs.save_positions(key, question, scores)
