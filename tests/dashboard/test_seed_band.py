"""Figures that draw what other seeds do, and changes beside it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from probing.edge_tables import Breakdown
from probing.figures import forest, layers, strips
from probing.figures.theme import BASE, NEUTRAL, TUNED
from probing.graph import graph_of

LABELS = ("a0<q>", "a0<k>", "m0", "logits")

CHANGES = Breakdown(
    LABELS, np.zeros((4, 3)), np.zeros((4, 3)), np.array([0.3, 0.3, -0.3, 0.1]), np.array([0.2, 0.2, -0.4, -0.1]),
    np.array([0.4, 0.4, -0.2, 0.3]),
)  # fmt: skip

SEEDS = (np.array([0.0, 0.0, -0.1, 0.0]), np.array([0.1, 0.25, 0.0, 0.05]))
"""Below the first interval, into the second, short of the third, and inside the last, which holds zero too."""


def test_a_ring_stands_where_an_interval_excludes_the_seed_band_too() -> None:
    figure = layers.by_kind(CHANGES, graph_of(1), SEEDS)
    dots, rings = figure.data[1:]
    assert list(zip(dots.x, dots.y, strict=True)) == [("q", "0"), ("k", "0"), ("mlp", "0")]
    assert list(zip(rings.x, rings.y, strict=True)) == [("q", "0"), ("mlp", "0")]
    assert rings.marker.symbol == "circle-open"
    without = layers.by_kind(CHANGES, graph_of(1))
    assert len(without.data[2].x) == 0
    assert len(without.data[1].x) == 3


def test_bars_reach_from_one_end_of_the_seed_band_to_the_other() -> None:
    figure = strips.differences(CHANGES, "kind of reader", SEEDS)
    (bars,) = (trace for trace in figure.data if trace.type == "bar")
    assert list(bars.base) == pytest.approx(list(SEEDS[0]))
    assert [base + height for base, height in zip(bars.base, bars.y, strict=True)] == pytest.approx(list(SEEDS[1]))
    plain = strips.differences(replace(CHANGES), "kind of reader")
    assert not any(trace.type == "bar" for trace in plain.data)


def _row(pair: str, definition: str, low: float, middle: float, high: float, **more: object) -> dict:
    seeds = {"seeds_low": -0.05, "seeds_high": 0.4}
    kind = {"exact": False, "estimated": False}
    ends = {"relative": middle, "relative_low": low, "relative_high": high}
    return {"pair": pair, "definition": definition, **ends, **seeds, **kind, **more}


def test_changes_stand_below_their_pairs_with_intervals_and_bands() -> None:
    rows = pd.DataFrame([
        _row("GRPO", "first", -0.8, -0.7, -0.6),
        _row("GRPO", "real", 0.02, 0.06, 0.1, exact=True),
        _row("<b>", "first", -np.inf, 0.1, np.inf, seeds_low=np.nan, seeds_high=np.nan),
        _row("<b>", "real", -0.1, 0.1, 0.3, exact=True, estimated=True),
    ])  # fmt: skip
    figure = forest.changes(rows, "Intensity")
    assert list(figure.layout.yaxis.ticktext) == [
        "<b>GRPO</b>", "first", "real", "<b>&lt;b&gt;</b>", "first", "real",
    ]  # fmt: skip
    bands, points = figure.data
    assert list(points.y) == [1, 2, 4, 5]
    assert list(points.x) == pytest.approx([-70, 6, 10, 10])
    assert list(points.error_x.array) == pytest.approx([10, 4, 0, 20])
    assert list(points.error_x.arrayminus) == pytest.approx([10, 4, 0, 20])
    assert list(points.marker.symbol) == ["circle", "diamond", "circle", "diamond-open"]
    assert list(points.marker.color)[:2] == [BASE, TUNED]
    assert list(points.marker.color)[2:] == [NEUTRAL, NEUTRAL]
    assert "no interval" in points.text[2]
    assert list(bands.x)[:2] == pytest.approx([-5, 40])
    assert [y for y in bands.y if y == y] == [1, 1, 2, 2, 5, 5]
    one = forest.changes(rows[:2], "Intensity")
    assert list(one.layout.yaxis.ticktext) == ["first", "real"]
