"""What scoring takes: time against a bare forward and backward pass, memory against the estimate, and less of it."""

import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from probing.attribution import Attributor
from probing.fitting import activation_bytes, free_bytes, shape_of
from probing.method import Method
from probing.scoring import attribute
from probing.sequences import Sample
from tests.cuda.conftest import Note
from tests.cuda.here import DEVICE, IS_GPU, WANTED, finish, only_on_a_gpu

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(WANTED == "pretend", reason="a pretended device costs nothing")]

ROOM = 1.4
"""How many times its weights a model needs on the device, with all that is measured beside them."""

OVER = 3.0
"""How many times a peak its estimate may be; it must not be less than once."""

SMALL = AutoConfig.for_model(
    "llama", vocab_size=2000, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6,
    num_key_value_heads=2,
)  # fmt: skip
"""Of no other use than to try all this without a GPU."""

OF_135M = AutoConfig.for_model(
    "llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=True,
)  # fmt: skip
"""SmolLM2-135M's shape."""

OF_7B = AutoConfig.for_model(
    "qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
    num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False,
)  # fmt: skip
"""Qwen2.5-7B's shape."""


@dataclass(frozen=True)
class Case:
    """What is run, and the most times a bare pass that scoring may take."""

    name: str
    config: PretrainedConfig
    dtype: torch.dtype
    samples: int
    positions: int
    answer: int
    most: float

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"{self.name}, {kind}, {self.samples} × {self.positions} tokens"

    def made(self) -> list[Sample]:
        """Random tokens, the same each time."""
        tokens = torch.randint(
            self.config.vocab_size, (self.samples, self.positions), generator=torch.Generator().manual_seed(1)
        )
        start = self.positions - self.answer
        return [Sample(str(i), tuple(row), start, self.answer) for i, row in enumerate(tokens.tolist())]


F32, BF16 = torch.float32, torch.bfloat16
CASES = [
    Case("135M", OF_135M, F32, 1, 77, 17, 4.0),  # on a GPU both wait for Python here, and hooks are Python
    Case("135M", OF_135M, F32, 16, 512, 128, 2.0),
    Case("7B", OF_7B, BF16, 1, 512, 128, 2.0),
    Case("7B", OF_7B, BF16, 4, 512, 128, 2.0),
    Case("7B", OF_7B, F32, 2, 512, 128, 2.0),
] if IS_GPU else [Case("small", SMALL, F32, 2, 120, 40, 3.0)]  # fmt: skip


@contextmanager
def model_of(config: PretrainedConfig, dtype: torch.dtype) -> Iterator[PreTrainedModel]:
    """Random weights, made where they are to be; skips where the device has no room for them."""
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    needed, free = ROOM * parameters * dtype.itemsize, free_bytes(DEVICE)
    if needed > free:
        pytest.skip(f"{parameters / 1e9:.1f} billion weights need {needed / 1e9:.0f} GB, and {free / 1e9:.0f} are free")
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    try:
        yield model.eval().requires_grad_(False)
    finally:
        del model
        gc.collect()
        torch.cuda.empty_cache()


def bare(model: PreTrainedModel, samples: list[Sample]) -> Callable[[], None]:
    """The loss of the answers, and its gradient at the embedding: the least that any gradient method does."""
    tokens = torch.tensor([sample.fed for sample in samples], device=DEVICE)
    targets = torch.tensor([sample.scored for sample in samples], device=DEVICE)

    def run() -> None:
        embedded = model.get_input_embeddings()(tokens).requires_grad_()
        logits = model(inputs_embeds=embedded, use_cache=False, logits_to_keep=targets.shape[1]).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()).backward()

    return run


def peak_of(run: Callable[[], object]) -> int:
    """Bytes of tensors that are there at once while something runs, besides those that were before."""
    gc.collect()
    if IS_GPU:
        finish()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        finish()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        run()
    now = peak = 0
    for event in told.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scoring_takes_little_more_than_a_bare_pass_and_no_more_memory_than_was_estimated(
    case: Case, note: Note
) -> None:
    samples = case.made()
    with model_of(case.config, case.dtype) as model:
        attributor = Attributor(model)
        runs = {"bare": bare(model, samples), "ours": lambda: attributor.score(samples)}
        runs |= {path: lambda path=path: attributor.score(samples, Method(path=path)) for path in ("norm-exact",)}
        attributor.score([Sample("s", samples[0].input_ids[:4], 2, 2)])  # what the device's libraries make for good
        peaks = {name: peak_of(run) for name, run in runs.items()}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(6):
            for name, run in runs.items():
                finish()
                started = time.perf_counter()
                run()
                finish()
                if repeat:  # the first is a warm-up
                    seconds[name].append(time.perf_counter() - started)
        median = {name: statistics.median(values) for name, values in seconds.items()}
        ratio, exact = median["ours"] / median["bare"], median["norm-exact"] / median["bare"]
        note(
            "time", str(case), bare_seconds=median["bare"], seconds=median["ours"], ratio=ratio, norm_exact=exact,
            allowed=case.most,
        )  # fmt: skip
        shape = shape_of(model.config, 0)
        estimate = case.samples * activation_bytes(shape, case.positions - 1, case.answer, case.dtype.itemsize)
        note(
            "memory", str(case), bare_mb=peaks["bare"] / 1e6, peak_mb=peaks["ours"] / 1e6, estimate_mb=estimate / 1e6,
            over=estimate / peaks["ours"], allowed=OVER,
        )  # fmt: skip
    assert ratio < case.most
    assert 1 < estimate / peaks["ours"] < OVER


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """Leave so many bytes more than are in use."""
    gc.collect()
    if IS_GPU:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_batch_that_the_memory_does_not_hold_is_halved_and_its_scores_are_the_same(note: Note) -> None:
    case = Case("small", SMALL, F32, 32, 200, 100, 0)
    samples = case.made()
    with model_of(case.config, case.dtype) as model:
        expected = attribute(Attributor(model), samples, batch_size=4).edges
        attributor = Attributor(model)
        needed = peak_of(lambda: Attributor(model).score(samples))
        done: list[int] = []
        with at_most(int(0.6 * needed)):
            found = attribute(attributor, samples, batch_size=len(samples), progress=done.append).edges
    largest = int(np.diff([0, *done]).max())
    note("memory runs out", f"a batch of {len(samples)} with 0.6 of what it takes", largest=largest)
    assert largest < len(samples)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@only_on_a_gpu
def test_memory_that_pytorch_keeps_for_later_is_free() -> None:
    before = free_bytes(DEVICE)
    held = torch.empty(2**28, dtype=torch.uint8, device=DEVICE)
    assert free_bytes(DEVICE) <= before - 2**28 + 2**22
    del held
    assert abs(free_bytes(DEVICE) - before) < 2**26


@only_on_a_gpu
def test_a_model_that_does_not_fit_is_told_from_one_that_does() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2 * torch.cuda.get_device_properties(DEVICE).total_memory, dtype=torch.uint8, device=DEVICE)
