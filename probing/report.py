"""What a store has found about some pairs, as tables in Markdown: docs/findings.md is made of them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from probing.cuts import Cut
from probing.errors import StoreError
from probing.evidence import speaking
from probing.jobs.tasks import KINDS, Transplant
from probing.method import PAPERS, Method
from probing.metrics import (
    COMPLEXITY,
    DIVERSITY,
    INTENSITY,
    KURTOSIS,
    LOSS,
    Definition,
    interval,
    paired_score,
    resample_counts,
    with_unit,
)
from probing.pairs import Registry
from probing.store import Store
from probing.store.records import ComparisonRow, EvaluationRow, SameTokens, same_tokens

COLUMNS = (LOSS, INTENSITY, COMPLEXITY, KURTOSIS, DIVERSITY)
"""The metrics shown; the loss stands beside the intensity that follows it."""


def report(
    store: Store,
    registry: Registry,
    names: Iterable[str],
    cohort: str = "both_correct",
    method: Method = PAPERS,
) -> Iterator[str]:
    """The lines of one table for each pair: every cut that has been compared, the newest comparison of each.

    After it comes what each kind of task says of what was evaluated of them, and of the pair.

    Raises:
        PersonError: there is no such pair, or the store has no finished comparison of it.
    """
    comparisons = [ComparisonRow.of(row) for row in store.comparisons.table().to_dict("records")]
    metrics = store.summaries.metrics()
    for name in names:
        pair = registry.pair(name)
        rows = [row for row in comparisons if row.ready and (row.pair, row.cohort) == (name, cohort)]
        rows = [row for row in rows if Method.from_json(row.settings["method"]).present == method.present]
        if not rows:
            how = f" ({', '.join(method.words)})" if method.words else ""
            raise StoreError(f"The store has no comparison of {name}{how}.", f"Run 'python -m probing probe {name}'.")
        newest: dict[Cut, ComparisonRow] = {}
        for row in rows:
            if row.question_set == rows[0].question_set:
                newest.setdefault(row.at, row)
        found = same_tokens(newest.values())
        yield f"**{pair.title}** ({', '.join([pair.arrow, pair.algorithm, *method.words])})"
        yield ""
        if not all(row.up_to_date for row in newest.values()):
            yield f"Some of this was summarised by an earlier version; 'python -m probing probe {name}' does it again."
            yield ""
        yield _accuracy(store, rows[0])
        yield ""
        headings = [with_unit(metric.short, metric.full_unit) for metric in COLUMNS]
        yield f"| α | tokens | questions | {' | '.join(headings)} | {INTENSITY.short} / {LOSS.short} |"
        yield "|---" * (4 + len(COLUMNS)) + "|"
        for same in found:
            row = same.rows[0]
            kept = metrics[(metrics["comparison_key"] == row.comparison_key) & (metrics["side"] == "tuned")]
            of = kept.set_index("metric")
            asked = (row.counts or {})["selected"]
            cells = [_cell(of.loc[metric.key]) for metric in COLUMNS]
            cells.append(_per_nat(store.summaries.questions(row.comparison_key), Definition()))
            yield f"| {', '.join(map(str, same.cuts))} | {row.cut} | {asked} | {' | '.join(cells)} |"
        yield ""
        yield from evaluated(store, name, rows[0].question_set, found)


def evaluated(store: Store, pair: str, question_set: str, comparisons: Sequence[SameTokens]) -> Iterator[str]:
    """What this version evaluated of some comparisons of a pair, and of the pair as a whole, a kind after the other.

    What is of several comparisons that score the same tokens is said once. Of several transplants of a kind, on
    this device and on that, those that speak for the pair.
    """
    every = evaluations(store, pair, question_set, comparisons)
    speak = {row.evaluation_key for row in speaking(every)}
    found = [row for row in every if row.kind != Transplant.kind or row.evaluation_key in speak]
    for kind, task in KINDS.items():
        now = [row for row in found if row.kind == kind and row.settings["version"] == task.version]
        if now:
            yield from task.lines(store, now)
            yield ""


def evaluations(
    store: Store, pair: str, question_set: str, comparisons: Sequence[SameTokens] = ()
) -> list[EvaluationRow]:
    """The finished evaluations of a pair as a whole, and of some of its comparisons: those of comparisons that score
    the same tokens are there once, with all their cuts."""
    cuts = {row.comparison_key: same.cuts for same in comparisons for row in same.rows}
    table = store.evaluations.table()
    table = table[table["finished"].notna() & (table["pair"] == pair) & (table["question_set"] == question_set)]
    found: dict[tuple[str, str | None, tuple[Cut, ...]], EvaluationRow] = {}
    for row in map(EvaluationRow.of, table.to_dict("records")):
        if row.comparison_key is None or row.comparison_key in cuts:
            row = replace(row, cuts=cuts.get(row.comparison_key or "", ()))
            found.setdefault((row.evaluation_key, row.side, row.cuts), row)
    # what is of a pair comes last, and so does what is of both sides
    return sorted(found.values(), key=lambda row: (not row.cuts, row.cuts, row.side is None, row.side or ""))


def _accuracy(store: Store, row: ComparisonRow) -> str:
    base, tuned = (
        {answer.question_id: answer.correct for answer in store.rollouts.answers(rollout)}
        for rollout in (row.base_rollout, row.tuned_rollout)
    )
    return accuracy_gain([(base[question], tuned[question]) for question in base])


def accuracy_gain(right: Sequence[tuple[bool, bool]]) -> str:
    """What share of questions base and tuned answered right, and the difference with its paired score interval."""
    before, after = (sum(side) / len(right) for side in zip(*right, strict=True))
    gained, lost = (right.count(kind) for kind in ((False, True), (True, False)))
    low, high = paired_score(gained, lost, len(right))
    digits = max(1, math.ceil(-math.log10(100 * (high - low))) + 1)  # so that the ends differ
    return (
        f"Right answers: {before:.1%} → {after:.1%} of {len(right)} questions, {100 * (after - before):+.1f} points "
        f"(95 % interval {100 * low:+.{digits}f} to {100 * high:+.{digits}f})."
    )


def _per_nat(long: pd.DataFrame, definition: Definition) -> str:
    """Mean intensity over mean loss, base → tuned, with the paired bootstrap interval of the relative difference."""
    wide = long.pivot(index="question_id", columns="metric", values=["base", "tuned"])
    values = wide.to_numpy(np.float64)
    place = {column: i for i, column in enumerate(wide.columns)}
    drawn = resample_counts(len(wide), definition)

    def ratio(weights: np.ndarray, side: str) -> np.ndarray:
        columns = [place[side, metric] for metric in (INTENSITY.key, LOSS.key)]
        intensity, loss = (weights @ values[:, columns]).T
        return intensity / loss

    once = np.ones((1, len(wide)))
    base, tuned = (float(ratio(once, side)[0]) for side in ("base", "tuned"))
    low, high = interval(ratio(drawn, "tuned") / ratio(drawn, "base") - 1, len(wide), definition)
    return f"{base:.3g} → {tuned:.3g}, {_change(tuned / base - 1, float(low), float(high))}"


def _cell(found: pd.Series) -> str:
    """base → tuned, and the relative difference with its 95 % interval, as far as there are such."""
    values = f"{found['base']:.3g} → {found['tuned']:.3g}"
    if pd.isna(found["relative"]):
        return values
    return f"{values}, {_change(found['relative'], found['relative_low'], found['relative_high'])}"


def _change(relative: float, low: float, high: float) -> str:
    within = f"({100 * low:+.0f} to {100 * high:+.0f})" if np.isfinite([low, high]).all() else "(no interval)"
    return f"{100 * relative:+.0f} % {within}"
