"""What docs/scale.md says is what the code says, and its cluster file is one that Ray takes."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
import yaml

from benchmarks.gpus import H100, assumed, lines
from benchmarks.scaling import Row, Size, factors, powers
from probing import fitting
from probing.fitting import Work
from tests.conftest import ROOT

DOCUMENT = (ROOT / "docs" / "scale.md").read_text()


def _block(begins: str) -> list[str]:
    (found,) = (block for block in re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL) if block.startswith(begins))
    return found.splitlines()


def _table(heading: str) -> list[list[str]]:
    """The cells of the rows of the table under a heading."""
    section = DOCUMENT.split(heading)[1]
    rows = [line.strip("|").split("|") for line in section[section.index("|") :].split("\n\n")[0].splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_arithmetic_for_eight_gpus_is_the_forecasts() -> None:
    assert list(lines(assumed("deepseek-math", "math"), H100, 8)) == _block("DeepSeekMath 7B")


def test_the_arithmetic_by_hand() -> None:
    """That of the longest part, from the shape that is published and the sheet of the GPU."""
    forecast = assumed("deepseek-math", "math")
    shape = forecast.models["base"].shape
    assert shape is not None
    weights = 2 * 6.91e9
    each = 2 * 30 * 32 * 128 * (256 + 4096) * 2 + 8 * 102_400  # keys and values of all tokens, and logits
    batch = int((80e9 - weights) / 4 / each)
    rounds = -(-625 // batch)
    half = 2 * 30 * 32 * 128 * (256 + 2048) * 2 + 8 * 102_400
    read = 4096 * (rounds * weights + 3 * 625 * half)
    part = forecast.answers(shape, 625, "bfloat16")
    assert part.batch == batch
    assert part.work.bytes == pytest.approx(read, rel=1e-3)
    seconds = fitting.ANSWERING.bytes * read / (0.7 * 3.35e12)
    seconds += fitting.ANSWERING.operations * part.work.operations / (0.6 * 989e12)
    seconds += fitting.ANSWERING.calls * 4097 * rounds * 30 * 5e-6
    assert part.seconds == pytest.approx(seconds, rel=1e-3)


@pytest.mark.parametrize(
    ("work", "name"), [("scoring, projections", "SCORING"), ("scoring, heads", "SCORING_HEADS"),
                       ("an edge removed", "RUNNING"), ("answering", "ANSWERING")]
)  # fmt: skip
def test_the_factors_in_the_document_are_those_of_the_forecast(work: str, name: str) -> None:
    (row,) = (row for row in _table("### What the forecast makes of it") if row[0] == work)
    used: Work = getattr(fitting, name)
    assert [float(cell.split()[-1]) for cell in row[1:4]] == [used.operations, used.bytes, used.calls]


def _rows(seconds: Sequence[float], terms: np.ndarray, sizes: Sequence[Size]) -> list[Row]:
    return [
        Row("heads", size, second, 1.0, tuple(term), 1.0)
        for second, term, size in zip(seconds, terms.tolist(), sizes, strict=True)
    ]


def test_the_fits_find_factors_and_powers_that_were_put_in() -> None:
    rng = np.random.default_rng(0)
    terms = rng.lognormal(0, 1, (40, 3))
    sizes = [Size(*map(int, row)) for row in rng.integers(2, 60, (40, 5))]
    found, explained = factors(_rows((terms @ [1.5, 0.25, 40]).tolist(), terms, sizes))
    assert found == pytest.approx([1.5, 0.25, 40])
    assert explained == pytest.approx(1)
    seconds = [3 * size.layers**1.5 * size.width**0.5 * size.tokens**2 / size.samples for size in sizes]
    grown, explained = powers(_rows(seconds, terms, sizes))
    expected = {"layers": 1.5, "width": 0.5, "heads": 0, "tokens": 2, "samples": -1}
    assert grown == pytest.approx(expected, abs=1e-9)
    assert explained == pytest.approx(1)


def test_ray_takes_the_cluster_file() -> None:
    ray = pytest.importorskip("ray.autoscaler._private.util")
    config = ray.prepare_config(yaml.safe_load((ROOT / "docs" / "cluster.yaml").read_text()))
    ray.validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
