"""What a job would do, and what it would take: said before anything is loaded or downloaded but configs.

Where a config cannot be read (no network, a gated model), the shape that the registry states stands in; where nothing
is known, that is said. Times are upper bounds: every answer is taken to reach its longest length.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from probing.checkpoints import Checkpoint
from probing.errors import ModelError, PersonError, SelectionError
from probing.fitting import (
    ANSWERING,
    RUNNING,
    SCORING,
    SCORING_HEADS,
    Speed,
    Work,
    activation_bytes,
    answering,
    batch_that_fits,
    cache_bytes,
    free_bytes,
    largest_graph,
    measure_speed,
    running,
    scoring,
)
from probing.jobs.numerics import numerics_of, scoring_dtype
from probing.jobs.plan import SIDES, Numerics, Plan, Spec, evaluation_key, find_side
from probing.jobs.tasks import Task
from probing.models import DTYPES, describe, load_tokenizer, pick_device, tokenizer_note
from probing.pairs import Pair, QuestionSet, Registry, Shape
from probing.questions import TEMPLATES, Question, load_questions, prompt_for
from probing.rollouts import Answer, Criteria, Selected, select
from probing.sameness import weights_note
from probing.store import Store
from probing.words import duration

CHARACTERS = 2.5
"""Letters in a token, at least, where the text is mathematics in English."""

ASSUMED_PROMPT = 256
"""Tokens of a long prompt where the questions cannot be read."""


@dataclass(frozen=True)
class Model:
    """What is known of one side's model without its weights."""

    checkpoint: Checkpoint | None
    shape: Shape | None
    note: str


@dataclass(frozen=True)
class Part:
    """A part of a job laid out: what it takes in all."""

    batch: int
    """Samples, or answers, at once."""
    held: int
    """Bytes that a batch takes beside the weights."""
    work: Work
    factors: Work
    speed: Speed

    @property
    def seconds(self) -> float:
        """At most."""
        return self.work.seconds(self.speed, self.factors)


