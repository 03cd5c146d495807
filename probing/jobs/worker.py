"""Doing the jobs: rollouts, selection, attribution, batch by batch into the store.

A worker is a process that shares the store with its owner. It leaves each finished batch in the spool and asks the
owner to take it in, so neither its own death nor the owner's loses a finished batch; whoever continues the job starts
at the first batch that is missing. One worker works at a time on a store, and one on a GPU whatever its store: locks
beside the store and in the folder for temporary files see to it.
"""

import importlib.metadata
import logging
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

import torch

from probing.attribution import Attributor
from probing.checkpoints import Checkpoint
from probing.errors import PersonError, RolloutError, SelectionError, StoreError
from probing.fitting import batch_by_batch, batch_that_fits, cache_bytes, free_bytes, is_out_of_memory, shape_of
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES, Plan, Spec
from probing.models import (
    DTYPES,
    answer,
    load_model,
    load_tokenizer,
    pick_device,
    pieces,
    tokenizer_note,
    use_threads_for,
    vocabulary_digest,
)
from probing.pairs import load_registry
from probing.questions import is_right, prompt_for
from probing.rollouts import Answer, Criteria, Selected, samples, select
from probing.sameness import weights_note
from probing.store import Store
from probing.store.sharing import try_lock
from probing.store.spool import AnswerBatch, ScoreBatch
from probing.summary import summarise

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


class Cancelled(Exception):  # noqa: N818 - a request, not an error
    """The job should not go on."""


_weights_note = lru_cache(maxsize=4)(weights_note)  # of equal models it reads every weight


@lru_cache(maxsize=4)
def _tokenizer_note(base: Checkpoint, tuned: Checkpoint) -> str | None:
    """What differs between the tokenizers of a pair."""
    return tokenizer_note(load_tokenizer(base), load_tokenizer(tuned))


def worker_lock(store: Store) -> IO[bytes] | None:
    """The right to be the one worker of a store, until closed; None while another has it."""
    return try_lock(store.path.with_name(store.path.name + ".worker"))


def gpu_lock(device: torch.device) -> Path:
    """The file whose lock a worker holds while it has models on a GPU."""
    return Path(tempfile.gettempdir()) / f"probing-{os.getuid()}-{torch.cuda.get_device_properties(device).uuid}.lock"


def wait_for(lock: Path, report: Progress, pause: float = 1.0) -> IO[bytes]:
    """Take a lock, which is held until the returned handle is closed or the process ends; says that it waits."""
    while (handle := try_lock(lock)) is None:
        report("waiting for the GPU", 0, 1)
        time.sleep(pause)
    return handle


