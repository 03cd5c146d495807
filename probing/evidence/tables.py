"""What a store has as evidence about some pairs, as tables in Markdown: docs/findings.md is made of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from probing.cuts import Cut
from probing.edge_tables import edge_table
from probing.errors import StoreError
from probing.evidence.audit import audit, groups
from probing.evidence.intensity import sampled_intensity
from probing.evidence.removed import removed
from probing.jobs.keys import key_of
from probing.jobs.shipped import DEFINITIONS
from probing.jobs.tasks.ablation import DEFINITION
from probing.method import Method
from probing.metrics import FALSE_DISCOVERIES, INTENSITY, METRICS, PATTERN, Comparison
from probing.pairs import Registry
from probing.rollouts import DEFAULT_CUT
from probing.store import Store
from probing.store.records import ComparisonRow
from probing.words import of_agreement, span

_NAMES = ("the paper's", "margin", "removed", "removed, margin")
"""Of the definitions, in a table's head."""

Found = Mapping[Method, ComparisonRow]


def tables(
    store: Store,
    registry: Registry,
    names: Iterable[str],
    at: Cut = DEFAULT_CUT,
    cohort: str = "both_correct",
) -> Iterator[str]:
    """The lines of all tables: the pattern by each definition, edges that changed, and estimates beside reality.

    Raises:
        PersonError: there is no such pair, or the store has no finished comparison of one at this cut.
    """
    found = {registry.pair(name).title: _found(store, registry, name, at, cohort) for name in names}
    summaries = store.summaries.metrics().set_index(["comparison_key", "side", "metric"])
    for metric in PATTERN:

        def change(rows: Found, method: Method, metric: str = metric) -> str:
            if method in rows:
                kept = summaries.loc[(rows[method].comparison_key, "tuned", metric)]
                return _ratio(kept["relative"], kept["relative_low"], kept["relative_high"])
            estimate = _sampled(store, rows, method) if metric == INTENSITY.key and method.path == "exact" else None
            if estimate is None or estimate.relative is None:
                return "–"
            return f"{_ratio(estimate.relative, estimate.relative_low, estimate.relative_high)}, from some edges"

        yield f"**{METRICS[metric].name}**, tuned over base, with 95 % intervals over questions"
        yield ""
        yield from _by_definition(found, change)
    yield f"**Edges that changed** their strength (q at most {FALSE_DISCOVERIES:g} over all edges)"
    yield ""
    yield from _by_definition(found, lambda rows, method: _changed(store, rows[method]) if method in rows else "–")
    yield "**Estimates beside edges that were really removed**, on the estimate's own loss"
    yield ""
    yield "| pair | model | estimate | edges | questions | rank | signs | size |"
    yield "|---" * 8 + "|"
    for title, rows in found.items():
        for name, method in zip(_NAMES, DEFINITIONS, strict=True):
            if method.path != "exact" and method in rows:
                yield from _agreement(store, title, name, rows[method])


def _found(store: Store, registry: Registry, name: str, at: Cut, cohort: str) -> Found:
    """The newest comparison of a pair by each definition, all of the same answers and questions: of several such sets
    of comparisons, the one with the most definitions."""
    wanted = name, registry.pair(name).questions[0], cohort, at
    found: dict[tuple[str | None, ...], dict[Method, ComparisonRow]] = {}
    for row in map(ComparisonRow.of, store.comparisons.table().to_dict("records")):
        if row.ready and (row.pair, row.question_set, row.cohort, row.at) == wanted:
            of = row.base_rollout, row.tuned_rollout, key_of(row.settings["selection"])
            found.setdefault(of, {}).setdefault(Method.from_json(row.settings["method"]).present, row)
    if not found:
        raise StoreError(
            f"The store has no comparison of {name} at {at.short}.", f"Run 'python -m probing probe {name}'."
        )
    return max(found.values(), key=lambda rows: sum(method in rows for method in DEFINITIONS))


def _ratio(relative: float, low: float, high: float) -> str:
    return f"{1 + relative:.2f} ({span(1 + low, 1 + high, '.2f')})" if np.isfinite(relative) else "–"


def _sampled(store: Store, rows: Found, method: Method) -> Comparison | None:
    """The real intensity as far as checks of some edges tell it, of a comparison that differs from the method in the
    estimate and its loss alone."""
    row = next((row for of, row in rows.items() if replace(of, path=method.path, loss=method.loss) == method), None)
    if row is None or row.graph is None:
        return None
    runs = row.base_run or "", row.tuned_run or ""
    return sampled_intensity(store, runs, method.loss, row.graph, DEFINITION)


def _by_definition(found: Mapping[str, Found], cell: Callable[[Found, Method], str]) -> Iterator[str]:
    """A row for each pair, a column for each definition."""
    yield f"| pair | {' | '.join(_NAMES)} |"
    yield "|---" * (1 + len(_NAMES)) + "|"
    for title, rows in found.items():
        yield f"| {title} | {' | '.join(cell(rows, method) for method in DEFINITIONS)} |"
    yield ""


def _changed(store: Store, row: ComparisonRow) -> str:
    assert row.graph is not None
    edges = edge_table(row.graph, store.summaries.edges(row.comparison_key))
    return f"{edges['changed'].sum()} of {len(edges):,}" if edges["q"].notna().all() else "–"


def _agreement(store: Store, title: str, name: str, row: ComparisonRow) -> Iterator[str]:
    for side, run in (("base", row.base_run), ("tuned", row.tuned_run)):
        assert run is not None
        scores = store.runs.scores(run)
        known = removed(store, run, scores.method.loss)
        found = audit(scores, known, groups(store, run, scores, known))
        for group, of in found.agreement.items() if found is not None else ():
            assert found is not None
            edges, cells = f"{found.count(group)} {group}", " | ".join(of_agreement(of))
            yield f"| {title} | {side} | {name} | {edges} | {found.questions} | {cells} |"