@dataclass(frozen=True)
class Forecast:
    """A job laid out: `lines` says it to a person."""

    spec: Spec
    pair: Pair
    question_set: QuestionSet
    questions: list[Question]
    """Empty where the set cannot be read."""
    questions_note: str
    models: dict[str, Model]
    numerics: Numerics
    speed: Speed
    """As models are scored."""
    answers_speed: Speed
    """As they answer."""
    free: int
    """Bytes that the device has left."""
    store: Store | None
    prompt: int
    """Tokens of a long prompt: of all but one in twenty."""

    @cached_property
    def plan(self) -> Plan | None:
        """The plan with its keys, if all that goes into them is known."""
        found = {side: model.checkpoint for side, model in self.models.items() if model.checkpoint is not None}
        questions = [] if self.spec.rollouts else self.questions  # answers made elsewhere bring their own
        if len(found) < len(SIDES) or not (questions or self.spec.rollouts):
            return None
        return Plan(self.spec, self.pair, self.question_set, questions, found, self.numerics)

    @property
    def note(self) -> str | None:
        """A sentence where both models are here and are the same."""
        base, tuned = (self.models[side].checkpoint for side in SIDES)
        return weights_note(base, tuned) if base is not None and tuned is not None else None

    @property
    def tokenizers(self) -> str | None:
        """Whether both models have the same tokenizer, where both can be read."""
        found = [model.checkpoint for model in self.models.values() if model.checkpoint is not None]
        if len(found) < len(SIDES):
            return None
        try:
            return tokenizer_note(*map(load_tokenizer, found)) or "the same for both models"
        except ModelError:
            return None

    @property
    def asked(self) -> int | None:
        """How many questions there are."""
        return len(self.questions) or self.question_set.size

    def lines(self) -> Iterator[str]:
        """What would be done, a line each."""
        pair, spec = self.pair, self.spec
        yield f"{pair.name}: {pair.arrow} ({pair.algorithm})"
        for side, model in self.models.items():
            yield f"{side:10} {self._model(model)}"
        if note := self.note:
            yield f"note       {note}"
        if said := self.tokenizers:
            yield f"tokenizers {said}"
        known = f"{self.asked:,}" if self.asked else "an unknown number of"
        yield (
            f"questions  {self.question_set.title}: {known} questions, answers of at most {pair.max_new_tokens:,} "
            f"tokens, graded by {self.question_set.grading}{self.questions_note}"
        )
        how = self.numerics
        yield (
            f"device     {how.device}, {size(self.free)} free, {self.speed.operations / 1e9:,.0f} GFLOP/s "
            f"and {self.speed.bytes / 1e9:,.0f} GB/s as {how.scores}, measured just now"
        )
        if how.answers != how.scores:
            yield f"           models answer in {how.answers}, and are scored in {how.scores}"
        if spec.method.words:
            yield f"method     {', '.join(spec.method.words)}"
        total = 0.0
        for side in SIDES:
            line, seconds = self._answers(side)
            total += seconds
            yield f"answers    {side}: {line}"
        if len(spec.cuts) > 1:
            yield f"           one set of answers serves all {len(spec.cuts)} cuts"
        for selection in spec.selections():
            for side in SIDES:
                line, seconds = self._scores(selection, side)
                total += seconds
                yield f"{selection.at.short:<10} {side}: {line}"
        for task in spec.also:
            for of in [None] if task.of_pair else spec.selections():
                line, seconds = self._evaluation(task, of)
                total += seconds
                cut = f", {of.at.short}" if of is not None else ""
                yield f"also       {task.words}{cut}: {line}"
        yield f"in all     at most {duration(total)}, if every answer were as long as it may be"

    def _model(self, model: Model) -> str:
        if model.shape is None:
            return f"of unknown size{model.note}"
        edges = largest_graph(model.shape, self.spec.method.granularity).size
        weights = model.shape.parameters * self._item(self.numerics.scores)
        short = "" if weights < self.free else ", MORE THAN IS FREE"
        return (
            f"{count(model.shape.parameters)} parameters, {model.shape.layers} layers, {edges:,} edges at most, "
            f"{size(weights)} of weights{short}{model.note}"
        )

    def _item(self, dtype: str) -> int:
        return DTYPES[dtype].itemsize

    def _room(self, shape: Shape, item: int) -> int:
        """Bytes that are left beside a model's weights, which take `item` bytes each."""
        return max(0, self.free - shape.parameters * item)

    def _answers(self, side: str) -> tuple[str, float]:
        key, done = "", False
        if self.plan is not None:
            key = f" [{self.plan.rollout_key(side)}]"
            done = self.store is not None and self.store.rollouts.finished(self.plan.rollout_key(side))
        if done:
            return f"already computed{key}", 0.0
        shape = self.models[side].shape
        if self.plan is not None and (url := self.plan.server(side)) is not None:
            return f"to be made by the server at {url}, in its own time and numerics, and a sample checked{key}", 0.0
        if shape is None or not self.asked:
            return f"to be made{key}", 0.0
        part = self.answers(shape, self.asked, self.numerics.answers)
        told = f"to be made in batches of {part.batch}, {size(part.held)}, at most {duration(part.seconds)}{key}"
        return told, part.seconds

    def answers(self, shape: Shape, answers: int, dtype: str, models: int = 1) -> Part:
        """So many answers of a model, where so many `models` of that dtype are in memory."""
        item, longest = self._item(dtype), self.pair.max_new_tokens
        each = cache_bytes(shape, self.prompt + longest, item)
        batch = batch_that_fits(self._room(shape, models * item), each)
        work = answering(shape, answers, self.prompt, longest, batch, item)
        speed = self.answers_speed if dtype == self.numerics.answers else self.speed
        return Part(batch, batch * each, work, ANSWERING, speed)

    def scores(self, shape: Shape, selection: Criteria) -> Part:
        """The scores of a model's samples at a cut, or what each of its edges really does to them."""
        method, positions, item = self.spec.method, self.positions(selection), self._item(self.numerics.scores)
        answer, by_heads = positions - self.prompt, method.granularity == "heads"
        batch, held = self._scored_at_once(shape, positions)
        passes = method.passes(largest_graph(shape, method.granularity).size)
        if method.path == "exact":  # which are forward alone
            work = running(shape, 2 * passes * selection.n, positions, batch, item)
            return Part(batch, held, work, RUNNING, self.speed)
        work = scoring(shape, selection.n, positions, answer, batch, item, by_heads)
        factors = SCORING_HEADS if by_heads else SCORING
        return Part(batch, held, work.times(passes), factors, self.speed)

    def _scored_at_once(self, shape: Shape, positions: int) -> tuple[int, int]:
        """How many samples are run at once, and the bytes that they take."""
        item, by_heads = self._item(self.numerics.scores), self.spec.method.granularity == "heads"
        each = activation_bytes(shape, positions, positions - self.prompt, item, by_heads=by_heads)
        batch = batch_that_fits(self._room(shape, item), each)
        return batch, batch * each

    def _runs(self, selection: Criteria) -> dict[str, str]:
        """The keys of both sides' scores, which nobody knows before there are answers to select from."""
        if self.plan is None or self.store is None:
            return {}
        linked = self.store.comparisons.runs(self.plan.comparison_key(selection))
        selected = None if set(SIDES) <= linked.keys() else self._selected(selection)
        return (self.plan.run_keys(selected) if selected is not None else {}) | linked

    def _selected(self, selection: Criteria) -> Selected | None:
        """What is selected of the answers, if they are all there and something is."""
        if self._answered is None:
            return None
        try:
            return select(*self._answered, selection)
        except SelectionError:
            return None

    @cached_property
    def _answered(self) -> tuple[list[Answer], list[Answer]] | None:
        """Both sides' answers, if they are all there."""
        if self.plan is None or self.store is None:
            return None
        base, tuned = (self.plan.rollout_key(side) for side in SIDES)
        if not (self.store.rollouts.finished(base) and self.store.rollouts.finished(tuned)):
            return None
        return self.store.rollouts.answers(base), self.store.rollouts.answers(tuned)

    def _scores(self, selection: Criteria, side: str) -> tuple[str, float]:
        run = self._runs(selection).get(side)
        known = run or (self.plan and self.plan.comparison_key(selection))
        key = f" [{known}]" if known else ""
        if run is not None and self.store is not None and self.store.runs.finished(run):
            return f"already computed{key}", 0.0
        shape = self.models[side].shape
        if shape is None:
            return f"{selection.n} questions to be scored{key}", 0.0
        part, edges = self.scores(shape, selection), largest_graph(shape, self.spec.method.granularity).size
        done = f"run without each of {edges:,} edges" if self.spec.method.path == "exact" else "scored"
        return (
            f"{selection.n} questions of at most {self.positions(selection):,} tokens to be {done} in batches of "
            f"{part.batch}, {size(part.held)}, at most {duration(part.seconds)}{key}"
        ), part.seconds

    def positions(self, selection: Criteria | None) -> int:
        """Tokens of a long sample at a cut, or of a long answer as a whole."""
        longest = self.pair.max_new_tokens
        return self.prompt + (min(longest, selection.at.tokens_of(longest)) if selection is not None else longest)

    def _evaluation(self, task: Task, selection: Criteria | None) -> tuple[str, float]:
        key = self._evaluation_key(task, selection)
        words = f" [{key}]" if key else ""
        if key is not None and self.store is not None and self.store.evaluations.finished(key):
            return f"already computed{words}", 0.0
        shape = self.models[task.of_side or "base"].shape
        questions = self.asked if selection is None else selection.n
        if shape is None or not questions:
            return f"to be done{words}", 0.0
        cost = task.cost(largest_graph(shape, self.spec.method.granularity), questions)
        positions, parts, seconds = self.positions(selection), [], 0.0
        if cost.passes:
            parts.append(f"{cost.passes:,.0f} passes over at most {positions:,} tokens")
            batch, _ = self._scored_at_once(shape, positions)
            work = running(shape, cost.passes, positions, batch, self._item(self.numerics.scores))
            seconds += work.seconds(self.speed, RUNNING)
        if cost.answers:
            parts.append(f"{cost.answers:,.0f} answers")
            models = 2 if task.together else 1
            seconds += self.answers(shape, int(cost.answers), self.numerics.scores, models).seconds
        if task.together:
            weights = 2 * shape.parameters * self._item(self.numerics.scores)
            short = "" if weights < self.free else ", MORE THAN IS FREE"
            parts.append(f"both models at once, {size(weights)} of weights{short}")
        return f"{', '.join(parts)}, at most {duration(seconds)}{words}", seconds

    def _evaluation_key(self, task: Task, selection: Criteria | None) -> str | None:
        """Of what a task would measure; of a comparison, nobody knows it before there are answers."""
        if self.plan is None:
            return None
        if selection is None:
            return evaluation_key(task, self.plan.case())
        selected = self._selected(selection)
        return evaluation_key(task, self.plan.case(selected, self._runs(selection))) if selected is not None else None


