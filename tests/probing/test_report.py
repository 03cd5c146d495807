"""The tables that docs/findings.md is made of."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probing.cuts import Cut
from probing.errors import StoreError
from probing.jobs.plan import SIDES, Spec
from probing.jobs.worker import follow
from probing.method import Method
from probing.metrics import Definition
from probing.pairs import load_registry
from probing.report import _per_nat, accuracy_gain, report
from probing.rollouts import Criteria
from probing.store import open_store


def test_a_table_says_what_the_scores_say(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    with pytest.raises(StoreError, match="no comparison of grpo"):
        list(report(store, load_registry(), ["grpo"]))
    spec = Spec("grpo", "addition", (Cut(0.1), Cut(0.3)), Criteria(n=15))
    follow(store, store.queue.submit(spec.as_json()), lambda *_: None)
    lines = list(report(store, load_registry(), ["grpo"]))
    assert lines[0] == "**GRPO** (base → grpo, GRPO)"
    assert lines[2].startswith("Right answers: 58.8% → 100.0% of 500 questions, +41.2 points")
    rows = [line.split(" | ") for line in lines if line.startswith("| 0.")]
    assert [row[0] for row in rows] == ["| 0.1", "| 0.3"]
    assert all(row[2] == "15" for row in rows)
    for row, (_, kept) in zip(rows, store.comparisons.table().sort_values("alpha").iterrows(), strict=True):
        base, tuned = (store.runs.scores(kept[f"{side}_run"]) for side in SIDES)
        cells = [[float(x) for x in re.findall(r"[\d.]+(?:e-\d+)?", cell)[:2]] for cell in row[3:]]
        for cell in row[3:]:
            relative, low, high = map(int, re.findall(r"[+-]\d+(?= %| to|\))", cell))
            assert -100 <= low <= relative <= high
        losses = [base.loss.mean(), tuned.loss.mean()]
        intensities = [np.abs(s.matrix()).mean() for s in (base, tuned)]
        assert cells[0] == pytest.approx(losses, rel=1e-2)
        assert cells[1] == pytest.approx(intensities, rel=1e-2)
        assert cells[-1] == pytest.approx(np.divide(intensities, losses), rel=1e-2)
    with pytest.raises(StoreError, match="no comparison of grpo"):
        list(report(store, load_registry(), ["grpo"], method=Method("blocks")))
    follow(
        store, store.queue.submit(replace(spec, cuts=(Cut(0.3),), method=Method("blocks")).as_json()), lambda *_: None
    )
    (coarser,) = (
        line.split(" | ")
        for line in report(store, load_registry(), ["grpo"], method=Method("blocks"))
        if line.startswith("| 0.")
    )
    assert coarser[:4] == rows[1][:4], "the same answers and losses"
    assert coarser[4] != rows[1][4], "other edges"
    assert lines == list(report(store, load_registry(), ["grpo"]))
    store.close()


def test_answers_that_are_alike_leave_doubt_about_the_gain() -> None:
    # Tango's interval then ends at z^2 / (n + z^2) on both sides, z being 1.96.
    alike = [(True, True)] * 60 + [(False, False)] * 40
    assert accuracy_gain(alike) == (
        "Right answers: 60.0% → 60.0% of 100 questions, +0.0 points (95 % interval -3.7 to +3.7)."
    )
    assert accuracy_gain(alike * 1000).endswith("+0.0 points (95 % interval -0.0038 to +0.0038).")


def test_the_gains_interval_is_that_of_paired_answers() -> None:
    # Of 21 patients 1 became well and 7 fell ill: Fagerland, Lydersen and Laake, Statistical Analysis of Contingency
    # Tables (2017), chapter 8, give Tango's interval as -0.517 to -0.026.
    right = [(False, True)] + [(True, False)] * 7 + [(True, True)] + [(False, False)] * 12
    assert accuracy_gain(right) == (
        "Right answers: 38.1% → 9.5% of 21 questions, -28.6 points (95 % interval -51.7 to -2.6)."
    )


def test_intensity_per_nat_by_hand() -> None:
    rows = [
        {"question_id": q, "metric": metric, "base": base, "tuned": tuned}
        for q in ("a", "b", "c")
        for metric, base, tuned in (("activation_intensity", 2.0, 3.0), ("loss", 4.0, 2.0))
    ]
    assert _per_nat(pd.DataFrame(rows), Definition(resamples=50)) == "0.5 → 1.5, +200 % (+200 to +200)"
