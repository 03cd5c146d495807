"""The sections of the page Evidence: whether estimates, circuits and rankings are to be believed."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import data, evidence_words, exports
from dashboard.edge_filter import MOST
from dashboard.service import store
from dashboard.view import View, address, method_of, seeds
from dashboard.widgets import chart, clicked, offer_more
from probing import evidence
from probing.evidence import Audit, Overlap
from probing.extraction import SHARES
from probing.figures import evidence as figures
from probing.figures.checks import CHECKS
from probing.figures.theme import between, number, percent
from probing.jobs.plan import SIDES
from probing.jobs.tasks import BOTH, Check, Curve
from probing.jobs.tasks.circuit import FAITHFUL, Kept, read
from probing.metrics import AREAS, areas
from probing.store.records import ComparisonRow, EvaluationRow
from probing.words import span, with_interval

_WORST = 8
"""Edges of each model that are listed as the worst."""


# -- what is kept between reruns ---------------------------------------------------------------------------------------


def _audit(row: ComparisonRow, side: str) -> Audit | None:
    """A side's scores beside what really happens, as far as that is known."""
    opened, _, results = store().file.revision()
    return _audits(opened, results, _runs(row), SIDES.index(side))


@st.cache_resource(max_entries=64, show_spinner=False)
def _audits(opened: int, results: int, runs: tuple[str, str], place: int) -> Audit | None:
    run, scores = runs[place], data.pair_scores(*runs)[place]
    known = data.removed(run, scores.method.loss)
    return evidence.audit(scores, known, evidence.groups(store(), run, scores, known))


def _runs(row: ComparisonRow) -> tuple[str, str]:
    """Those of base and tuned of a comparison that is ready."""
    return row.base_run or "", row.tuned_run or ""


def _circuits(view: View) -> dict[str, dict[str, EvaluationRow]]:
    """The evaluations of circuits of a comparison, by how these were extracted and in whose model they were run."""
    found: dict[str, dict[str, EvaluationRow]] = {}
    for row in data.evaluation_rows():
        of = row.comparison_key, row.kind, row.settings["version"]
        if row.finished is not None and of == (view.key, Curve.kind, Curve.version):
            found.setdefault(f"{row.settings['extract']}, {row.settings['by']}", {})[row.side or ""] = row
    return found


@st.cache_resource(max_entries=32, show_spinner=False)
def _kept(evaluation: str) -> Kept:
    return read(store().evaluations.values(evaluation))


_Run = tuple[tuple[str, str], int]
"""The runs of a comparison, and which of them."""


@st.cache_resource(max_entries=64, show_spinner=False)
def _overlap(one: _Run, other: _Run) -> Overlap | None:
    """Of two runs; None where their graphs differ."""
    a, b = (data.pair_scores(*runs)[place] for runs, place in (one, other))
    return evidence.overlap(a, b) if a.graph == b.graph else None


def _rivals(view: View) -> list[ComparisonRow]:
    """The newest comparison of the same answers and questions by each method, the view's among them."""

    def subject(row: ComparisonRow) -> tuple[Any, ...]:
        made = row.settings["selection"], row.base_rollout, row.tuned_rollout
        return row.pair, row.question_set, row.cohort, row.at, *made

    newest: dict[str, ComparisonRow] = {}
    for row in data.comparison_rows():
        if row.ready and subject(row) == subject(view.comparison):
            newest.setdefault(_method(row), row)
    return list(newest.values())


def _method(row: ComparisonRow) -> str:
    return ", ".join(method_of(row).words) or "the paper's estimate"


# -- sections ----------------------------------------------------------------------------------------------------------


def audit(view: View) -> None:
    """Estimates against real effects."""
    if method_of(view.comparison).path == "exact":
        st.info(
            "Here every edge was really removed: these scores are what happens, and there is no estimate to hold "
            "against them. Choose another method under Rules.",
            icon=":material/verified:",
        )
        return
    found = {side: one for side in SIDES if (one := _audit(view.comparison, side)) is not None}
    if len(found) < len(SIDES):
        _offer_check(view, [side for side in SIDES if side not in found])
    if not found:
        return
    st.markdown(evidence_words.audited(found))
    with st.container(key="wide-audit"):
        chart(
            partial(figures.estimates, found),
            "audit",
            "Real effect of each removed edge, with its interval, against its estimate, in the base and in the tuned "
            "model; the colour says the verdict, the shape whether it is one of the strongest.",
            pd.concat([one.table.assign(model=side) for side, one in found.items()], ignore_index=True),
        )
    asked_of = " and ".join(dict.fromkeys(str(one.questions) for one in found.values()))
    meanings = "; ".join(f"*{verdict}* if {CHECKS[verdict].meaning}" for verdict in CHECKS if verdict != "not checked")
    st.caption(
        f"Filled: the strongest edges; hollow: random others. Means over {asked_of} questions; bars are 95 % intervals "
        "over questions, of each edge alone. On the grey line an estimate would be right. Axes are linear about zero "
        f"and logarithmic beyond. By the real effect an estimate is {meanings}."
    )
    rows = [
        {"Model": side, "Edges": f"{one.count(group)} {group}", "Questions": one.questions}
        | evidence_words.agreement_cells(found_of)
        for side, one in found.items()
        for group, found_of in one.agreement.items()
    ]
    _agreements(rows, "agreement")
    _worst(view, found)


