"""A callback that scores a model every N steps while a trainer of transformers or TRL trains it.

    trainer = GRPOTrainer(..., callbacks=[CircuitCallback("My GRPO run", "held-out.jsonl", every=50)])

Each scored step is saved, and becomes the tuned model of a pair of one's own, which the dashboard shows at once: its
Timeline fills while the model trains. Everything goes through the jobs that the dashboard and the command line use, on
the weights as they were saved, so a step's identity is the digest of what was scored.

A comparison usually selects questions by what both models answer, which changes with every step. Here it is of all
questions, whoever is right and however long the answers are, and scores one text for all steps: the base's answers (or
the reference answers), cut after so many tokens. So the steps can be held against each other, the base is answered and
scored once, and what a later step needs of earlier ones is there already.

Only the main process scores. What goes wrong later than at the start is logged, and training goes on. `transformers`
is imported here, and TRL never.
"""

import json
import logging
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from transformers import TrainerCallback

from probing import own_pairs
from probing.cuts import Cut
from probing.errors import ModelError, PersonError, QuestionError, in_short
from probing.jobs.numerics import make_plan
from probing.jobs.places import place_of
from probing.jobs.plan import Plan, Spec, side_of_step
from probing.jobs.progress import silent
from probing.jobs.worker import do_all
from probing.method import Method
from probing.pairs import ADAPTER, load_registry
from probing.questions import load_questions
from probing.rollouts import EVERY
from probing.store import Store, open_store
from probing.store.records import ComparisonRow

log = logging.getLogger(__name__)

FOLDER = "circuits"
"""Where in a trainer's `output_dir` scored steps are saved."""

TEXTS = ("shared", "shared-reference")
"""The texts that do not change with the step."""

_KINDS = {"GRPO": "online RL", "RLOO": "online RL", "PPO": "online RL", "DPO": "preferences", "SFT": "supervised"}


