"""Which of several transplants of a pair speak for it."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from probing.evidence import by_direction, speaking
from probing.jobs.tasks import Transplant
from probing.store.records import EvaluationRow

NEW_YEAR = datetime(2026, 1, 1)


def _row(key: str, questions: int, day: int, **settings: Any) -> EvaluationRow:
    asked = {"identity": settings.pop("tuned", "sha256:2"), "questions": "q", "dtype": settings.pop("dtype", "float32")}
    told = {"what": "weights", "direction": "into-base", "granularity": "projections", "version": Transplant.version}
    told |= {"answers": {"base": {"identity": "sha256:1", "device": "cpu"}, "tuned": asked}, **settings}
    made = NEW_YEAR + timedelta(days=day)
    return EvaluationRow(
        key, "transplant", "pair", "few", None, None, None, None, 9, 9, questions, told, made, None, 1.0, made
    )


def _keys(rows: list[EvaluationRow], *of: Any) -> dict[str, str]:
    return {way: row.evaluation_key for way, row in by_direction(rows, *of).items()}


def test_most_questions_speak_whatever_they_were_measured_in_and_of_equals_the_newest() -> None:
    rows = [_row("few", 20, 0), _row("many", 200, 1, dtype="bfloat16"), _row("later", 50, 2)]
    assert _keys(rows, "weights") == {"into-base": "many"}
    rows += [_row("again", 200, 3), _row("other way", 10, 4, direction="into-tuned")]
    assert _keys(rows, "weights") == {"into-base": "again", "into-tuned": "other way"}
    assert _keys(rows[::-1], "weights") == _keys(rows, "weights")


def test_what_is_unfinished_of_another_version_or_of_models_that_are_no_more_does_not_speak() -> None:
    rows = [_row("now", 20, 1)]
    rows += [_row("earlier", 500, 2, version=Transplant.version - 1), replace(_row("half", 500, 3), finished=None)]
    rows += [replace(_row("edges", 500, 4), kind="ablation"), _row("before", 500, 0, tuned="sha256:0")]
    assert _keys(rows, "weights") == {"into-base": "now"}
    assert _keys([*rows, _row("trained anew", 5, 5, tuned="sha256:3")], "weights") == {"into-base": "trained anew"}
    assert _keys(rows, "activations") == {}
    assert by_direction([], "weights") == {}


def test_weights_and_activations_blocks_and_heads_speak_each_for_themselves() -> None:
    rows = [
        _row("heads", 10, 0, granularity="heads"),
        _row("written", 10, 1, what="activations"),
        _row("blocks", 10, 2),
    ]
    assert [row.evaluation_key for row in speaking(rows)] == ["blocks", "heads", "written"]
    assert _keys(rows, "weights", "heads") == {"into-base": "heads"}
