"""Every causal language model that the installed transformers knows: does it work, and if not, why not?

`python -m tests.families [TYPE ...] [--json]` builds a tiny random model of each type. Each works, which means that
every reader's scores are those of a slow twin (`tests/perturbed.py`), those of heads too, which add up to their
blocks', and that the loss without an edge is that twin's, also where a pass goes on from the edge's layer; or is
refused in one sentence that says which part of it is not understood; a type that transformers itself does not build on
this machine is listed with its reason. The command ends with 1 if a model is wrong: scores that differ, or an error
that is no refusal. `--readme` writes the README's list of types that work.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from probing.ablation import effects, loss_without
from probing.attribution import Attributor
from probing.errors import ModelError
from probing.graph import Edge, Granularity
from probing.scores import Scores
from probing.sequences import Sample
from tests import perturbed
from tests.shrunk import TYPES, shrunk

SAMPLE = Sample("s", (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8), answer_start=5, answer_length=6)

CLOSE = 1e-6
"""Largest relative difference that rounding explains, of one reader's scores."""

SUMS = 1e-5
"""Largest relative difference of a block's scores from the sums of its heads'."""

README = Path(__file__).parent.parent / "README.md"

_MARKS = ("<!-- types that work, by `python -m tests.families --readme` -->", "<!-- end of types -->")


@dataclass(frozen=True)
class Verdict:
    """What came of one type."""

    type: str
    outcome: str
    """`works`, `refused`, `not built` or `wrong`."""
    said: str = ""
    edges: int = 0
    """At the granularity of projections."""
    whole: int = 0
    """Layers whose attention block reads as one."""
    divided: int = 0
    """Layers whose heads are told apart."""
    difference: float = 0.0
    """Of a reader's scores from the twin's, relative to the larger of its norm and a millionth of the largest norm."""


def check(kind: str, **more: Any) -> Verdict:
    """Build a model of that type, with `more` of its config set, and try it."""
    try:
        model = shrunk(kind, **more)
    except Exception as error:  # whatever a type asks of this machine or of its config
        return Verdict(kind, "not built", _one_line(error))
    try:
        return _compared(kind, model)
    except ModelError as error:
        return Verdict(kind, "refused", error.what)
    except Exception as error:
        return Verdict(kind, "wrong", _one_line(error))


def _compared(kind: str, model: PreTrainedModel) -> Verdict:
    verdict, scores = _judged(kind, model, "projections")
    heads, parts = _judged(kind, model, "heads")
    if verdict.outcome == heads.outcome == "works":
        summed = parts.graph.merge(parts.edges, "projections")
        if np.linalg.norm(summed - scores.edges) > SUMS * np.linalg.norm(scores.edges):
            return replace(verdict, outcome="wrong", said="its heads do not add up to their blocks")
    worse = heads if verdict.outcome == "works" else verdict
    return replace(worse, edges=verdict.edges, difference=max(verdict.difference, heads.difference))


def _judged(kind: str, model: PreTrainedModel, granularity: Granularity) -> tuple[Verdict, Scores]:
    with perturbed.InFloat64():
        attributor = Attributor(model, granularity)
        graph = attributor.graph
        attributor.batches([SAMPLE])
        scores = attributor.score([SAMPLE])
        found = torch.from_numpy(scores.matrix()[0])
        layers = [block.layer for block in attributor.architecture.blocks]
        seen = perturbed.walk(model, layers, SAMPLE, graph.writers)
        expected = perturbed.scores(model, layers, SAMPLE, graph.writers, graph.readers, seen)
        some = range(sum(kind.encode()) % (graph.size // 2), graph.size, graph.size // 2)  # others for other types
        ends = [(edge.writer.name, edge.reader.name) for edge in map(Edge.of, graph.names(some))]
        removed = perturbed.losses_without(model, layers, SAMPLE, graph.writers, graph.readers, ends, seen)
        losses = [float(loss_without(attributor, [SAMPLE], [number])[0]) for number in some]
        at_once = loss_without(attributor, [SAMPLE], [])[0] + effects(attributor, [SAMPLE], some)[0]
    norms = expected.norm(dim=0)
    difference = float(((found - expected).norm(dim=0) / norms.clamp_min(1e-6 * float(norms.max()))).max())
    unseen = bool((expected.numpy() != 0)[~graph.mask].any())
    said = "an edge is missing from the graph" if unseen else "" if difference < CLOSE else "its scores differ"
    if not said and not np.allclose(losses, removed, rtol=CLOSE, atol=0):
        said = "its losses without an edge differ"
    if not said and not np.allclose(at_once, losses, rtol=CLOSE, atol=0):
        said = "its losses without an edge differ where many are removed in a batch"
    outcome, divided = "wrong" if said else "works", sum(heads is not None for heads in graph.heads)
    said = said and f"{said} at the granularity of {granularity}"
    return Verdict(kind, outcome, said, graph.size, len(graph.whole), divided, difference), scores


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()[:200]


def listed() -> set[str]:
    """The types that the README says work."""
    between = README.read_text().split(_MARKS[0])[1].split(_MARKS[1])[0]
    return set(re.findall(r"`([\w-]+)`", between))


def _write_list(working: list[str]) -> None:
    before, rest = README.read_text().split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    lines, line = [], ""
    for word in [f"`{kind}`{',' if kind != working[-1] else '.'}" for kind in working]:
        if len(line) + len(word) + 1 > 120:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    README.write_text(f"{before}{_MARKS[0]}\n{chr(10).join([*lines, line])}\n{_MARKS[1]}{after}")


def main() -> int:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.families", description=__doc__)
    parser.add_argument("types", nargs="*", default=TYPES, metavar="TYPE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--readme", action="store_true", help="write the README's list")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):  # some models print
        verdicts = [check(kind) for kind in arguments.types]
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(verdict) for verdict in verdicts], indent=2) + "\n")
    else:
        for v in verdicts:
            numbers = f"{v.edges:>4} {v.difference:>8.0e}" if v.edges else " " * 13
            sys.stdout.write(f"{v.type:26}{v.outcome:10}{numbers}  {v.said or _how(v)}\n")
        counts = {
            outcome: sum(v.outcome == outcome for v in verdicts) for outcome in sorted({v.outcome for v in verdicts})
        }
        sys.stdout.write(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "\n")
    if arguments.readme:
        _write_list([v.type for v in verdicts if v.outcome == "works"])
    return int(any(v.outcome == "wrong" for v in verdicts))


def _how(verdict: Verdict) -> str:
    if verdict.outcome == "works" and not verdict.divided:
        return "its heads are not told apart"
    return f"attention reads as one in {verdict.whole} layers" if verdict.whole else ""


if __name__ == "__main__":
    sys.exit(main())
