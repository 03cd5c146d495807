"""What a pair takes on GPUs that are not here: `python -m benchmarks.gpus [PAIR] [--questions SET] [--gpus N]`.

The forecast of `python -m probing probe PAIR --dry-run` for a GPU that is assumed and not measured, with its
arithmetic, and divided: every GPU has a model of its own and takes its share of the questions. No network is used:
shapes are those that the registry states, and where questions cannot be read, a long prompt has an assumed length. What
it says of DeepSeekMath stands in docs/scale.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

from probing.fitting import Speed, answering, largest_graph
from probing.jobs.forecast import ASSUMED_PROMPT, Forecast, Model, Part, size
from probing.jobs.numerics import ROOM
from probing.jobs.plan import SIDES, Numerics, Spec
from probing.models import DTYPES
from probing.pairs import Shape, load_registry
from probing.rollouts import ALPHAS
from probing.words import duration


@dataclass(frozen=True)
class Device:
    """A GPU as its maker describes it, and how much of that is assumed to be reached."""

    name: str
    memory: float
    """Bytes."""
    bytes: float
    """A second, at most."""
    operations: dict[str, float]
    """A second, at most, by dtype."""
    share_of_operations: float
    share_of_bytes: float
    call: float
    """Seconds between two small operations, which the host starts."""

    def speed(self, dtype: str) -> Speed:
        """What is assumed."""
        operations = self.share_of_operations * self.operations[dtype]
        return Speed(operations, self.share_of_bytes * self.bytes, self.call)


H100 = Device("H100 SXM", 80e9, 3.35e12, {"bfloat16": 989e12, "float32": 67e12}, 0.6, 0.7, 5e-6)
"""Peaks as in NVIDIA's data sheet (dense; float32 without tensor cores); shares and calls are a guess."""

ANSWERED, SCORED = "bfloat16", "float32"
STORED = 8
"""Bytes that a score takes in the store, at most (`python -m benchmarks.scaling`)."""

SHORT = 512
"""Tokens of an answer that is nearer to what models say than the longest."""


def assumed(pair: str, questions: str, device: Device = H100) -> Forecast:
    """The forecast on one such GPU.

    Raises:
        PersonError: there is no such pair or set.
    """
    registry = load_registry()
    found = registry.pair(pair)
    if found.shape is None:
        raise SystemExit(f"The registry states no shape of '{pair}'.")
    models = {side: Model(None, found.shape, "") for side in SIDES}
    scores = SCORED if found.shape.parameters * DTYPES[SCORED].itemsize < ROOM * device.memory else ANSWERED
    return Forecast(
        Spec(pair, questions, ALPHAS), found, registry.question_set(questions), [], "", models,
        Numerics("cuda", ANSWERED, scores, "sdpa"), device.speed(scores), device.speed(ANSWERED), int(device.memory),
        None, ASSUMED_PROMPT,
    )  # fmt: skip


def lines(laid_out: Forecast, device: Device, gpus: int) -> Iterator[str]:
    """What it takes, with the arithmetic."""
    shape, asked, dtypes = laid_out.models["base"].shape, laid_out.asked, laid_out.numerics
    assert shape is not None
    if not asked:
        raise SystemExit("The registry does not say how many questions there are.")
    yield (
        f"{laid_out.pair.title}, {laid_out.question_set.title}, {gpus} × {device.name}; assumed of each: "
        f"{size(device.memory)}, {device.bytes / 1e12:.3g} TB/s"
    )
    peaks = ", ".join(f"{rate / 1e12:.0f} TFLOP/s in {dtype}" for dtype, rate in device.operations.items())
    yield (
        f"and {peaks}, of which {device.share_of_bytes:.0%} and {device.share_of_operations:.0%} are reached; "
        f"{device.call * 1e6:.0f} µs a call"
    )
    yield ""
    part, share = laid_out.answers(shape, asked, dtypes.answers), -(-asked // gpus)
    longest = laid_out.pair.max_new_tokens
    of_share = laid_out.answers(shape, share, dtypes.answers)
    yield f"ANSWERS of a model to {asked:,} questions, {share:,} a GPU, in {dtypes.answers}"
    yield from _memory(shape, device, dtypes.answers, part, "an answer",
                       f"of {laid_out.prompt} + {longest:,} tokens")  # fmt: skip
    yield from _arithmetic(of_share)
    yield f"  a model             {duration(part.seconds)} on one GPU, {duration(of_share.seconds)} on {gpus}"
    short = replace(of_share, work=answering(shape, share, laid_out.prompt, SHORT, part.batch, _item(dtypes.answers)))
    yield f"  if none had more than {SHORT} tokens, in batches of {part.batch}: {duration(short.seconds)} on {gpus}"
    total, of_one = of_share.seconds * len(SIDES), part.seconds * len(SIDES)
    for selection in laid_out.spec.selections():
        part, share = laid_out.scores(shape, selection), -(-selection.n // gpus)
        of_share = laid_out.scores(shape, replace(selection, n=share))
        total, of_one = total + of_share.seconds * len(SIDES), of_one + part.seconds * len(SIDES)
        tokens = laid_out.positions(selection)
        yield ""
        yield f"SCORES of a model at {selection.at.words}: {selection.n} questions, {share} a GPU, in {dtypes.scores}"
        yield from _memory(shape, device, dtypes.scores, part, "a question", f"of {tokens:,} tokens")
        yield from _arithmetic(of_share)
        yield f"  a model             {duration(part.seconds)} on one GPU, {duration(of_share.seconds)} on {gpus}"
    yield ""
    graph = largest_graph(shape, laid_out.spec.method.granularity)
    samples = len(SIDES) * len(laid_out.spec.cuts) * laid_out.spec.selection.n
    yield (
        f"STORE {samples} samples × {graph.size:,} edges × {STORED} bytes = "
        f"{size(STORED * graph.size * samples)} of scores"
    )
    yield f"IN ALL both models at most {duration(of_one)} on one GPU, {duration(total)} on {gpus}"


def _item(dtype: str) -> int:
    return DTYPES[dtype].itemsize


def _memory(shape: Shape, device: Device, dtype: str, part: Part, what: str, length: str) -> Iterator[str]:
    weights = shape.parameters * _item(dtype)
    yield (
        f"  memory              {size(device.memory)} - {size(weights)} of weights = {size(device.memory - weights)}, "
        f"a quarter of it {size((device.memory - weights) / 4)}"
    )
    each = part.held / part.batch
    yield f"  batches             {size(each)} {what} {length}: {part.batch} at once"


def _arithmetic(part: Part) -> Iterator[str]:
    work, factors, speed = part.work, part.factors, part.speed
    for name, factor, amount, rate in (
        ("operations", factors.operations, work.operations, speed.operations),
        ("bytes", factors.bytes, work.bytes, speed.bytes),
        ("calls", factors.calls, work.calls, 1 / speed.call),
    ):
        seconds = duration(factor * amount / rate)
        yield f"  {name:<12}{factor:>6g} × {amount:.3g} / {rate:.3g} a second = {seconds}"


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpus", description=__doc__)
    parser.add_argument("pair", nargs="?", default="deepseek-math")
    parser.add_argument("--questions", default="math")
    parser.add_argument("--gpus", type=int, default=8)
    arguments = parser.parse_args()
    print(*lines(assumed(arguments.pair, arguments.questions), H100, arguments.gpus), sep="\n")


if __name__ == "__main__":
    main()
