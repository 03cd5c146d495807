"""The command that runs circuits found from scores, from few edges to all."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from probing.cli.shared import loaded, progress_bar
from probing.errors import ScoresError
from probing.extraction import circuits, random_circuits
from probing.method import Loss
from probing.metrics import Definition, areas, curve, kept

_MEASURED: dict[Loss, str] = {"nll": "loss", "margin": "margin", "log-odds": "log-odds"}
"""What is measured of each loss."""


def circuit(arguments: argparse.Namespace) -> None:
    """Run the circuits that scores make, everything outside them replaced: what is kept of the model at each size."""
    from probing.attribution import find_references
    from probing.faithfulness import run_circuits
    from probing.scores import read_scores

    scores = read_scores(arguments.scores)
    arguments.granularity = scores.graph.granularity
    reference = arguments.reference or scores.method.reference
    there = loaded(arguments)
    samples, attributor, graph = there.samples, there.attributor, there.attributor.graph
    if scores.graph != graph:
        raise ScoresError(
            f"{arguments.scores} has scores of {scores.graph.size:,} edges of another graph than this model's, which "
            f"has {graph.size:,}.",
            "Score this model, or one of its architecture, with 'python -m probing attribute'.",
        )
    shares = sorted({0.0, *arguments.keep, 1.0})
    mean = scores.edges.mean(0, dtype=np.float64)
    found = circuits(graph, mean, arguments.extract, arguments.by, shares)
    draws = [
        random_circuits(graph, found.sum(1).tolist(), np.random.default_rng([arguments.seed, draw]))
        for draw in range(arguments.random)
    ]
    with progress_bar() as progress:
        measured = run_circuits(
            attributor,
            samples,
            np.concatenate([found, *draws]),
            find_references(attributor, reference, samples, arguments.batch_size),
            arguments.batch_size,
            lambda done, total: progress("circuits", done, total),
        )
    values = {name: each.reshape(1 + len(draws), len(shares), -1) for name, each in measured.items()}
    definition, measure = Definition(), _MEASURED[arguments.loss]
    told: dict[str, Any] = {
        "model": arguments.model,
        "method": scores.method.as_json(),
        "samples": len(samples),
        "scored": {"samples": len(scores.ids), "of_these": len({one.id for one in samples} & set(scores.ids))},
        "edges": graph.size,
        "granularity": graph.granularity,
        "positions": "all",
        "reference": reference,
        "extraction": arguments.extract,
        "best": arguments.by,
        "measure": measure,
        "random": {"circuits": arguments.random, "seed": arguments.seed},
        "device": attributor.model.device.type,
        "dtype": str(attributor.model.dtype).removeprefix("torch."),
    }
    told["interval"] = {name: getattr(definition, name) for name in ("confidence", "resamples", "seed")}
    told |= _kept(values, found.sum(1), shares, measure, definition)
    print(json.dumps(told, indent=2) if arguments.json else "\n".join(_lines(told, scores.method.words)))


def _kept(
    values: dict[str, Float[np.ndarray, "draw share sample"]],
    sizes: Int[np.ndarray, " share"],
    shares: list[float],
    measure: str,
    definition: Definition,
) -> dict[str, Any]:
    """What circuits keep, which come first, and random ones; numbers that do not exist are None."""
    own, *drawn = values[measure]
    found = curve(own, own[0], own[-1], shares, definition)
    by_chance = np.array([kept(values, own[0], own[-1]) for values in drawn]).reshape(-1, len(shares))
    areas_by_chance = areas(by_chance, shares)
    rows: list[dict[str, Any]] = [
        {
            "share": share,
            "edges": int(size),
            **{name: float(each[0, place].mean(dtype=np.float64)) for name, each in values.items()},
            "f": _clean(asdict(found.f[place])),
            "random": _range(by_chance[:, place]),
        }
        for place, (share, size) in enumerate(zip(shares, sizes, strict=True))
    ]
    of_all = {name: {**_clean(asdict(a)), "random": _range(areas_by_chance[name])} for name, a in found.areas.items()}
    return {"sizes": rows, "areas": of_all}


def _range(values: Float[np.ndarray, " draw"]) -> dict[str, float | None] | None:
    if not len(values):
        return None
    return _clean({"mean": float(values.mean()), "low": float(values.min()), "high": float(values.max())})


def _clean(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in numbers.items()}


def _lines(told: dict[str, Any], method: list[str]) -> Iterator[str]:
    """The same for people."""
    scored, interval = told["scored"], told["interval"]["confidence"]
    made = "".join(f", {words}" for words in method)
    yield (
        f"Circuits of {told['edges']:,} edges ({told['granularity']}), by {told['extraction']} {told['best']}. Scores "
        f"of {scored['samples']} samples{made}; {scored['of_these']} of them among the {told['samples']} that are run."
    )
    yield (
        f"Outside them edges are replaced at all positions, reference: {told['reference']}. f is of the "
        f"{told['measure']}, with {interval:.0%} intervals over samples."
    )
    if told["random"]["circuits"]:
        yield f"Random: from the lowest to the highest of {told['random']['circuits']} circuits of the same sizes."
    yield ""
    yield f"{'size':>7}{'edges':>9}{'loss':>9}{'margin':>9}{'agreement':>11}{'f':>8}   {'interval':20}random"
    for row in told["sizes"]:
        yield (
            f"{row['share']:>7.1%}{row['edges']:>9,}{row['loss']:>9.3f}{row['margin']:>9.3f}{row['agreement']:>11.1%}"
            f"{_number(row['f']['value']):>8}   {_ends(row['f']):20}{_ends(row['random'])}".rstrip()
        )
    yield ""
    for name, area in told["areas"].items():
        yield f"{name:15}{_number(area['value']):>9}   {_ends(area):20}{_ends(area['random'])}".rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ends(numbers: dict[str, float | None] | None) -> str:
    if numbers is None or numbers["low"] is None or numbers["high"] is None:
        return ""
    return f"[{numbers['low']:.3f}, {numbers['high']:.3f}]"