@dataclass
class Worker:
    """Runs jobs of one store, one after the other; keeps the model it used last."""

    store: Store
    name: str = field(default_factory=lambda: f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
    progress: Progress = lambda stage, done, total: None
    _loaded: tuple[Any, ...] = ()
    _gpu: IO[bytes] | None = None

    def work(self, job_id: int | None = None) -> bool:
        """Do the next job in the queue (or the one named); False if there is none."""
        claimed = self.store.claim(self.name, job_id)
        if claimed is None:
            return False
        number, spec = claimed
        log.info("job %d: %s", number, spec)
        try:
            self._run(number, make_plan(Spec.from_json(spec), load_registry()))
        except Cancelled:
            log.info("job %d: stopped", number)
        except PersonError as error:
            log.warning("job %d: %s", number, error)
            self.store.close_job(number, "failed", str(error))
        except Exception as error:
            log.exception("job %d", number)
            reason = f"A fault in the program: {type(error).__name__}. See the log."
            if is_out_of_memory(error):
                reason = "The device ran out of memory with a single question. Try --dtype bfloat16, or shorter ones."
            self.store.close_job(number, "failed", reason)
        else:
            self.store.close_job(number, "done")
        return True

    def _run(self, job_id: int, plan: Plan) -> None:
        def report(stage: str, done: int, total: int) -> None:
            self.progress(stage, done, total)
            if not self.store.report(job_id, stage, done, total):
                raise Cancelled

        if note := _weights_note(*(plan.checkpoints[side] for side in SIDES)):
            log.info("job %d: %s", job_id, note)
        for side in SIDES:
            self._roll_out(plan, side, report)
        chosen = [(s, self._select(plan, s)) for s in plan.spec.selections()]
        possible = [(selection, selected) for selection, selected in chosen if selected is not None]
        for side in reversed(SIDES):  # the tuned model is the one loaded last
            for selection, selected in possible:
                self._attribute(plan, selection, selected, side, report)
        for selection, _ in possible:
            self._summarise(plan, selection, "tuned", report)
        for side in plan.steps:
            self._roll_out(plan, side, report)
            for selection, selected in possible:
                self._attribute(plan, selection, selected, side, report)
                self._summarise(plan, selection, side, report)
        if plan.spec.question is not None:
            for side in SIDES:
                for selection, selected in possible:
                    self._resolve(plan, selection, selected, side, plan.spec.question, report)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _roll_out(self, plan: Plan, side: str, report: Progress) -> None:
        key = plan.rollout_key(side)
        if self.store.rollout_finished(key):
            return
        if plan.spec.rollouts:
            raise RolloutError(
                "The answers that this job should use are not all in the store.",
                "Import their file again with 'python -m probing probe PAIR --rollouts FILE'.",
            )
        checkpoint = plan.checkpoints[side]
        settings = plan.rollout_settings(side)
        self.store.start_rollout(key, plan.name_of(side), checkpoint.identity, plan.question_set.name, settings,
                                 len(plan.questions))  # fmt: skip
        answered = self.store.answered(key)
        stage = f"{plan.name_of(side)} answers"
        started = time.monotonic()
        done = 0

        def do(batch: list[int]) -> None:
            nonlocal done
            say = partial(report, stage, done, len(plan.questions))
            say()
            done += len(batch)
            asked = [plan.questions[i] for i in batch]
            if all(question.id in answered for question in asked):
                return
            fed = [prompts[i].tokens for i in batch]
            given = answer(model, tokenizer, fed, plan.pair.max_new_tokens, plan.pair.stop, _now_and_then(say))
            answers = tuple(
                Answer(q.id, prompt, tokens, text, is_right(q, side != "base", text, plan.question_set.grading))
                for q, prompt, (tokens, text) in zip(asked, fed, given, strict=True)
            )
            texts, references = tuple(q.text for q in asked), tuple(q.reference for q in asked)
            parts = [tuple(pieces(tokenizer, tokens) for tokens in (a.prompt_tokens, a.tokens)) for a in answers]
            prompt_pieces, answer_pieces = zip(*parts, strict=True)
            shown = tuple(prompts[i].text for i in batch)
            self.store.spool.put(
                AnswerBatch(key, tuple(batch), texts, references, shown, answers, prompt_pieces, answer_pieces)
            )
            self.store.ingest()

        attributor, tokenizer = self._load(plan, checkpoint, plan.numerics.answers, report)
        model = attributor.model
        prompts = [prompt_for(question, plan.pair.template, tokenizer) for question in plan.questions]
        longest = max(len(prompt.tokens) for prompt in prompts) + plan.pair.max_new_tokens
        each = cache_bytes(shape_of(model.config, 0), longest, model.dtype.itemsize)
        at_once = batch_that_fits(free_bytes(model.device), each)
        order = range(len(plan.questions))
        batch_by_batch([list(order[i : i + at_once]) for i in range(0, len(order), at_once)], do)
        self.store.finish_rollout(key, self._provenance(), time.monotonic() - started)

    # -- selection -------------------------------------------------------------------------------------------------

    def _select(self, plan: Plan, selection: Criteria) -> Selected | None:
        """The selection of one cut; None where it cannot be made, for a reason that the store keeps."""
        rollouts = (plan.rollout_key("base"), plan.rollout_key("tuned"))
        selected, failure = None, None
        try:
            base, tuned = map(self.store.answers, rollouts)
            selected = select(base, tuned, selection)
        except SelectionError as error:
            failure = str(error)
        key, settings = plan.comparison_key(selection), plan.comparison_settings(selection)
        if not self.store.has_comparison(key):
            models = [plan.checkpoints[side] for side in SIDES]
            notes = (_weights_note(*models), selected.warning if selected else None, _tokenizer_note(*models))
            warning = " ".join(filter(None, notes)) or None
            self.store.save_comparison(
                key, plan.pair.name, plan.question_set.name, rollouts, settings, selected, warning, failure
            )
        return selected

    # -- scores ----------------------------------------------------------------------------------------------------

    def _attribute(self, plan: Plan, selection: Criteria, selected: Selected, side: str, report: Progress) -> None:
        key = plan.run_key(selection, side)
        if self.store.run_finished(key):
            return
        started = time.monotonic()
        chosen = samples(self.store.answers(plan.rollout_key(side)), selected)
        checkpoint = plan.checkpoints[side]
        attributor, tokenizer = self._load(plan, checkpoint, plan.numerics.scores, report)
        attributor.check(chosen)
        of_side = {"rollout": plan.rollout_key(side), "tokenizer": vocabulary_digest(tokenizer)}
        batch_size = self.store.start_run(
            key, plan.comparison_key(selection), side, plan.name_of(side), checkpoint.identity,
            attributor.graph, len(chosen), len(attributor.batches(chosen)[0]),
            plan.comparison_settings(selection) | of_side,
        )  # fmt: skip
        scored = self.store.scored(key)
        done = 0
        stage = f"{plan.name_of(side)} edges, α {selection.alpha:g}"

        def do(batch: list[int]) -> None:
            nonlocal done
            report(stage, done, len(chosen))
            done += len(batch)
            if all(chosen[i].id in scored for i in batch):
                return
            part = attributor.score([chosen[i] for i in batch])
            self.store.spool.put(ScoreBatch(key, part.ids, part.loss, part.edges))
            self.store.ingest()

        largest = batch_by_batch(attributor.batches(chosen, batch_size), do)
        batches = f"{batch_size}" if largest in (batch_size, len(chosen)) else f"{batch_size}, then {largest}"
        made = self._provenance() | {"batch size": batches}
        self.store.finish_run(key, made, time.monotonic() - started)

    def _summarise(self, plan: Plan, selection: Criteria, side: str, report: Progress) -> None:
        """Compare the base with `side`, and keep what pages show of it at once."""
        key = plan.comparison_key(selection)
        if self.store.has_summary(key, side):
            return
        report(f"{plan.name_of(side)} compared, α {selection.alpha:g}", 0, 1)
        base, tuned = (self.store.scores(plan.run_key(selection, s)) for s in ("base", side))
        self.store.save_summary(key, side, summarise(base, tuned))

    def _resolve(
        self, plan: Plan, selection: Criteria, selected: Selected, side: str, question: str, report: Progress
    ) -> None:
        """Score one question at every position."""
        key = plan.run_key(selection, side)
        if self.store.positions(key, question) is not None:
            return
        chosen = samples(self.store.answers(plan.rollout_key(side)), selected)
        sample = next((sample for sample in chosen if sample.id == question), None)
        if sample is None:
            raise SelectionError(f"Question '{question}' is not among those that were scored.", "Choose another.")
        report(f"{plan.name_of(side)} token by token", SIDES.index(side), len(SIDES))
        attributor, _ = self._load(plan, plan.checkpoints[side], plan.numerics.scores, report)
        scores = attributor.score_positions(sample)
        self.store.save_positions(key, question, scores)

    def _load(self, plan: Plan, checkpoint: Checkpoint, dtype: str, report: Progress) -> tuple[Attributor, Any]:
        how = plan.numerics
        wanted = (checkpoint.identity, how.device, dtype, how.attention, plan.spec.granularity)
        if not self._loaded or self._loaded[0] != wanted:
            self._loaded = ()
            device = pick_device(how.device)
            if device.type == "cuda" and self._gpu is None:
                self._gpu = wait_for(gpu_lock(device), report)
            model = load_model(checkpoint, device, DTYPES[dtype], how.attention)
            use_threads_for(model)
            self._loaded = (wanted, Attributor(model, plan.spec.granularity), load_tokenizer(checkpoint))
        return self._loaded[1], self._loaded[2]

    def _provenance(self) -> dict[str, Any]:
        """With what the last results were made; empty if all of them were there already."""
        if not self._loaded:
            return {}
        model = self._loaded[1].model
        return {
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # a plain text, or whoever unpickles it would have to load PyTorch
            "transformers": importlib.metadata.version("transformers"),
        }


def _now_and_then(do: Callable[[], None], pause: float = 2.0) -> Callable[[], None]:
    """`do`, but not when called within `pause` seconds of the last time."""
    last = time.monotonic()

    def perhaps() -> None:
        nonlocal last
        if time.monotonic() > last + pause:
            do()
            last = time.monotonic()

    return perhaps


def serve(store: Store, parent: int, idle: float = 60.0, pause: float = 0.5) -> None:
    """Work on the queue until the `parent` process is gone, or nothing has been queued for `idle` seconds.

    A job under way is finished first.
    """
    worker = Worker(store)
    last = time.monotonic()

    def is_wanted() -> bool:
        return os.getppid() == parent and time.monotonic() < last + idle

    while is_wanted():
        store.greet(worker.name)
        lock = worker_lock(store)
        if lock is not None:
            with lock:
                while is_wanted() and worker.work():
                    last = time.monotonic()
        time.sleep(pause)


def do_all(store: Store, specs: Iterable[Spec], progress: Progress) -> None:
    """Do several jobs, one after the other.

    Raises:
        StoreError: one of them failed.
    """
    for spec in specs:
        job = follow(store, store.submit(spec.as_json()), progress)
        if job["status"] != "done":
            raise StoreError(job["message"] or f"The job was {job['status']}.")


def follow(store: Store, job_id: int, progress: Progress, pause: float = 0.2) -> dict[str, Any]:
    """See a job to its end: do it here if no other worker is at work, else watch; returns its final row."""
    worker = Worker(store, progress=progress)
    while (job := store.job(job_id))["status"] in ("queued", "running"):
        lock = worker_lock(store)
        if lock is not None:
            with lock:
                worker.work(job_id)
        else:
            progress(job["stage"], job["done"], job["total"])
            time.sleep(pause)
    return job
