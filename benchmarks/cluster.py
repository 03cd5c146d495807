"""Two actors of a Ray cluster against one worker, on the edges of SmolLM2-135M, one core each.

    python -m benchmarks.cluster                 # the median of three rounds
    python -m benchmarks.cluster --quick         # one round of few samples, which says nothing of the time

Models are loaded before the clock starts. Both must give the same scores, bit for bit.
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from probing.errors import ModelError
from probing.jobs.bench import Bench
from probing.jobs.cluster import Cluster
from probing.jobs.crew import Alone, Crew, Team
from probing.jobs.loading import Models
from probing.jobs.numerics import make_plan
from probing.jobs.plan import Spec, Wanted
from probing.jobs.progress import silent
from probing.jobs.stages import Scoring
from probing.method import PAPERS
from probing.models import load_tokenizer
from probing.pairs import load_registry
from probing.questions import prompt_for
from probing.scores import Scores
from probing.sequences import Sample, by_length
from probing.store import open_store

ENOUGH = 1.8
"""How many times as fast as one worker two are, at least."""

AT_ONCE = 4


def _task(count: int) -> tuple[Wanted, tuple[Sample, ...]]:
    """The model, and prompts of its questions with their references as answers."""
    spec = Spec("smollm2-grpo", "word-problems", device="cpu")
    plan = make_plan(spec, load_registry())
    tokenizer, samples = load_tokenizer(plan.checkpoints["base"]), []
    for question in plan.questions[:count]:
        asked = prompt_for(question, plan.pair.template, tokenizer).tokens
        answer = tuple(tokenizer.encode(f" The answer is {question.reference}.", add_special_tokens=False))
        samples.append(Sample(question.id, asked + answer, len(asked), len(answer)))
    return plan.wanted("base"), tuple(samples)


def _seconds(crew: Crew, wanted: Wanted, samples: tuple[Sample, ...]) -> tuple[float, Scores]:
    """How long a crew takes for the scores of some samples, and the scores."""
    stage = Scoring(("run",), wanted, samples, PAPERS)
    laid = crew.lay_out(stage, silent)
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder) / "store.duckdb")) as store:
        told = {"method": PAPERS.as_json(), "tokenizer": laid.vocabulary}
        store.runs.start("run", "SmolLM2", wanted.checkpoint.identity, laid.graph, len(samples), AT_ONCE, told)
        portions = [tuple(samples[i].id for i in batch) for batch in by_length(samples, AT_ONCE)]
        started = time.perf_counter()
        Team(store, crew, silent).spread(
            replace(stage, at_once=AT_ONCE), "edges", portions, lambda: store.runs.scored("run")
        )
        seconds = time.perf_counter() - started
        store.runs.finish("run", {}, seconds)
        return seconds, store.runs.scores("run")


def main() -> None:
    """Measure, and fail if two are not `ENOUGH` times as fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    count, rounds = (8, 1) if arguments.quick else (arguments.samples, arguments.rounds)
    try:
        wanted, samples = _task(count)
    except ModelError as error:
        print(f"not run: {error}")
        return
    torch.set_num_threads(1)
    alone = Alone(Bench(Models(threads=1)))
    ratios = []
    with closing(Cluster("local", 2)) as cluster:
        for crew in (alone, cluster):
            _seconds(crew, wanted, samples[: 4 * AT_ONCE])  # models are loaded
        for number in range(rounds):
            (one, expected), (two, found) = _seconds(alone, wanted, samples), _seconds(cluster, wanted, samples)
            if not np.array_equal(expected.edges, found.edges) or not np.array_equal(expected.loss, found.loss):
                sys.exit("the scores differ")
            ratios.append(one / two)
            took = f"one worker {one:.1f} s, two actors {two:.1f} s"
            print(f"round {number + 1}: {count} samples, {took}: {one / two:.2f} x")
    median = statistics.median(ratios)
    print(f"two actors are {median:.2f} times as fast as one worker (median of {rounds}), equal bit for bit")
    if not arguments.quick and median < ENOUGH:
        sys.exit(f"less than {ENOUGH}")


if __name__ == "__main__":
    main()
