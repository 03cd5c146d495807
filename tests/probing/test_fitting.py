"""Estimates against what was measured, and batches that shrink where memory runs out."""

import gc
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from probing.fitting import activation_bytes, batch_by_batch, cache_bytes, is_out_of_memory, shape_of
from probing.pairs import load_registry
from tests.conftest import ROOT
from tests.tiny import TINY

SMOLLM2 = {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
           "num_key_value_heads": 3, "vocab_size": 49152}  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "positions", "answer", "megabytes"),
    [(1, 400, 50, 594), (4, 200, 50, 1208), (1, 800, 400, 1360), (2, 1200, 100, 3516)],
)
def test_the_estimate_of_activations_lies_just_above_what_was_measured(
    samples: int, positions: int, answer: int, megabytes: float
) -> None:
    """Peaks of resident memory while SmolLM2-135M was scored in float32 on the CPU."""
    shape = shape_of(AutoConfig.for_model("llama", **SMOLLM2), 134_515_008)
    estimate = samples * activation_bytes(shape, positions, answer) / 1e6
    assert megabytes < estimate < 1.3 * megabytes


@pytest.mark.parametrize(
    ("samples", "positions", "answer", "megabytes"),
    [(1, 400, 50, 851), (4, 200, 50, 1616), (1, 800, 400, 1608), (2, 1200, 100, 4761)],
)
def test_so_does_the_estimate_by_heads(samples: int, positions: int, answer: int, megabytes: float) -> None:
    shape = shape_of(AutoConfig.for_model("llama", **SMOLLM2), 134_515_008)
    estimate = samples * activation_bytes(shape, positions, answer, by_heads=True) / 1e6
    assert megabytes < estimate < 1.3 * megabytes


def test_the_cache_by_hand() -> None:
    shape = shape_of(AutoConfig.for_model("llama", **SMOLLM2), 0)
    assert cache_bytes(shape, 100, 2) == 2 * 30 * 3 * 64 * 100 * 2 + 8 * 49152


@pytest.mark.parametrize(
    ("pair", "billions"), [("deepseek-math", 6.91), ("mistral", 7.24), ("distilled-qwen", 7.615), ("qwen-dpo", 7.615)]
)
def test_stated_shapes_have_as_many_parameters_as_is_published(pair: str, billions: float) -> None:
    shape = load_registry().pair(pair).shape
    assert shape is not None
    assert shape.parameters / 1e9 == pytest.approx(billions, abs=0.006)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3"])
def test_a_stated_shape_counts_what_a_model_of_it_has(name: str) -> None:
    _, config = TINY[name]
    with torch.device("meta"):
        counted = AutoModelForCausalLM.from_config(config).num_parameters()
    shape = shape_of(config, counted)
    assert shape.parameters == counted
    norms = 2 * shape.layers * shape.head_width if name == "qwen3" else 0
    assert shape.model_copy(update={"exactly": None, "tied": config.tie_word_embeddings}).parameters + norms == counted


def _fails_above(limit: int, done: list[list[int]], tried: list[int]) -> object:
    def do(batch: list[int]) -> None:
        tried.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("no room")
        done.append(batch)

    return do


@given(st.lists(st.integers(1, 40), max_size=6), st.integers(1, 50))
def test_everything_is_done_once_and_in_order_however_small_the_memory(sizes: list[int], limit: int) -> None:
    gc.freeze()  # what the tests' libraries hold need not be looked through at every failed batch
    numbers = iter(range(sum(sizes)))
    done: list[list[int]] = []
    batch_by_batch([[next(numbers) for _ in range(size)] for size in sizes], _fails_above(limit, done, []))  # type: ignore[arg-type]
    assert [i for batch in done for i in batch] == list(range(sum(sizes)))


def test_after_a_failure_no_later_batch_is_larger() -> None:
    tried: list[int] = []
    batch_by_batch([list(range(16)), list(range(16))], _fails_above(4, [], tried))  # type: ignore[arg-type]
    assert tried == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4]


def test_what_a_single_item_cannot_have_is_raised_and_so_is_every_other_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        batch_by_batch([[1, 2]], _fails_above(0, [], []))  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        batch_by_batch([[1, 2]], lambda batch: batch.append(1 // 0))
    assert not is_out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ...",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_out_of_memory_is_told_by_its_words_where_its_type_does_not_tell_it(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


REAL = textwrap.dedent("""
    import resource, sys
    import torch
    from probing.attribution import Attributor
    from probing.scoring import attribute
    from probing.sequences import Sample
    from tests.tiny import tiny

    torch.set_num_threads(1)
    attributor = Attributor(tiny("llama", torch.float32, "sdpa"))
    samples = [Sample(str(i), (1, *range(2, 60)), 10, 49) for i in range(512)]
    attribute(attributor, samples[:8], 8)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 80 * 2**20, resource.RLIM_INFINITY))
    sizes = []
    scores = attribute(attributor, samples, 512, sizes.append)
    assert len(scores.ids) == 512 and (scores.matrix() != 0).any(), sizes
    assert len(sizes) > 2, sizes
    one = attribute(attributor, samples[:1], 1)
    assert abs(scores.matrix() - one.matrix()).max() < 1e-5
    print(len(sizes))
""")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_a_process_that_really_runs_out_of_memory_goes_on_with_smaller_batches() -> None:
    run = subprocess.run([sys.executable, "-c", REAL], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout) > 2