def forecast(spec: Spec, registry: Registry, store: Store | None) -> Forecast:
    """Lay out a job.

    Raises:
        PersonError: an unknown pair or question set, a file of questions that is wrong, a template that the tokenizer
            cannot fill, or no such device.
    """
    pair, question_set = registry.pair(spec.pair), registry.question_set(spec.questions)
    models = {side: _look_at(spec, pair, side) for side in SIDES}
    numerics = _numerics(spec, list(models.values()))
    questions, note = [], ""
    try:
        questions = load_questions(question_set)
    except PersonError as error:
        if question_set.file is not None:
            raise
        note = f" ({error.what})"
    device = pick_device(spec.device)
    speed, answers_speed = (
        _speed(device, DTYPES[dtype], int(time.monotonic() / 60)) for dtype in (numerics.scores, numerics.answers)
    )
    prompt = _long_prompt(questions, pair, models["base"].checkpoint)
    free = free_bytes(device)
    return Forecast(spec, pair, question_set, questions, note, models, numerics, speed, answers_speed, free, store,
                    prompt)  # fmt: skip


@lru_cache(maxsize=4)
def _speed(device: torch.device, dtype: torch.dtype, minute: int) -> Speed:
    """A device's speed, measured once a minute: whoever compares settings need not wait for it each time."""
    return measure_speed(device, dtype)