def _agreements(rows: list[dict[str, Any]], name: str) -> None:
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height="content",
        column_config={
            "Rank": st.column_config.TextColumn(
                help="Spearman's correlation of strengths, mean |score| with mean |effect|."
            ),
            "Signs": st.column_config.TextColumn(
                help="The share of edges whose mean score and mean effect have the same sign; by chance a half. Of the "
                "edges into a reader behind a norm, tangents with zero as reference sum to zero, so that some are "
                "negative whatever happens."
            ),
            "Size": st.column_config.TextColumn(
                help="Mean |effect| over mean |score|: so many times larger is what really happens."
            ),
        },
    )
    exports.offer(name, pd.DataFrame(rows))


def _worst(view: View, found: Mapping[str, Audit]) -> None:
    """The edges of which the estimate says most that is not so, each a link."""
    rows = [
        {
            "Edge": address("circuits", view, pick=row.edge),
            "Model": side,
            "Estimate": number(row.estimate, signed=True),
            "Real effect": number(row.effect, signed=True),
            "95 % interval": between(row.low, row.high),
            "Verdict": row.verdict,
            "Among": row.group,
        }
        for side, one in found.items()
        for row in one.worst(_WORST).itertuples()
    ]
    st.subheader("Where the estimate misleads most")
    if not rows:
        st.success("No estimate is opposite to what happens, or says more than is there.", icon=":material/check:")
        return
    st.caption("The largest estimates with the wrong sign, or of effects that may be none. An edge opens on Circuits.")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height="content",
        column_config={"Edge": st.column_config.LinkColumn(display_text=r"pick=([^&]+)")},
    )


def _offer_check(view: View, sides: Sequence[str]) -> None:
    checks = tuple(Check(side) for side in BOTH if side in sides)
    check, questions = checks[0], view.counts["selected"]
    passes = sum(one.cost(view.graph, questions).passes for one in checks)
    offer_more(
        view, "Remove edges",
        f"No edge of {' or '.join(sides)} has been really removed by these rules yet. A check removes the "
        f"{check.strongest} strongest edges and {check.random} random others, one at a time, on {questions} questions: "
        f"{passes:,.0f} forward passes at most.", also=checks,
    )  # fmt: skip


def methods(view: View) -> None:
    """Which estimate predicts reality best."""
    rows = [row for row in _rivals(view) if method_of(row).path != "exact"]
    audits = {_method(row): [_audit(row, side) for side in SIDES] for row in rows}
    known = {name: [one for one in both if one is not None] for name, both in audits.items()}
    best = evidence.best(known)
    if best is None:
        st.info(
            "No method was checked here yet: the section Audit offers it for the one in view.",
            icon=":material/hourglass_empty:",
        )
        return
    ranked = {name: known[name] for name in _by_rank(known)}
    st.markdown(evidence_words.best_method(best, ranked))
    table = [
        {
            "": "★" if name == best else "",
            "Method": name,
            "Model": side,
            "Edges": group,
            "Questions": None if one is None else one.questions,
            **evidence_words.agreement_cells(None if one is None else one.agreement[group]),
        }
        for name in [*ranked, *(name for name in audits if name not in ranked)]
        for side, one in zip(SIDES, audits[name], strict=True)
        for group in (["any"] if one is None else one.agreement)
    ]
    _agreements(table, "methods")
    st.caption(
        "Each method against what happens to its own loss, by its own reference. Intervals are over questions. Another "
        "method of this pair joins the table when it is computed, on the page Runs, and its edges are removed."
    )


def _by_rank(known: Mapping[str, Sequence[Audit]]) -> list[str]:
    """The methods that were checked, the best first."""
    left, order = dict(known), []
    while (name := evidence.best(left)) is not None:
        order.append(name)
        del left[name]
    return order


def circuit(view: View) -> None:
    """What circuits keep of the models."""
    made = _circuits(view)
    if not made:
        offer_more(
            view, "Run circuits",
            "No circuit of this comparison has been run yet. The circuits of both models' scores, from few edges to "
            "all, are run in both models, with everything outside them replaced.",
            also=tuple(Curve(side) for side in BOTH),
        )  # fmt: skip
        return
    how = next(iter(made))
    if len(made) > 1:
        how = st.segmented_control("Extraction", list(made), default=how, required=True, key="extraction") or how
    found = {side: _kept(made[how][side].evaluation_key) for side in SIDES if side in made[how]}
    st.markdown(evidence_words.needed(found))
    log = st.toggle("Log size", True, key="log_edges", bind="query-params")
    with st.container(key="wide-kept"):
        event = chart(
            partial(figures.kept, found, log),
            "kept",
            "Share of each model's margin that circuits keep, against their number of edges: circuits of the base's "
            "and the tuned model's scores, and a band of random ones.",
            on_select="rerun",
            selection_mode="points",
        )
    _open_circuit(view.graph.size, event)
    reference = next(iter(made[how].values())).settings["reference"]
    st.caption(
        f"Everything outside a circuit is replaced at every position (reference: {reference}). f is the margin above "
        f"that of no edge at all, as a share of the whole model's; dotted, {percent(FAITHFUL, signed=False)}. Bars are "
        "95 % intervals over questions, the band is from the lowest to the highest random circuit."
    )
    st.caption(
        f"A click on a size opens as many of the strongest edges on Circuits: 10 to {MOST} a panel, by mean |score|, "
        "where these circuits go by |mean score| and leave out what is on no path."
    )
    _areas(found)


