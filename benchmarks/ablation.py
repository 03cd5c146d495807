"""What the real removal of every edge costs, in forward passes: `python -m benchmarks.ablation [--json] [--quick]`.

On one thread, with a Llama of SmolLM2-135M's shape and random weights, one sequence of 77 tokens and float32. A bare
forward pass is one without hooks and with logits for the answer alone, at the same batch size, measured in between (a
median). The average is over all edges of the graph: its readers, in order, are cut into equal parts, all edges into the
middle reader of each part are removed, each alone, and what one takes stands for every edge into the part's readers.
Every thirtieth of those effects is compared with the loss without the edge, in a pass over the whole model. `--quick`
uses a small model.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.shape import ANSWER, model_of_shape, sample_for
from probing.ablation import effects, loss_without
from probing.attribution import Attributor
from probing.sequences import Sample

PARTS, BATCH = 11, 8

COMPARED = 30
"""One of so many effects."""


def _bare(model: LlamaForCausalLM, sample: Sample) -> Callable[[], None]:
    tokens = torch.tensor([sample.fed] * BATCH)

    def run() -> None:
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False, logits_to_keep=ANSWER)

    return run


def measure(quick: bool) -> dict[str, float]:
    """Seconds of a forward pass and of an edge, for one sample; their ratio, and how exact effects are."""
    torch.set_num_threads(1)
    model = model_of_shape(quick)
    sample, attributor = sample_for(model), Attributor(model)
    reader = attributor.graph.edge_index[1]
    parts = np.array_split(np.arange(len(attributor.graph.readers)), PARTS)
    assert all(attributor.resumable)  # which the first use measures
    chosen = [np.flatnonzero(reader == part[len(part) // 2]) for part in parts]
    edges = np.concatenate(chosen)
    ends = np.cumsum([0, *map(len, chosen)]).tolist()
    bare, passes = _bare(model, sample), []
    bare()  # a warm-up
    began: dict[int, float] = {}
    ended: dict[int, float] = {}

    def note(done: int) -> None:
        if done in ends:
            ended[done] = time.perf_counter()
            bare()
            began[done] = time.perf_counter()
            passes.append((began[done] - ended[done]) / BATCH)

    found = effects(attributor, [sample], edges, batch_size=BATCH, progress=note)[0]
    each = [(ended[end] - began[start]) / (end - start) for start, end in pairwise(ends)]
    stands_for = [np.isin(reader, part).sum() for part in parts]
    forward, per_edge = statistics.median(passes), float(np.average(each, weights=stands_for))
    whole = loss_without(attributor, [sample], [])[0]
    some = range(0, len(edges), COMPARED)
    exactly = np.array([loss_without(attributor, [sample], [edges[i]])[0] - whole for i in some])
    return {
        "forward_seconds": forward,
        "edge_seconds": per_edge,
        "forward_passes_per_edge": per_edge / forward,
        "edges": attributor.graph.size,
        "edges_measured": len(edges),
        "batch_size": BATCH,
        "largest_difference": float(np.abs(found[list(some)] - exactly).max()),
        "largest_effect": float(np.abs(exactly).max()),
    }


def main() -> None:
    """Print the figures, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small model")
    arguments = parser.parse_args()
    m = measure(arguments.quick)
    if arguments.json:
        print(json.dumps(m, indent=2))
        return
    for name, value in m.items():
        print(f"{name.replace('_', ' '):28}{value:>12.6g}")


if __name__ == "__main__":
    main()