class CircuitCallback(TrainerCallback):
    """Scores the start of a training, every so many steps of it, and its end, into the store of `PROBING_STORE`.

    `title` names the pair; a training that starts again under it takes its place. `questions` is a registered set by
    its name, or a file of JSON lines with `grading`, of which all are asked at every step: some fifty are enough.
    `template`, `max_new_tokens` and `stop` are those of a pair, `tokens` how much of each text is scored and `method`
    how. `base` names the model that the training starts from, unless it knows that itself.

    With `queue`, steps are left to a worker on the same store (`python -m probing worker`, or a dashboard), and
    training only saves them. Weights of scored steps are let go but for the latest, unless `keep` or `queue` says else.
    """

    def __init__(
        self,
        title: str,
        questions: str | Path,
        every: int,
        *,
        grading: str | None = None,
        template: str = "plain",
        max_new_tokens: int = 32,
        stop: str | None = None,
        tokens: int = 16,
        method: Method = Method(text="shared"),  # noqa: B008 - frozen
        base: str | None = None,
        device: str = "auto",
        keep: bool = False,
        queue: bool = False,
    ) -> None:
        if every < 1:
            raise ModelError(f"A step cannot be scored every {every} steps.", "Give a whole number from 1.")
        if method.text not in TEXTS:
            raise ModelError(
                "A training is scored on one text for all its steps.", f"Texts of the method: {', '.join(TEXTS)}."
            )
        self.name = own_pairs.named(title)
        self.seconds: dict[int, float] = {}
        """How long training waited for each step."""
        self._pair: dict[str, Any] = {"title": title, "template": template, "max_new_tokens": max_new_tokens}
        self._pair |= {"stop": stop} if stop else {}
        self._questions, self._grading = questions, grading
        self._every, self._cut, self._method, self._base = every, Cut(tokens, "tokens"), method, base
        self._device, self._keep, self._queue = device, keep or queue, queue
        self._asked: dict[str, Any] | None = None
        self._store: Store | None = None
        self._queued: int | None = None
        """The job that was left to a worker last."""
        self._began = 0.0

    # -- what the trainer calls ------------------------------------------------------------------------------------

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **kwargs: Any
    ) -> None:
        """Refuse what cannot be scored, and score what the training starts from.

        Raises:
            PersonError: the questions, the base, the model or the store cannot be used.
        """
        if _is_spread(args, model):
            raise ModelError(
                "The weights of this training are spread over several processes (FSDP, or DeepSpeed's stage 3), and "
                "the callback saves them from one.",
                "Train without the callback, and name the folder of checkpoints in pairs.toml afterwards.",
            )
        if not state.is_world_process_zero:
            return
        self._began, self.seconds, self._queued = time.monotonic(), {}, None
        self._folder = Path(args.output_dir).absolute() / FOLDER
        self._describe(args, model)
        for step, folder in self._saved().items():
            if step > state.global_step:  # of a training that this one takes the place of
                shutil.rmtree(folder)
        self._store = open_store()
        try:
            self._score(state.global_step, model, processing_class)
        except BaseException:
            self._close()
            raise

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **kwargs: Any
    ) -> None:
        """Score a step whose turn it is."""
        if self._store is not None and state.global_step % self._every == 0:
            self._try(state.global_step, model, processing_class)

    def on_train_end(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **kwargs: Any
    ) -> None:
        """Score what has come of it, and leave one comparison."""
        if self._store is None:
            return
        if state.global_step not in self.seconds:
            self._try(state.global_step, model, processing_class)
        with _logged("The last steps may have to be computed from the Timeline page"):
            self._hand_over()
        with _logged("The comparisons of earlier steps stay"):
            if self._queued is None:
                self._store.comparisons.forget([row.comparison_key for row in self._made()[1:]])
        waited, whole = sum(self.seconds.values()), time.monotonic() - self._began
        log.info("%d steps scored in %.1f s, %.0f %% of the training", len(self.seconds), waited, 100 * waited / whole)
        self._close()

    def _close(self) -> None:
        assert self._store is not None
        self._store.close()
        self._store = None

    # -- one step --------------------------------------------------------------------------------------------------

    def _try(self, step: int, model: Any, tokenizer: Any) -> None:
        with _logged(f"Step {step} is not scored, and training goes on"):
            self._score(step, model, tokenizer)

    def _score(self, step: int, model: Any, tokenizer: Any) -> None:
        """Save a step, make it the tuned model of the pair, and have it compared."""
        started = time.monotonic()
        try:
            with _undisturbed():
                self._save(step, model, tokenizer)
                own_pairs.add({**self._pair, "tuned": str(self._at(step))}, self._asked, instead=True)
                self._compare(step)
        finally:
            self.seconds[step] = time.monotonic() - started

    def _compare(self, step: int) -> None:
        assert self._store is not None
        store, plan = self._store, self._plan()
        if self._queue or _is_taken(store):
            self._queued = store.queue.submit(plan.spec.as_json())
            return
        key, made = plan.comparison_key(plan.spec.selections()[0]), self._made(plan)
        if made and made[0].comparison_key != key:
            store.comparisons.carry(key, made[0].comparison_key, side_of_step(step))
        do_all(store, [plan.spec], silent)
        # Whoever looks at the one before goes on doing so until the next.
        store.comparisons.forget([row.comparison_key for row in made[1:] if row.comparison_key != key])
        if not self._keep:
            scored = set(store.comparisons.steps(key)["side"])
            for other, folder in self._saved().items():
                if other != step and side_of_step(other) in scored:
                    shutil.rmtree(folder)

    def _hand_over(self) -> None:
        """See to it that a worker does the last steps too: a job that runs knows those that were there when it began,
        so another goes on where it is."""
        assert self._store is not None
        queue = self._store.queue
        if self._queued is not None and queue.job(self._queued).status == "running":
            queue.end(self._queued, "cancelled")
            queue.submit(self._plan().spec.as_json())

    def _plan(self) -> Plan:
        registry = load_registry()
        pair = registry.pair(self.name)
        questions = pair.questions[0]
        n = len(load_questions(registry.question_set(questions)))
        selection = replace(EVERY, at=self._cut, n=n)
        spec = Spec(
            self.name, questions, (self._cut,), selection, device=self._device, timeline=True, method=self._method
        )
        return make_plan(spec, registry)

    def _made(self, plan: Plan | None = None) -> list[ComparisonRow]:
        """The comparisons of this training's base with its steps so far, the newest first."""
        assert self._store is not None
        plan = plan or self._plan()
        wanted = plan.comparison_settings(plan.spec.selections()[0])
        same = [name for name in wanted if name not in ("rollouts", "request")]
        rows = map(ComparisonRow.of, self._store.comparisons.table().to_dict("records"))
        return [
            row
            for row in rows
            if row.ready and row.pair == self.name and row.base_rollout == plan.rollout_key("base")
            and all(row.settings.get(name) == wanted[name] for name in same)
        ]  # fmt: skip

    # -- the pair, and the files of its steps ----------------------------------------------------------------------

    def _describe(self, args: Any, model: Any) -> None:
        """Find out what the pair is made of."""
        if self._base is None:
            self._base = getattr(_unwrapped(model), "name_or_path", "") or ""
        if not self._base:
            raise ModelError("It is not known which model this training starts from.", "Name it: base='…'.")
        algorithm = type(args).__name__.removesuffix("Config")
        algorithm = "training" if algorithm == "TrainingArguments" else algorithm
        self._pair |= {"algorithm": algorithm, "kind": _KINDS.get(algorithm, "tuning"), "base": _absolute(self._base)}
        self._pair["checkpoints"] = str(self._folder)
        if self._questions in load_registry().questions and self._grading is None:
            self._pair["questions"] = [self._questions]
            return
        if self._grading is None:
            raise QuestionError(
                f"There is no question set '{self._questions}', and of a file it must be known how to grade.",
                "Name a registered set, or give grading too, such as 'last-number'.",
            )
        file = str(Path(self._questions).absolute())
        self._asked = {"title": f"{self._pair['title']}: questions", "file": file, "grading": self._grading}

    def _at(self, step: int) -> Path:
        return self._folder / side_of_step(step)

    def _saved(self) -> dict[int, Path]:
        """The folders of steps, by step."""
        return {int(folder.name.rpartition("-")[2]): folder for folder in sorted(self._folder.glob("step-*[0-9]"))}

    def _save(self, step: int, model: Any, tokenizer: Any) -> None:
        """Write a step's weights and tokenizer, complete or not at all."""
        part = self._folder / "unfinished"
        shutil.rmtree(part, ignore_errors=True)
        try:
            _unwrapped(model).save_pretrained(part)
            tokenizer.save_pretrained(part)
            if (part / ADAPTER).exists():
                told = json.loads((part / ADAPTER).read_text(encoding="utf-8"))
                told["base_model_name_or_path"] = _absolute(told["base_model_name_or_path"])
                (part / ADAPTER).write_text(json.dumps(told, indent=2), encoding="utf-8")
            shutil.rmtree(self._at(step), ignore_errors=True)
            part.rename(self._at(step))
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _is_taken(store: Store) -> bool:
    """Whether others are at work on a store, so that training would wait for nobody knows how long."""
    place = place_of(store)
    if place is not None:
        place.close()
    return place is None


def _unwrapped(model: Any) -> Any:
    """The model inside what trains it; an adapter keeps its own wrapper, and is saved alone."""
    return extract_model_from_parallel(model, keep_torch_compile=False)


def _is_spread(args: Any, model: Any) -> bool:
    """Whether no process has all weights."""
    parts = (type(p.data).__name__ == "DTensor" or not p.numel() for p in model.parameters())
    return bool(getattr(args, "fsdp", None)) or any(parts)


def _absolute(name: str) -> str:
    """A path as others find it, from wherever; a hub id as it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave random numbers and threads to the training as they were."""
    threads, drawn, drawn_by_numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Say in a sentence what went wrong, and go on."""
    try:
        yield
    except PersonError as error:
        log.warning("%s: %s", what, error)
    except OSError as error:
        log.warning("%s: %s.", what, in_short(error))
    except Exception:
        log.exception("%s: a fault in the program", what)
