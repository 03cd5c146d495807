"""Which of a pair's transplants speak, where several were made.

A pair may have been measured on a few questions and on all, in another dtype or on another device, and its models may
have been trained anew since. Of what this version measures, that of the newest models and questions counts, and of it
what has the most questions; of equals, the newest.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from probing.jobs.tasks import Transplant
from probing.store.records import EvaluationRow
from probing.transplant.units import DIRECTIONS, WHATS, Direction, What

GRANULARITIES = ("projections", "heads")
"""By which parts there are: blocks, or heads apart."""

NUMERICS = ("device", "dtype", "attention")
"""What of the settings of answers says in what they were made, and not of what they are."""


def by_direction(
    evaluations: Iterable[EvaluationRow], what: What, granularity: str = GRANULARITIES[0]
) -> dict[Direction, EvaluationRow]:
    """The finished transplant of each direction that speaks for a pair, given evaluations of it on one question set."""
    rows = [
        row
        for row in evaluations
        if row.kind == Transplant.kind
        and row.finished is not None
        and row.settings["version"] == Transplant.version
        and (row.settings["what"], row.settings["granularity"]) == (what, granularity)
    ]
    if not rows:
        return {}
    newest = _asked(max(rows, key=lambda row: row.created))
    found: dict[Direction, EvaluationRow] = {}
    for way in DIRECTIONS:
        alike = [row for row in rows if row.settings["direction"] == way and _asked(row) == newest]
        if alike:
            found[way] = max(alike, key=lambda row: (row.questions, row.created))
    return found


def speaking(evaluations: Sequence[EvaluationRow]) -> list[EvaluationRow]:
    """All that speak for a pair, of weights before activations and of blocks before heads."""
    return [row for what in WHATS for parts in GRANULARITIES for row in by_direction(evaluations, what, parts).values()]


def _asked(row: EvaluationRow) -> dict[str, dict[str, Any]]:
    """The models and what they were asked, whatever in."""
    answers = row.settings["answers"]
    return {
        side: {name: value for name, value in asked.items() if name not in NUMERICS} for side, asked in answers.items()
    }