def _open_circuit(most: int, event: Any) -> None:
    """Go to the page Circuits, as close to the clicked size as that can show."""
    if (said := clicked(event["selection"]["points"])) is not None:
        whose, size = said.split(":")
        edges = int(np.clip(int(size), 10, min(MOST, most)))
        # What the sidebar has chosen stays: it is bound to the address.
        st.switch_page("../pages/circuits.py", query_params={"by": "strongest", "edges": str(edges), "panels": whose})


def _areas(found: Mapping[str, Kept]) -> None:
    """The areas under the curves."""
    rows = []
    for side, kept in found.items():
        for whose, curve in kept.curves.items():
            cells = {name: with_interval(curve.areas[name], ".2f") for name in AREAS}
            rows.append({"Run in": side, "Circuits of": whose, "Questions": kept.questions, **cells})
        if len(kept.by_chance):
            ends = {name: span(each.min(), each.max(), ".2f") for name, each in areas(kept.by_chance, SHARES).items()}
            chance = f"{len(kept.by_chance)} at random"
            rows.append({"Run in": side, "Circuits of": chance, "Questions": kept.questions, **ends})
    st.dataframe(pd.DataFrame(rows), hide_index=True, height="content")
    st.caption(
        "CPR: the area under f over the share of edges (1 of a circuit as good as the model at every size); CMD: that "
        "under |1 − f| (0). Over log k, small circuits weigh as much as large ones. 95 % intervals over questions; of "
        "random circuits, the lowest and highest."
    )
    exports.offer("areas", pd.DataFrame(rows))


def stability(view: View) -> None:
    """How far the strongest edges stay the same."""
    size = view.graph.size
    sizes = _sizes(evidence.largest(size))
    n = st.select_slider(
        "Strongest edges", sizes, min(sizes, key=lambda one: abs(one - 20)), key=f"top-of-{size}", bind="query-params"
    )
    rows = _compared(view)
    chance = evidence.by_chance(n, size)
    at = pd.DataFrame([{"label": label, "kind": kind, **_at(found, n)} for label, kind, found in rows])
    others = [found for _, kind, found in rows if kind == "seed"]
    st.markdown(evidence_words.stable(n, rows[0][2], next(o for _, kind, o in rows if kind == "both"), others, chance))
    chart(
        partial(figures.overlaps, at, chance, n),
        "stability",
        f"Overlap of the {n} strongest edges between draws of questions, base and tuned, seeds, and methods.",
        at,
    )
    st.caption(
        f"Jaccard: edges that are among the {n} strongest by both, of those that are by either. Dots: the mean over "
        "draws of the questions with replacement, one draw for each of the two; bars hold 95 % of the draws. Two draws "
        "for the same scores show what question noise leaves, another seed what training noise leaves."
    )


def _at(found: Overlap, n: int) -> dict[str, float]:
    ends = {name: float(getattr(found, name)[n - 1]) for name in ("mean", "low", "high")}
    return {"whole": np.nan if found.whole is None else float(found.whole[n - 1]), **ends}


def _sizes(largest: int) -> list[int]:
    """About twenty sizes up to the largest, evenly on a logarithmic scale."""
    return sorted({*np.geomspace(1, largest, 20).round().astype(int).tolist(), *(n for n in (10, 20) if n <= largest)})


def _compared(view: View) -> list[tuple[str, str, Overlap]]:
    """Every two runs that are compared: in words, of which kind, and how they overlap."""
    own = [(view.keys, place) for place in range(len(SIDES))]
    wanted: list[tuple[str, str, _Run, _Run]] = [
        (f"{side}, two draws of questions", side, run, run) for side, run in zip(SIDES, own, strict=True)
    ]
    wanted.append(("base and tuned", "both", own[0], own[1]))
    for seed in seeds(view):
        runs, name = _runs(seed.row), view.pair.model_name("base")
        wanted.append((f"{name} and another seed ({seed.row.pair})", "seed", (runs, 0), (runs, 1)))
    for row in _rivals(view):
        if row.comparison_key != view.key:
            wanted += [(f"{side}: {_method(row)}", side, own[k], (_runs(row), k)) for k, side in enumerate(SIDES)]
    found = [(label, kind, _overlap(one, other)) for label, kind, one, other in wanted]
    return [(label, kind, overlap) for label, kind, overlap in found if overlap is not None]
