"""How often the 95 % intervals hold the true value: `python -m benchmarks.coverage [--json] [--quick]`.

The population is made of 1 500 additions that the shipped base and its GRPO descendant both answer right, drawn from
the task that they were trained on and scored as every comparison is. From it samples of 20, 50 and 100 questions are
drawn with replacement, each is compared as if it were all there is, and it is counted how often the interval of the
difference, and that of the relative difference, holds what the whole population says. The last rows have what the
metrics do not use: for those that are stretched, percentiles and BCa; and the paper's bins, which end at the largest
|score|: their interval is one for the bins at hand, and misses the population's number.

Scores of the population are kept in a folder for temporary files. The table stands in docs/method.md, and the shares
with each metric in `probing.metrics.registry`, by which pages warn. `--quick` takes few questions and samples.
"""

import argparse
import hashlib
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from tqdm import tqdm

from probing.attribution import Attributor
from probing.checkpoints import Checkpoint, find
from probing.jobs.plan import SCORES_VERSION, SIDES
from probing.metrics import COMPLEXITY, METRICS, Comparison, Definition, align, compare, resample_counts
from probing.metrics.bootstrap import with_each_left_out
from probing.models import answer, load_model, load_tokenizer, use_threads_for
from probing.questions.templates import encode
from probing.rollouts import Answer, Criteria, samples, select
from probing.scores import Scores, read_scores, write_scores
from probing.scoring import attribute
from probing.zoo import task
from probing.zoo.recipes import ZOO

MODELS = {"base": "base", "tuned": "grpo"}
SIZES = (20, 50, 100)
OBSERVED = f"{COMPLEXITY.key}, bins to the largest |score|"
SEED = 2026
LOWEST = 0.8
"""Coverage below which a quick run fails: far from what chance does to its few samples."""


def population(questions: int, models: Mapping[str, str] = MODELS) -> tuple[Scores, Scores]:
    """Scores of `questions` additions that both models answer right, made once and then kept."""
    checkpoints = {side: find(str(ZOO / name)) for side, name in models.items()}
    made_of = [*(checkpoint.identity for checkpoint in checkpoints.values()), SCORES_VERSION, SEED, questions]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"probing-coverage-{digest}"
    files = {side: folder / f"{side}.npz" for side in SIDES}
    if not all(file.exists() for file in files.values()):
        folder.mkdir(exist_ok=True)
        for side, scores in zip(SIDES, _score(checkpoints, questions), strict=True):
            write_scores(files[side], scores)
    base, tuned = (read_scores(files[side]) for side in SIDES)
    return base, align(base, tuned)


def _score(checkpoints: dict[str, Checkpoint], questions: int) -> Iterator[Scores]:
    asked = list(itertools.islice(task.problems(SEED), 2 * questions))  # the base answers 59 % of them right
    models, answers = {}, {}
    for side, checkpoint in checkpoints.items():
        tokenizer = load_tokenizer(checkpoint)
        models[side] = load_model(checkpoint, torch.device("cpu"), torch.float32)
        use_threads_for(models[side])
        prompts = [encode(problem.question, tokenizer) for problem in asked]
        batches = [prompts[i : i + 300] for i in range(0, len(prompts), 300)]
        given = [
            answered
            for batch in tqdm(batches, desc=f"{side} answers", disable=None)
            for answered in answer(models[side], tokenizer, batch, task.LONGEST_ANSWER)
        ]
        answers[side] = [
            Answer(str(i), tuple(prompt), tokens, text, bool(task.reward(text, problem.answer)))
            for i, (problem, prompt, (tokens, text)) in enumerate(zip(asked, prompts, given, strict=True))
        ]
    selected = select(answers["base"], answers["tuned"], Criteria(n=questions))
    for side in SIDES:
        yield attribute(Attributor(models[side]), samples(answers[side], selected))


def drawn(scores: Scores, rows: np.ndarray) -> Scores:
    """Some of the population's questions, each as a question of its own."""
    return replace(scores, ids=tuple(map(str, range(len(rows)))), edges=scores.edges[rows], loss=scores.loss[rows])


