"""Do methods find what is known to be there? `python -m benchmarks.planted [--json] [--quick]`.

*Planted pairs*: in six copies of the shipped base one head or one MLP was tuned, and nothing else
(`probing.zoo.planted`). Every method scores base and copy by heads, and the edges are ranked, once by the *difference*
of mean scores and once by the *ratio* of strengths (means of |score|), whatever their sign. Of the first ten, how many
enter or leave the part that was tuned? That share is the recall, the mean over the six, once on the same text (the
right answers) and once on each model's own answers. `chance` is what ten random edges would give. A ratio of two
strengths that are next to nothing says nothing, so to each a tenth of the mean strength is added. Against zero.

*A known circuit*: in a transformer written by hand, seven edges are needed and no others (`probing.zoo.induction`). How
likely is it that a needed edge has the larger |mean score| than one that is not: the area under the ROC curve, 0.5 by
chance, the mean over several such models. Against counterparts of the same length, two of the seven are not needed.

`transplant` puts each part of the copy into the base instead, by what it writes on the right answers
(`probing.transplant`): how often is it the planted one that brings the loss nearest to the copy's? By weights the
question answers itself, since nothing else differs.

`removal` really removes the edges. The tables stand in docs/method.md. `--quick` takes two pairs, few questions and one
model by hand, and fails where removal does not find the circuit.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.removal import LOSSES, REMOVAL, load, methods, removed, with_counterparts
from probing.attribution import Attributor
from probing.graph import ResidualGraph
from probing.method import Loss, Reference
from probing.models import answer, use_threads_for
from probing.questions import encode
from probing.scoring import attribute
from probing.sequences import Sample
from probing.transplant.patching import loss_of, patched_loss
from probing.zoo import induction, planted, task
from probing.zoo.planted import PLANTS
from probing.zoo.recipes import QUESTIONS, ZOO

TRANSPLANT = "transplant"

FIRST = 10
FLOOR = 0.1
"""The share of the mean strength that is added to strengths before their ratio is taken."""

Key = tuple[str, Loss, Reference]
"""Path, or `removal`; loss; reference."""

Made = dict[Key, Float[np.ndarray, "sample edge"]]
"""Scores, or effects of removal."""

Rows = list[dict[str, Any]]


def made(
    attributor: Attributor, samples: Sequence[Sample], references: Sequence[Reference], real: Sequence[Loss]
) -> Made:
    """Every method's scores, and the effects of removal on some losses."""
    found: Made = {
        (m.path, m.loss, m.reference): attribute(attributor, samples, method=m).edges
        for m in methods(attributor.graph.granularity, references)
    }
    for reference in references:
        every = np.arange(attributor.graph.size)
        effects = removed(attributor, samples, every, reference, real)
        found |= {(REMOVAL, loss, reference): values for loss, values in effects.items()}
    return found


# -- planted pairs -----------------------------------------------------------------------------------------------------


def right_answers(problems: Sequence[task.Problem], tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """The same text for every model."""
    return with_counterparts(planted.demonstrations(problems, tokenizer))


def own_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[task.Problem]
) -> list[Sample]:
    """What a model itself says, right or wrong."""
    prompts = [encode(problem.question, tokenizer) for problem in problems]
    said = answer(model, tokenizer, prompts, task.LONGEST_ANSWER)
    return with_counterparts(
        [
            Sample(problem.question, (*prompt, *tokens), len(prompt), len(tokens))
            for problem, prompt, (tokens, _) in zip(problems, prompts, said, strict=True)
        ]
    )


def rankings(base: Float[np.ndarray, "sample edge"], tuned: Float[np.ndarray, "sample edge"]) -> dict[str, np.ndarray]:
    """What edges are ranked by, the largest first, by its name."""
    strengths = [np.abs(one).mean(0) for one in (base, tuned)]
    before, after = (one + FLOOR * np.mean(strengths) for one in strengths)
    return {"difference": np.abs(tuned.mean(0) - base.mean(0)), "ratio": np.abs(np.log(after / before))}


def recall(size: Float[np.ndarray, " edge"], graph: ResidualGraph, node: str) -> float:
    """The share of the ten largest edges that enter or leave a node."""
    first = np.argsort(-size, kind="stable")[:FIRST]
    return float(np.isin(first, touching(graph, node)).mean())


def touching(graph: ResidualGraph, node: str) -> Int[np.ndarray, " some"]:
    """The numbers of the edges that enter or leave a node."""
    return np.concatenate([graph.into(node), graph.out_of(node)])


