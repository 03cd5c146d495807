"""Fitting work into a device: what a model needs before it is loaded, and smaller batches where that was too little.

The needs, of memory and time, are estimates to plan with and to choose batch sizes by, generous rather than tight.
Weights are counted exactly; activations are what one forward and one backward pass keep, with room for what is
temporary. Time is a sum: of arithmetic (4 operations a parameter and token for both passes, since parameters get no
gradients, and attention's, which grow with the square of the tokens), of traffic (what scoring keeps is written and
read; each token of an answer reads all weights once for its batch, and what is kept of the tokens before it), and of
calls (every operation takes a while however little it works on: in small models, and step by step, most of the time).
Factors on the three are a fit to what `python -m benchmarks.scaling` measures.
"""

import gc
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
import torch

from probing.errors import ModelError
from probing.graph import Granularity, Heads, ResidualGraph, graph_of
from probing.pairs import Shape

Item = TypeVar("Item")

LARGEST_BATCH = 64
"""Samples in one batch, at most."""


def shape_of(config: Any, parameters: int) -> Shape:
    """The shape that a config of transformers describes.

    Raises:
        ModelError: it does not say how wide or deep the model is, or how large its vocabulary.
    """
    config = config.get_text_config(decoder=True)

    def number(name: str) -> int | None:
        """None where it is absent; the largest where it differs between layers."""
        try:
            value = getattr(config, name, None)
        except RuntimeError:  # transformers has no one value to give
            value = config.to_dict().get(name)
        several = value if isinstance(value, list | tuple) else [value]
        return max((each for each in several if isinstance(each, int)), default=None)

    def needed(name: str) -> int:
        value = number(name)
        if not value:
            raise ModelError(f"The config of a '{config.model_type}' model has no '{name}'.", "Is it a language model?")
        return value

    width, heads = needed("hidden_size"), number("num_attention_heads") or number("num_heads") or 1
    mlp = number("intermediate_size") or 4 * width
    if active := number("num_experts_per_tok"):
        mlp = active * (number("moe_intermediate_size") or mlp)
    return Shape(
        layers=needed("num_hidden_layers"),
        width=width,
        mlp=mlp,
        heads=heads,
        kv_heads=number("num_key_value_heads") or heads,
        head_width=number("head_dim") or width // heads,
        vocabulary=needed("vocab_size"),
        exactly=parameters,
    )


def largest_graph(shape: Shape, granularity: Granularity) -> ResidualGraph:
    """The graph with the most edges that a model of a shape may have."""
    heads = (Heads(shape.heads, shape.kv_heads),) * shape.layers if granularity == "heads" else ()
    return graph_of(shape.layers, granularity=granularity, heads=heads)


KEPT_READERS = 48
"""Readers whose gradients wait for one matrix product (`attribution`)."""

KEPT_READERS_OF_HEADS = 144
"""The same of heads, and as many of their outputs: they are made anew for each product."""


def activation_bytes(
    shape: Shape, positions: int, answer: int, item: int = 4, eager: bool = False, by_heads: bool = False
) -> int:
    """What scoring one sample keeps, of `positions` tokens of which `answer` are scored, at `item` bytes a number.

    By heads, their values are kept in place of what the block writes, and there is a score for each two of them.

    The factors are a fit from above to peaks measured with SmolLM2-135M in float32 (16 to 21 % over them).
    """
    per_layer = 10 * shape.width + 4 * shape.mlp + (2 * shape.heads * positions if eager else 0)
    graph = largest_graph(shape, "heads" if by_heads else "projections")
    kept, scores = 4 * (len(graph.writers) + KEPT_READERS) * shape.width, 0
    if by_heads:
        values = item * shape.layers * shape.heads * shape.head_width
        kept = values + 4 * (shape.layers + 1 + 2 * KEPT_READERS_OF_HEADS + shape.heads) * shape.width
        scores = 8 * graph.mask.size
    return positions * (item * shape.layers * per_layer + kept) + 12 * answer * shape.vocabulary + scores


def cache_bytes(shape: Shape, positions: int, item: int) -> int:
    """The keys and values of one answer and its prompt, of `item` bytes each, and the logits of its last token."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * positions * item + 8 * shape.vocabulary


def batch_that_fits(free: int, each: int) -> int:
    """As many samples as fill a quarter of the free memory, which leaves room for what these estimates miss."""
    return max(1, min(LARGEST_BATCH, free // 4 // max(1, each)))


def free_bytes(device: torch.device) -> int:
    """Memory of a device that nothing uses; of a GPU, with what PyTorch only keeps for later: else a second run would
    be told of less, and have smaller batches, than the first."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return psutil.virtual_memory().available


def total_bytes() -> int:
    """Memory of all GPUs together, used or not."""
    gpus = range(torch.cuda.device_count())
    return sum(torch.cuda.get_device_properties(gpu).total_memory for gpu in gpus)


