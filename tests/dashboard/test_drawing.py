"""Figures that are kept: the same for the same arguments, another for others."""

from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from dashboard import drawing
from dashboard.drawing import MOST, SMALL, drawn


@pytest.fixture(autouse=True)
def _none_kept() -> None:
    drawing._figures.clear()


def _draw(values: object, size: float = 1) -> go.Figure:
    return go.Figure(layout={"title": str(size)})


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (1, 1, 1.0),
        (1, 1, True),
        ("a", "a", "b"),
        ([1, 2], [1, 2], (1, 2)),
        ({"a": [1]}, {"a": [1]}, {"a": [2]}),
        (np.arange(3), np.arange(3), np.arange(3.0)),
        (np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((3, 2))),
        (pd.DataFrame({"a": [1.0, np.nan]}), pd.DataFrame({"a": [1.0, np.nan]}), pd.DataFrame({"b": [1.0, np.nan]})),
        (pd.DataFrame({"a": ["x"]}), pd.DataFrame({"a": ["x"]}), pd.DataFrame({"a": ["y"]})),
        (pd.DataFrame({"a": [1]}, [0]), pd.DataFrame({"a": [1]}, [0]), pd.DataFrame({"a": [1]}, [1])),
    ],
)
def test_equal_arguments_give_the_same_figure(one: object, same: object, other: object) -> None:
    first = drawn(partial(_draw, one), dark=False)
    assert drawn(partial(_draw, same), dark=False) is first
    assert drawn(partial(_draw, other), dark=False) is not first
    assert drawn(partial(_draw, one, size=2), dark=False) is not first
    assert drawn(partial(_draw, one), dark=True) is not first
    assert drawn(partial(_draw, one), dark=True).layout.font.color != first.layout.font.color


def test_a_large_array_is_the_same_only_as_itself() -> None:
    large = np.zeros(SMALL + 1)
    first = drawn(partial(_draw, large), dark=False)
    assert drawn(partial(_draw, large), dark=False) is first
    assert drawn(partial(_draw, large.copy()), dark=False) is not first


def test_no_more_than_so_many_are_kept() -> None:
    first = drawn(partial(_draw, 0), dark=False)
    for number in range(MOST - 1):
        drawn(partial(_draw, number + 1), dark=False)
    assert drawn(partial(_draw, 0), dark=False) is first
    drawn(partial(_draw, -1), dark=False)
    assert len(drawing._figures) == MOST
    assert drawn(partial(_draw, 0), dark=False) is first, "the one that was used last is not the first to go"