def measure_pairs(plants: Sequence[str], questions: int, real: Sequence[Loss]) -> Rows:
    """A row for each text and method: recall of each plant at the first ten edges, and the mean over plants."""
    model, tokenizer = load(str(ZOO / "base"))
    problems = task.read_problems(QUESTIONS / "addition.jsonl")[:questions]

    def both(model: PreTrainedModel) -> tuple[dict[str, Made], ResidualGraph]:
        attributor = Attributor(model, "heads")
        texts = {"shared": right_answers(problems, tokenizer), "own": own_answers(model, tokenizer, problems)}
        return {text: made(attributor, samples, ["zero"], real) for text, samples in texts.items()}, attributor.graph

    base, graph = both(model)
    recalls: dict[tuple[str, ...], dict[str, float]] = {}
    for node in tqdm(plants, desc="planted pairs", disable=None):
        copy = planted.plant(model, tokenizer, node)
        tuned, _ = both(copy)
        first = first_by_transplant(model, copy, right_answers(problems, tokenizer))
        recalls.setdefault((TRANSPLANT, "shared", TRANSPLANT, "nll", ""), {})[node] = float(first == node)
        for text, of_text in tuned.items():
            for key, values in of_text.items():
                for by, size in rankings(base[text][key], values).items():
                    recalls.setdefault((by, text, *key), {})[node] = recall(size, graph, node)
    recalls["chance", "", "", "", ""] = {node: len(touching(graph, node)) / graph.size for node in plants}
    return [
        dict(zip(("by", "text", "method", "loss", "reference"), key, strict=True))
        | {"recall": _mean(found.values()), "plants": found}
        for key, found in recalls.items()
    ]


def first_by_transplant(base: PreTrainedModel, tuned: PreTrainedModel, samples: Sequence[Sample]) -> str:
    """The node whose writing, taken from the tuned model, brings the base's mean loss nearest to that model's."""
    host, donor = (Attributor(model, "heads") for model in (base, tuned))
    aim = loss_of(donor, samples).mean()
    missed = {node: abs(patched_loss(host, donor, [node], samples).mean() - aim) for node in host.graph.writers}
    return min(missed, key=lambda node: missed[node])


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


# -- a known circuit ---------------------------------------------------------------------------------------------------


def area(scores: Float[np.ndarray, " edge"], true: Sequence[bool]) -> float:
    """The area under the ROC curve of |scores|: how often a true edge has the larger one; ties count half."""
    size = np.abs(scores)
    ours, others = size[np.array(true)][:, None], size[~np.array(true)]
    return float(np.mean((ours > others) + (ours == others) / 2))


def measure_circuit(models: int, sequences: int, references: Sequence[Reference]) -> Rows:
    """A row for each method: its area under the ROC curve, the mean over models."""
    areas: dict[tuple[str, ...], list[float]] = {}
    for seed in tqdm(range(models), desc="models by hand", disable=None):
        model = induction.hand_built(seed)
        use_threads_for(model)
        attributor = Attributor(model, "heads")
        samples = with_counterparts(induction.sequences(sequences, seed))
        for (method, loss, reference), values in made(attributor, samples, references, LOSSES).items():
            needed = induction.CIRCUIT - (induction.BY_POSITION if reference == "patch" else frozenset())
            true = [name in needed for name in attributor.graph.edges]
            areas.setdefault((method, loss, reference), []).append(area(values.mean(0), true))
    return [
        {"method": method, "loss": loss, "reference": reference, "area": _mean(found), "lowest": min(found)}
        for (method, loss, reference), found in areas.items()
    ]


# -- tables ------------------------------------------------------------------------------------------------------------


def table(pairs: Rows, circuit: Rows) -> Iterator[str]:
    """Recalls by difference and by ratio, on both texts, and areas, as a table in Markdown."""
    recalls = {
        (*(row[name] for name in ("by", "text", "method", "loss", "reference")),): row["recall"] for row in pairs
    }
    columns = [(by, text) for by in ("difference", "ratio") for text in ("shared", "own")]
    yield f"| method | loss | reference | {' | '.join(f'{by}, {text}' for by, text in columns)} | known circuit |"
    yield "|---" * 8 + "|"
    for row in circuit:
        key = row["method"], row["loss"], row["reference"]
        cells = [recalls.get((*column, *key)) for column in columns]
        shown = ["" if cell is None else format(cell, ".2f") for cell in (*cells, row["area"])]
        yield f"| {' | '.join((*key, *shown))} |"
    found = format(recalls[TRANSPLANT, "shared", TRANSPLANT, "nll", ""], ".2f")
    yield f"| {TRANSPLANT} | nll | | {found} | | | | |"
    chance = format(recalls["chance", "", "", "", ""], ".2f")
    yield f"| chance | | | {' | '.join([chance] * len(columns))} | 0.50 |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    quick = arguments.quick
    pairs = measure_pairs(PLANTS[1:4:2], 4, ()) if quick else measure_pairs(PLANTS, 12, ("nll", "margin"))
    circuit = measure_circuit(1, 12, ["zero"]) if quick else measure_circuit(5, 20, get_args(Reference))
    rows = {"pairs": pairs, "circuit": circuit}
    print(json.dumps(rows, indent=2) if arguments.json else "\n".join(table(pairs, circuit)))
    missed = [row for row in circuit if row["method"] == REMOVAL and row["lowest"] < 1]
    sys.exit(f"removal does not find the circuit: {missed}" if missed else 0)


if __name__ == "__main__":
    main()