_IN_WORDS = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
"""How PyTorch says on the CPU that there is no memory, how CUDA itself does, and how its libraries of matrix products
do, which have memory of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no memory left, which not every part of PyTorch says by the error's type."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _IN_WORDS)
    )


def batch_by_batch(batches: Iterable[list[Item]], do: Callable[[list[Item]], None]) -> int:
    """Do each batch; one that the memory does not hold is halved, and no later one is larger, as the result says.

    Raises:
        Exception: what `do` raised; out of memory only where a single item was too much.
    """
    waiting = deque(batches)
    largest = max(map(len, waiting), default=0)
    while waiting:
        batch = waiting.popleft()
        if len(batch) > largest:
            waiting.extendleft(batch[i : i + largest] for i in reversed(range(0, len(batch), largest)))
            continue
        try:
            do(batch)
            continue
        except Exception as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        largest = len(batch) // 2
        waiting.appendleft(batch)
        gc.collect()  # what the failed pass still holds
        torch.cuda.empty_cache()
    return largest


@dataclass(frozen=True)
class Speed:
    """What a device does."""

    operations: float
    """Floating-point operations a second, in matrix products."""
    bytes: float
    """Bytes read and written a second."""
    call: float
    """Seconds that the smallest operation takes."""


def measure_speed(device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """Half a second of matrix products, copies and small operations."""
    side = 4096 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device).to(dtype)
    big = torch.empty(64 * 2**20, dtype=torch.uint8, device=device)
    small = torch.zeros(64, 64, device=device, dtype=dtype)

    def per_second(work: Any, amount: float) -> float:
        work()
        _wait(device)
        done, started = 0, clock()
        while (elapsed := clock() - started) < 0.15:
            work()
            _wait(device)
            done += 1
        return done * amount / elapsed

    def calls() -> None:
        for _ in range(100):
            torch.mul(small, small)

    return Speed(
        per_second(lambda: a @ a, 2.0 * side**3), per_second(big.clone, 2.0 * big.numel()), 1 / per_second(calls, 100)
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Work:
    """What something takes, whatever it is done on; or how many times as much it takes in truth."""

    operations: float
    """In matrix products."""
    bytes: float
    """Read or written."""
    calls: float
    """Of small operations: here one for each layer, pass and batch."""

    def seconds(self, speed: Speed, factors: "Work") -> float:
        """Time for it, if nothing is done beside anything else."""
        return (
            factors.operations * self.operations / speed.operations
            + factors.bytes * self.bytes / speed.bytes
            + factors.calls * self.calls * speed.call
        )

    def times(self, often: float) -> "Work":
        """The same, so often."""
        return Work(often * self.operations, often * self.bytes, often * self.calls)


SCORING, SCORING_HEADS = Work(1.1, 2, 2200), Work(1.5, 1, 2200)
"""Of scoring, by projections (or blocks) and by heads.

These factors lie somewhat above what a least-squares fit finds on one thread of a CPU (docs/scale.md). Where it finds
less than once, they are 1: that CPU reads weights faster than it copies, and what is measured removes edges half-way.
"""

RUNNING = Work(1, 1, 1500)
"""Of a forward pass."""

ANSWERING = Work(1.1, 1, 400)
"""Of answers."""


def _forward(shape: Shape, positions: int) -> float:
    """Operations of a forward pass over so many tokens at once: of each with every weight, and of each with each."""
    attention = 4.0 * shape.layers * shape.heads * shape.head_width * positions
    return positions * (2.0 * shape.parameters + attention)


def answering(shape: Shape, questions: int, prompt: int, longest: int, batch: int, item: int) -> Work:
    """Answers that all reach `longest` tokens, in batches, at `item` bytes a number.

    A step reads all weights, and what is kept of the tokens before it, which is then written and read with the new
    token's beside it.
    """
    rounds, middle = -(-questions // batch), prompt + longest // 2
    kept = cache_bytes(shape, middle, item)
    return Work(
        questions * (_forward(shape, prompt) + longest * _forward(shape, middle) / middle),
        longest * (rounds * shape.parameters * item + 3.0 * questions * kept),
        (longest + 1) * rounds * shape.layers,
    )


def running(shape: Shape, passes: float, positions: int, batch: int, item: int = 4) -> Work:
    """Forward passes of one sample of `positions` tokens, so many at once."""
    written = item * positions * shape.layers * (10 * shape.width + 4 * shape.mlp)
    return Work(passes * _forward(shape, positions), passes * written, -(-passes // batch) * shape.layers)


def scoring(
    shape: Shape, samples: int, positions: int, answer: int, batch: int, item: int = 4, by_heads: bool = False
) -> Work:
    """Both passes over samples of `positions` tokens, `answer` of them scored, and products of writers and readers.

    By heads, their outputs are made anew for every few readers.
    """
    attention = 4.0 * shape.layers * shape.heads * shape.head_width * positions**2
    operations = 2 * _forward(shape, positions) + attention  # which has two products for each of the forward pass
    graph = largest_graph(shape, "heads" if by_heads else "projections")
    operations += 2.0 * graph.mask.size * shape.width * positions
    if by_heads:
        again = 2.0 * shape.layers * shape.heads * shape.head_width * shape.width * positions
        operations += again * -(-len(graph.readers) // KEPT_READERS_OF_HEADS)
    kept = activation_bytes(shape, positions, answer, item, by_heads=by_heads)
    return Work(samples * operations, samples * kept, -(-samples // batch) * shape.layers)
