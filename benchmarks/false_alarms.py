"""How many edges are called changed where none changed: `python -m benchmarks.false_alarms [--json] [--quick]`.

Two ways of calling an edge changed are compared: its own 95 % interval over questions excludes zero, or its q over all
edges is at most 0.05 (sign flips over questions, Benjamini and Hochberg). In two of the trials nothing changed:

- *halves*: 200 questions of one model, of which one half is taken for the base and the other for the tuned model;
- *swapped*: 100 questions of a pair, whose models change places on each question by the toss of a coin.

In the others, 100 questions of a pair are compared as they are. The questions are those of `benchmarks.coverage`, and
the pairs the shipped base with its GRPO descendant and with the base of another seed. The table stands in
docs/method.md. `--quick` takes few questions and runs.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from benchmarks.coverage import drawn, population
from probing.edge_tables import edge_values
from probing.metrics import FALSE_DISCOVERIES, Definition, significant
from probing.scores import Scores

PAIRS = {"GRPO": {"base": "base", "tuned": "grpo"}, "another seed": {"base": "base", "tuned": "base-seed2"}}
QUESTIONS = 100
WAYS = [(of, way) for of in ("strength", "effect") for way in ("interval", "q")]
MOST_ALARMS = 0.4
"""Share of runs with a false alarm by q above which a quick run fails: far from what chance does to its few runs."""

Trial = Callable[[Scores, Scores, np.random.Generator], tuple[Scores, Scores]]


def halves(base: Scores, tuned: Scores, rng: np.random.Generator) -> tuple[Scores, Scores]:
    """Questions of one model as if they were two models'."""
    one = (base, tuned)[rng.integers(2)]
    rows = rng.choice(len(one.ids), 2 * QUESTIONS, replace=False)
    return drawn(one, rows[:QUESTIONS]), drawn(one, rows[QUESTIONS:])


def swapped(base: Scores, tuned: Scores, rng: np.random.Generator) -> tuple[Scores, Scores]:
    """Questions of a pair, whose models change places on some of them."""
    one, other = as_they_are(base, tuned, rng)
    swap = rng.random((QUESTIONS, 1)) < 0.5
    first, second = np.where(swap, other.edges, one.edges), np.where(swap, one.edges, other.edges)
    return replace(one, edges=first), replace(other, edges=second)


def as_they_are(base: Scores, tuned: Scores, rng: np.random.Generator) -> tuple[Scores, Scores]:
    """Questions of a pair."""
    rows = rng.choice(len(base.ids), QUESTIONS, replace=False)
    return drawn(base, rows), drawn(tuned, rows)


def called(base: Scores, tuned: Scores, seed: int) -> list[int]:
    """How many edges each of `WAYS` calls changed."""
    values = edge_values(base, tuned, Definition(resamples=2000, seed=seed))
    counts = []
    for prefix in ("", "effect_"):
        interval = significant(values[f"{prefix}ci_low"].to_numpy(), values[f"{prefix}ci_high"].to_numpy())
        counts += [int(interval.sum()), int((values[f"{prefix}q"] <= FALSE_DISCOVERIES).sum())]
    return counts


def measure(questions: int, runs: int) -> dict[str, list[list[int]]]:
    """By trial: the numbers that each of `WAYS` calls changed, in each run."""
    both = {name: population(questions, models) for name, models in PAIRS.items()}
    trials: dict[str, tuple[str, Trial]] = {
        "nothing: halves": ("GRPO", halves),
        "nothing: swapped": ("GRPO", swapped),
        "nothing: swapped, another seed": ("another seed", swapped),
        "GRPO": ("GRPO", as_they_are),
        "another seed": ("another seed", as_they_are),
    }
    found = {}
    for name, (pair, trial) in trials.items():
        rng = np.random.default_rng(0)
        found[name] = [called(*trial(*both[pair], rng), seed) for seed in tqdm(range(runs), desc=name, disable=None)]
    return found


def table(found: dict[str, list[list[int]]], edges: int) -> Iterator[str]:
    """What changed, and of so many edges the mean number called changed; of nothing, the most and the share of runs."""
    yield f"| what changed | {' | '.join(f'{of}, {way}' for of, way in WAYS)} |"
    yield "|---" * (1 + len(WAYS)) + "|"
    for name, runs in found.items():
        cells = []
        for counts in np.array(runs).T:
            cell = f"{counts.mean():.1f} of {edges}"
            if name.startswith("nothing"):
                cell = f"{counts.mean():.2f} of {edges}, up to {counts.max()}; any in {(counts > 0).mean():.1%} of runs"
            cells.append(cell)
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, help="of each trial (default: 300, quick: 20)")
    arguments = parser.parse_args()
    questions, runs = (200, arguments.runs or 20) if arguments.quick else (1500, arguments.runs or 300)
    found = measure(questions, runs)
    edges = population(questions)[0].graph.size
    print(json.dumps(found) if arguments.json else "\n".join(table(found, edges)))
    if arguments.quick:
        alarms = [np.mean([any(run[1::2]) for run in of]) for name, of in found.items() if name.startswith("nothing")]
        sys.exit(f"false alarms in {max(alarms):.0%} of runs" if max(alarms) > MOST_ALARMS else 0)


if __name__ == "__main__":
    main()
