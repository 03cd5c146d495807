"""What pages share is not changed by their looking at it."""

import gc
import weakref
from pathlib import Path

import pandas as pd

from dashboard import data


def _notes() -> int:
    gc.collect()
    return sum(type(thing) is weakref.ReferenceType for thing in gc.get_objects())


def test_a_table_that_many_look_at_gathers_nothing(full: Path) -> None:
    (key, *_) = data.comparisons()["comparison_key"]
    mean = data.per_question(key)["loss_base"].mean()
    before = _notes()
    for _ in range(200):
        assert data.per_question(key)["loss_base"].mean() == mean
    assert _notes() < before + 50


def test_what_one_writes_to_a_table_no_other_sees(full: Path) -> None:
    (key, *_) = data.comparisons()["comparison_key"]
    table = data.per_question(key)
    untouched = table.copy()
    table.loc[:, "loss_base"] = 0.0
    table["more"] = 1
    pd.testing.assert_frame_equal(data.per_question(key), untouched)
