"""What is known of a cohort before anything is computed: both models' answers, which one comparison has, sort the
questions into all cohorts."""

from dashboard import data
from dashboard.view import COHORT_NAMES
from dashboard.words import listed
from probing.jobs.plan import is_outdated
from probing.rollouts import COHORTS
from probing.store.records import ComparisonRow


def why_empty(pair: str, question_set: str, cohort: str) -> str | None:
    """A sentence where it is known that a cohort has no question, so that there is nothing to compute."""
    counts = _counts(pair, question_set)
    if counts is None or cohort == "any" or counts[cohort]:
        return None
    others = [f"{counts[name]} {COHORT_NAMES[name]}" for name in COHORTS if counts[name]]
    return f"No question is {COHORT_NAMES[cohort]}: {listed(others)}."


def _counts(pair: str, question_set: str) -> dict[str, int] | None:
    """How many questions each cohort has by the answers that a pair gives today; None if nobody has asked it."""

    def known(row: ComparisonRow) -> bool:
        mine = (row.pair, row.question_set) == (pair, question_set) and row.settings.get("answers") != "imported"
        return mine and bool(row.counts) and not is_outdated(row)

    return next((row.counts for row in data.comparison_rows() if known(row)), None)