def _numerics(spec: Spec, models: list[Model]) -> Numerics:
    """In what the models would run; where their configs cannot be read, they are taken for bfloat16."""
    found = [model.checkpoint for model in models if model.checkpoint is not None]
    if len(found) == len(models):
        return numerics_of(spec.device, spec.dtype, spec.attention, found)
    device, dtype, scores = pick_device(spec.device).type, spec.dtype, spec.dtype
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
        known = [model.shape.parameters for model in models if model.shape is not None]
        scores = scoring_dtype(dtype, known) if device == "cuda" and known else dtype
    return Numerics(device, dtype, scores, spec.attention)


def _long_prompt(questions: list[Question], pair: Pair, checkpoint: Checkpoint | None) -> int:
    """Tokens of the prompt that all but one in twenty do not exceed; guessed where the tokenizer is not at hand."""
    if not questions:
        return ASSUMED_PROMPT
    try:
        tokenizer = load_tokenizer(checkpoint) if checkpoint is not None else None
    except ModelError:
        tokenizer = None
    if tokenizer is not None:
        lengths = [len(prompt_for(question, pair.template, tokenizer).tokens) for question in questions]
    else:
        around = len(TEMPLATES.get(pair.template, pair.template))
        lengths = [int((len(question.text) + around) / CHARACTERS) + 1 for question in questions]
    return sorted(lengths)[int(0.95 * (len(lengths) - 1))]


def _look_at(spec: Spec, pair: Pair, side: str) -> Model:
    try:
        checkpoint = find_side(spec, pair, side, weights=False)
        return Model(checkpoint, describe(checkpoint), f" ({checkpoint.identity})")
    except PersonError as error:
        return Model(None, pair.shape, f" ({error.what}{' Its published shape is taken.' if pair.shape else ''})")


def count(parameters: int) -> str:
    """A number of parameters in words."""
    if parameters >= 1e9:
        return f"{parameters / 1e9:.2f} billion"
    return f"{parameters / 1e6:.3g} million"


def size(number: float) -> str:
    """Bytes in the unit that suits them."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"
