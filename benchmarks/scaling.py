"""How cost grows with layers, width, heads, tokens and samples: `python -m benchmarks.scaling [--quick] [--json]`.

Llamas with random weights, float32, one thread. Around a middle shape each size is varied alone, and some shapes differ
in all. Measured are seconds of scoring a batch by projections and by heads, of the exact effects of a few edges of all
kinds, of answering as long as half of the text is, and the bytes that a sample's scores take in the store. Seconds are
the processor's, not the clock's: other programs disturb those less. All is measured three times, shape after shape, and
beside each shape the machine's speed; said are medians. `--quick` measures smaller shapes once.

There are two fits. The powers of all sizes (least squares of logarithms) say how cost grows in this range. The factors
are those on the forecast's own terms (least squares of what is relative, none negative), which `probing.fitting` has,
rounded up. Last stands what was measured over what is forecast with those: below 1, the forecast is an upper bound.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from scipy.optimize import nnls
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from probing.ablation import effects
from probing.attribution import Attributor
from probing.fitting import (
    ANSWERING,
    RUNNING,
    SCORING,
    SCORING_HEADS,
    Work,
    answering,
    largest_graph,
    measure_speed,
    running,
    scoring,
    shape_of,
)
from probing.graph import Granularity
from probing.models import answer
from probing.pairs import Shape
from probing.sequences import Sample
from probing.store import open_store
from probing.store.spool import ScoreBatch

VOCABULARY = 4096
REPEATS = 3
EDGES = 6
"""Edges whose exact effects are measured, spread evenly over all."""


@dataclass(frozen=True)
class Size:
    """One shape and what is run through it."""

    layers: int = 4
    width: int = 192
    heads: int = 4
    tokens: int = 96
    """Of which half are the answer."""
    samples: int = 4

    @property
    def answer(self) -> int:
        """Tokens of the answer."""
        return self.tokens // 2


MIDDLE = Size()
VARIED: dict[str, tuple[int, ...]] = {
    "layers": (2, 8, 16),
    "width": (64, 384, 768),
    "heads": (2, 8, 16),
    "tokens": (32, 192, 512),
    "samples": (1, 2, 8, 32),
}
OTHERS = (Size(2, 64, 2, 32, 1), Size(12, 64, 16, 64, 8), Size(2, 768, 12, 192, 2), Size(8, 384, 6, 48, 4),
          Size(3, 128, 8, 512, 2), Size(6, 512, 8, 32, 16))  # fmt: skip
QUICK = (Size(2, 64, 2, 32, 1), Size(4, 64, 4, 64, 2), Size(2, 128, 4, 64, 4), Size(6, 96, 2, 48, 2),
         Size(3, 128, 8, 32, 2), Size(2, 192, 4, 96, 1), Size(4, 192, 2, 32, 8), Size(6, 64, 8, 96, 2))  # fmt: skip


def sizes(quick: bool) -> list[Size]:
    """What is measured."""
    alone = [replace(MIDDLE, **{name: value}) for name, values in VARIED.items() for value in values]
    return list(QUICK) if quick else [MIDDLE, *alone, *OTHERS]


TOKENIZER = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(WordLevel({f"t{token}": token for token in range(VOCABULARY)}, unk_token="t0"))
)


def _model(size: Size) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.width,
        intermediate_size=size.width * 8 // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=max(1, size.heads // 2),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,  # so that no answer ends early
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


class Subject:
    """A model of some size, and each work that can be done with it."""

    def __init__(self, size: Size) -> None:
        self.size, self.model = size, _model(size)
        self.shape: Shape = shape_of(self.model.config, self.model.num_parameters())
        rows = torch.randint(VOCABULARY, (size.samples, size.tokens), generator=torch.Generator().manual_seed(1))
        self.samples = [
            Sample(str(i), tuple(row), size.tokens - size.answer, size.answer) for i, row in enumerate(rows.tolist())
        ]
        self.attributors = {kind: Attributor(self.model, kind) for kind in ("projections", "heads")}
        graph = self.attributors["projections"].graph
        self.edges = np.linspace(0, graph.size - 1, EDGES).astype(int)
        assert self.attributors["projections"].resumable  # which the first use measures

    def works(self) -> dict[str, Callable[[], object]]:
        """By name."""
        projections, heads = self.attributors.values()
        prompts = [sample.input_ids[: sample.answer_start] for sample in self.samples]
        return {
            "projections": lambda: projections.score(self.samples),
            "heads": lambda: heads.score(self.samples),
            "exact": lambda: effects(projections, self.samples, self.edges, batch_size=self.size.samples),
            "answers": lambda: self._answer(prompts),
        }

    def _answer(self, prompts: list[tuple[int, ...]]) -> None:
        said = answer(self.model, TOKENIZER, prompts, self.size.answer)
        assert all(len(tokens) == self.size.answer for tokens, _ in said)

    def laid_out(self, work: str) -> Work:
        """What `probing.fitting` says that it takes, without factors."""
        size, fed = self.size, self.size.tokens - 1
        if work == "answers":
            return answering(self.shape, size.samples, size.tokens - size.answer, size.answer, size.samples, 4)
        if work == "exact":
            return running(self.shape, size.samples * (EDGES + 1), fed, size.samples)
        return scoring(self.shape, size.samples, fed, size.answer, size.samples, by_heads=work == "heads")


FACTORS = {"projections": SCORING, "heads": SCORING_HEADS, "exact": RUNNING, "answers": ANSWERING}
"""Those of `probing.fitting`."""


@dataclass(frozen=True)
class Row:
    """One work on one size: medians."""

    work: str
    size: Size
    seconds: float
    spread: float
    """Its largest over its smallest time."""
    terms: tuple[float, float, float]
    """Seconds that operations, bytes and calls take without factors."""
    of_forecast: float
    """What was measured over what is forecast."""


def measure(quick: bool) -> list[Row]:
    """Every work on every size."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    found: dict[tuple[str, Size], list[tuple[float, tuple[float, float, float], float]]] = {}
    for _ in range(1 if quick else REPEATS):
        for size in sizes(quick):
            subject = Subject(size)
            speed = measure_speed(torch.device("cpu"), torch.float32, time.process_time)
            for work, run in subject.works().items():
                if work in ("projections", "heads"):
                    run()  # of batches there are many, and what they share is laid out once
                started = time.process_time()
                run()
                seconds, bare = time.process_time() - started, subject.laid_out(work)
                terms = (bare.operations / speed.operations, bare.bytes / speed.bytes, bare.calls * speed.call)
                ratio = seconds / bare.seconds(speed, FACTORS[work])
                found.setdefault((work, size), []).append((seconds, terms, ratio))
    return [_medians(*key, rows) for key, rows in found.items()]