def compared(base: Scores, tuned: Scores, definition: Definition) -> dict[str, Comparison]:
    """Every metric, those that are stretched in other ways too, and complexity with the paper's bins."""
    observed = Definition(**{**vars(definition), "histogram_max": "observed"})
    paper = compare(base, tuned, observed, [COMPLEXITY.key])[COMPLEXITY.key]
    return compare(base, tuned, definition) | in_other_ways(base, tuned, definition) | {OBSERVED: paper}


def in_other_ways(base: Scores, tuned: Scores, definition: Definition) -> dict[str, Comparison]:
    """The metrics whose intervals are stretched, with the percentiles and BCa intervals that they might have had."""
    draws = with_each_left_out(resample_counts(len(base.ids), definition))
    found = {}
    for metric in METRICS.values():
        if not metric.stretched or not metric.statistic:
            continue
        (before, x), (after, y) = metric.statistic(base, tuned, definition, draws)
        changes = ((after - before, y - x), (after / before - 1, y / x - 1))
        for way, ends in (("percentiles", _percentiles), ("BCa", _bca)):
            values = (after - before, after / before - 1)
            intervals = [end for value, drawn in changes for end in ends(value, drawn, len(base.ids))]
            found[f"{metric.key}, {way}"] = Comparison(before, after, *values, *intervals)
    return found


def _percentiles(value: float, drawn: np.ndarray, samples: int) -> np.ndarray:
    return np.quantile(drawn[samples:], [0.025, 0.975])


def _bca(value: float, drawn: np.ndarray, samples: int) -> np.ndarray:
    """Efron and Tibshirani (1993), section 14.3."""
    without, resampled = drawn[:samples], drawn[samples:]
    moves, bell = without.mean() - without, NormalDist()
    below = float((resampled < value).mean() + (resampled <= value).mean()) / 2
    bias = bell.inv_cdf(np.clip(below, end := 1 / (len(resampled) + 1), 1 - end))  # all may lie on one side
    acceleration = (moves**3).sum() / (moves**2).sum() ** 1.5 / 6
    shifted = [bias + bell.inv_cdf(level) for level in (0.025, 0.975)]
    return np.quantile(resampled, [bell.cdf(bias + end / (1 - acceleration * end)) for end in shifted])


def measure(base: Scores, tuned: Scores, size: int, times: int, resamples: int) -> dict[str, tuple[float, float]]:
    """The shares of samples whose intervals, of the difference and of the relative difference, hold the true one."""
    truth = compared(base, tuned, Definition(resamples=2))
    rng = np.random.default_rng(size)
    held = {metric: [0, 0] for metric in truth}
    for i in tqdm(range(times), desc=f"{size} questions", disable=None):
        rows = rng.integers(0, len(base.ids), size)
        found = compared(drawn(base, rows), drawn(tuned, rows), Definition(resamples=resamples, seed=i))
        for metric, c in found.items():
            true = truth[metric]
            held[metric][0] += c.ci_low <= true.difference <= c.ci_high
            held[metric][1] += true.relative is not None and c.relative_low <= true.relative <= c.relative_high
    return {metric: (both[0] / times, both[1] / times) for metric, both in held.items()}


def table(measured: dict[int, dict[str, tuple[float, float]]]) -> Iterator[str]:
    """The shares in percent, difference / relative difference, as a table in Markdown."""
    yield f"| metric | {' | '.join(f'{size} questions' for size in measured)} |"
    yield "|---" * (1 + len(measured)) + "|"
    for metric in next(iter(measured.values())):
        key, _, way = metric.partition(", ")
        name = ", ".join([METRICS[key].label.lower(), *([way.replace("|", "\\|")] if way else [])])
        cells = [" / ".join(f"{100 * share:.0f}" for share in shares[metric]) for shares in measured.values()]
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--samples", type=int, help="drawn of each size (default: 2000, quick: 60)")
    arguments = parser.parse_args()
    times = arguments.samples or (60 if arguments.quick else 2000)
    both = population(200 if arguments.quick else 1500)
    sizes, resamples = ((20,), 300) if arguments.quick else (SIZES, 1000)
    measured = {size: measure(*both, size, times, resamples) for size in sizes}
    print(json.dumps(measured, indent=2) if arguments.json else "\n".join(table(measured)))
    if arguments.quick:
        low = [metric for metric in METRICS if min(measured[20][metric]) < LOWEST]
        sys.exit(f"held in fewer than {LOWEST:.0%} of samples: {', '.join(low)}" if low else 0)


if __name__ == "__main__":
    main()
