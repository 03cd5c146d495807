"""The notebooks of docs/notebooks, run from top to bottom, and numbers in them against the literal decoder."""

import ast
import os
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from probing.graph import Edge, ResidualGraph, graph_of
from probing.sequences import Sample
from tests import literal
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

_ASKED = {
    "1-score-your-own-pair": "after.edges[:2].tolist()",
    "2-check-an-edge": "[strongest[:5], effects.effects[:2, :5].tolist()]",
    "3-circuits-and-faithfulness": "[circuits.tolist(), [one.value for one in found['tuned'].curves['tuned'].f]]",
}
"""What a notebook is asked for when it has run, by its name."""


@pytest.fixture(scope="module")
def grpo(zoo: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(zoo / "grpo", dtype=torch.float64).eval().requires_grad_(False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_numbers_are_the_literal_decoders(
    path: Path, grpo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "is committed as it is before it is run"
    if asked := _ASKED.get(path.stem):
        samples = "[(s.id, s.input_ids, s.answer_start, s.answer_length) for s in asked.tuned]"
        notebook.cells.append(nbformat.v4.new_code_cell(f"print(({samples}, {asked}))"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    drawn = [out for cell in code for out in cell.outputs if "application/vnd.plotly.v1+json" in out.get("data", {})]
    assert drawn, "a notebook shows something"
    if asked:
        samples, found = ast.literal_eval(notebook.cells[-1].outputs[-1].text)
        _CHECKS[path.stem](grpo, [Sample(*one) for one in samples], found)


def _are_scores(model: Any, samples: list[Sample], scores: list[list[float]]) -> None:
    graph = graph_of(len(model.model.layers))
    for sample, found in zip(samples, scores, strict=False):
        expected = graph.to_edges(literal.scores(model, sample, graph.writers, graph.readers).numpy())
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5 * np.abs(expected).max())


def _are_effects(model: Any, samples: list[Sample], found: tuple[list[str], list[list[float]]]) -> None:
    for sample, row in zip(samples, found[1], strict=False):
        whole, written, _ = literal.run(model, sample)
        for name, effect in zip(found[0], row, strict=True):
            edge = Edge.of(name)
            without, *_ = literal.run(model, sample, {edge.reader.name: -written[edge.writer.name]})
            assert effect == pytest.approx(float(without - whole), rel=1e-3, abs=1e-6)


def _are_shares(model: Any, samples: list[Sample], found: tuple[list[list[bool]], list[float]]) -> None:
    graph, (circuits, f) = graph_of(len(model.model.layers)), found
    written = [literal.run(model, sample)[1] for sample in samples]
    means = {writer: torch.cat([one[writer] for one in written]).mean(0) for writer in graph.writers}
    rows = np.zeros(graph.size, bool), np.array(circuits[8]), np.ones(graph.size, bool)
    none, some, whole = (np.mean([_margin(model, graph, one, row, means) for one in samples]) for row in rows)
    assert f[8] == pytest.approx((some - none) / (whole - none), rel=1e-3, abs=1e-4)
    assert f[8] != pytest.approx(1, abs=0.01), "something is lost, or won"


def _margin(
    model: Any, graph: ResidualGraph, sample: Sample, inside: np.ndarray, means: dict[str, torch.Tensor]
) -> float:
    """The margin of what is left when means stand in for all that is outside a circuit."""
    offsets: dict[str, torch.Tensor] = {}
    matrix = graph.to_matrix(inside)
    for _ in range(2 * graph.layers + 1):  # each run settles what one more block is given
        written = literal.run(model, sample, offsets)[1]
        for column, reader in enumerate(graph.readers):
            outside = [graph.writers[row] for row in range(graph.writers_before[column]) if not matrix[row, column]]
            if outside:
                offsets[reader] = torch.stack([means[writer] - written[writer] for writer in outside]).sum(0)
    return -float(literal.run(model, sample, offsets, loss="margin")[0])


_CHECKS = {
    "1-score-your-own-pair": _are_scores,
    "2-check-an-edge": _are_effects,
    "3-circuits-and-faithfulness": _are_shares,
}