def _medians(work: str, size: Size, rows: list[tuple[float, tuple[float, float, float], float]]) -> Row:
    seconds, terms, ratios = zip(*rows, strict=True)
    operations, traffic, calls = np.median(np.array(terms), 0).tolist()
    return Row(work, size, statistics.median(seconds), max(seconds) / min(seconds), (operations, traffic, calls),
               statistics.median(ratios))  # fmt: skip


def stored(quick: bool) -> dict[int, float]:
    """By edges of a graph, the bytes in a store that a sample's scores take."""
    shapes = [(2, 2), (6, 4)] if quick else [(2, 2), (6, 4), (16, 4), (16, 16), (32, 16)]
    found, rng = {}, np.random.default_rng(0)
    for (layers, heads), kind in product(shapes, get_args(Granularity)):
        shape = Shape(layers=layers, width=64, mlp=64, heads=heads, kv_heads=heads, head_width=64, vocabulary=64)
        graph = largest_graph(shape, kind)
        samples = max(8, 2_000_000 // graph.size)
        with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder) / "store")) as store:
            before = store.path.stat().st_size
            store.runs.start("r", "m", "m", graph, samples, samples, {})
            scores = rng.standard_normal((samples, graph.size), np.float32)
            store.spool.put(ScoreBatch("r", tuple(map(str, range(samples))), scores[:, 0], scores))
            store.batches.ingest()
            store.close()
            found[graph.size] = (store.path.stat().st_size - before) / samples
    return found


def factors(rows: list[Row]) -> tuple[np.ndarray, float]:
    """Of operations, bytes and calls, and the share of the logarithms' variance that they explain."""
    seconds, terms = np.array([row.seconds for row in rows]), np.array([row.terms for row in rows])
    found, _ = nnls(terms / seconds[:, None], np.ones(len(rows)))
    return found, _explained(np.log(seconds), np.log(terms @ found))


def powers(rows: list[Row]) -> tuple[dict[str, float], float]:
    """The power of each size, and the share of the logarithms' variance that they explain."""
    logs = np.log([[getattr(row.size, name) for name in VARIED] for row in rows])
    seconds = np.log([row.seconds for row in rows])
    design = np.column_stack([logs, np.ones(len(rows))])
    found, *_ = np.linalg.lstsq(design, seconds, rcond=None)
    return dict(zip(VARIED, found.tolist(), strict=False)), _explained(seconds, design @ found)


def _explained(measured: np.ndarray, predicted: np.ndarray) -> float:
    return float(1 - ((measured - predicted) ** 2).sum() / ((measured - measured.mean()) ** 2).sum())


def main() -> None:
    """Print tables, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--json", action="store_true", help="all rows")
    parser.add_argument("--quick", action="store_true", help="small shapes")
    arguments = parser.parse_args()
    rows, kept = measure(arguments.quick), stored(arguments.quick)
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "bytes": kept}, indent=2))
        return
    of = {work: [row for row in rows if row.work == work] for work in FACTORS}
    print(f"{'seconds grow with':18}{''.join(f'{name:>9}' for name in VARIED)}{'R²':>7}")
    for work, mine in of.items():
        grown, explained = powers(mine)
        print(f"{work:18}{''.join(f'{power:9.2f}' for power in grown.values())}{explained:7.2f}")
    print(f"\n{'factors':18}{'operations':>12}{'bytes':>9}{'calls':>9}{'R²':>7}")
    for work, mine in of.items():
        (operations, traffic, calls), explained = factors(mine)
        print(f"{work:18}{operations:12.2f}{traffic:9.2f}{calls:9.0f}{explained:7.2f}")
    print(f"\n{'of forecast':18}{'least':>9}{'median':>9}{'most':>9}   median spread of a time")
    for work, mine in of.items():
        ratios = [row.of_forecast for row in mine]
        spread = statistics.median(row.spread for row in mine)
        print(f"{work:18}{min(ratios):9.2f}{statistics.median(ratios):9.2f}{max(ratios):9.2f}{spread:9.2f}")
    print("\nbytes of scores in the store, a sample")
    for edges, size in sorted(kept.items()):
        print(f"{edges:>10,} edges{size:>14,.0f}{size / edges:7.2f} an edge")


if __name__ == "__main__":
    main()
