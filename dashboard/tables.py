"""Tables: cohorts, all metrics, top movers, parameters and provenance."""

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import data
from dashboard.pattern import Told
from dashboard.service import is_hosted
from dashboard.view import COHORT_NAMES, GRANULARITY_NAMES, View, address
from dashboard.words import interval, relative_interval
from probing.cuts import first
from probing.edge_tables import mirrors, strongest
from probing.figures.checks import CHECKS_MEANING
from probing.figures.theme import between, number, percent
from probing.jobs.tasks import BOTH
from probing.metrics import (
    FALSE_DISCOVERIES,
    METRICS,
    STUDENTISED_BELOW,
    Definition,
    coverage,
    flips_over,
    range_of,
)
from probing.rollouts import COHORTS
from probing.serving import ANSWERED_BY
from probing.store.records import ComparisonRow, RunRow, same_tokens


def cohorts(view: View) -> None:
    """How many questions fall into each cohort, the one in view in bold."""
    lines = []
    for cohort in COHORTS:
        mark = "**" if cohort == view.cohort else ""
        lines.append(f"{mark}{view.counts[cohort]} {COHORT_NAMES[cohort]}{mark}")
    st.caption("  \n".join(lines))


def all_metrics(told: Told, questions: int) -> None:
    """Every metric of one comparison of so many questions."""
    rows = [
        {
            "Metric": METRICS[metric].name,
            "Base": number(c.base),
            "Tuned": number(c.tuned),
            "Difference": number(c.difference, signed=True),
            "95 % interval": interval(c),
            "Relative": relative_interval(c),
            "Seeds": told.bands[metric].words if metric in told.bands else "–",
            "Held": percent(coverage(metric, questions), signed=False),
            "What it is": METRICS[metric].meaning,
        }
        for metric, c in told.compared.items()
    ]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config={
            "Seeds": st.column_config.TextColumn(
                help="The seed band: how far models lie from the base that were trained like it from other seeds."
            ),
            "Held": st.column_config.TextColumn(
                help="In how many of the trials described in docs/method.md such intervals held the true value."
            ),
        },
    )


def _wider() -> str:
    always = [metric.label for metric in METRICS.values() if metric.stretched]
    return f"of fewer than {STUDENTISED_BELOW} questions studentised or stretched, of {' and '.join(always)} always"


def _resamples(definition: Definition, view: View) -> str:
    over_edges = definition.resamples_over(view.graph.size)
    fewer = f" ({over_edges} of statistics over all edges, as there are so many)"
    return f"{definition.resamples} resamples{fewer if over_edges < definition.resamples else ''}"


def parameters(definition: Definition, view: View) -> None:
    """The choices in force that the metrics and the selection leave open."""
    selection = view.comparison.settings["selection"]
    share = f"{view.at.words}, " if view.at.unit == "alpha" else ""
    rows = {
        "bins of the histogram": f"{definition.bins}, equal width",
        "its range": f"0 to {range_of(definition)}, shared by them; the last bin has all that is above",
        "logarithm": "natural",
        "ε": f"{definition.epsilon:g}",
        "cells without an edge": "counted, as in the paper" if definition.structural_zeros else "left out",
        "interval": f"{definition.confidence:.0%}, paired bootstrap over questions, percentiles ({_wider()}), "
        f"{_resamples(definition, view)}, seed {definition.seed}",
        "changed edges": f"q at most {FALSE_DISCOVERIES:g} over all edges (Benjamini and Hochberg), p by up to "
        f"{flips_over(view.graph.size)} sign flips over questions, seed {definition.seed}",
        "what reads in attention": GRANULARITY_NAMES[view.graph.granularity],
        "cohort": COHORT_NAMES[view.cohort],
        "T̄": f"{view.comparison.mean_length:.2f} tokens ({selection['mean_length']} of the two models' mean lengths)",
        "cut": f"{share}the {first(view.cut)} of an answer; shorter ones stay whole",
        "answer lengths kept": f"{selection['beta']:g} T̄ to {selection['gamma']:g} T̄, "
        f"differing by at most {selection['delta']:g} of their mean",
        "questions drawn": f"{view.counts['selected']} of {view.counts['alike']} eligible, seed {selection['seed']}",
    }
    st.dataframe(pd.DataFrame({"Parameter": rows.keys(), "In force": rows.values()}), hide_index=True, height="content")


def provenance(runs: dict[str, RunRow]) -> None:
    """With what the two runs of a comparison were made, and of served answers how many tokens their model would say
    otherwise. Where the public sees it, a server's address is left out."""
    hidden = {ANSWERED_BY} if is_hosted() else set()
    answers = {
        side: {name: value for name, value in data.served(run.settings["rollout"]).items() if name not in hidden}
        for side, run in runs.items()
    }
    columns = {
        side: {
            "model": run.model,
            "identity": run.identity,
            "samples": str(run.samples),
            "seconds": f"{run.seconds:.1f}",
            "finished (UTC)": f"{run.finished:%Y-%m-%d %H:%M}",
            **{name: str(value) for name, value in (run.provenance or {}).items()},
            **{name: str(value) for name, value in answers[side].items()},
            "run": run.run_key,
        }
        for side, run in runs.items()
    }
    st.dataframe(pd.DataFrame(columns).fillna("").rename_axis("").reset_index(), hide_index=True, height="content")
    if any(answers.values()):
        st.caption(
            "An inference server gave these answers. It was asked for greedy ones; in what it computes is not known. "
            "Of a sample the model itself was asked, given the same tokens before: where it would say another token by "
            "less than a quarter of a nat, rounding may have decided; by more, something else did."
        )


MOVERS = 15
"""Edges among the top movers; two that are mirrors count as one."""


def movers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of an edge table whose strength changed most, with each edge's `mirror` or an empty text; a mirror has
    no row of its own."""
    repeats = mirrors(table)
    mirror = {first: second for second, first in repeats.items()}
    rows = strongest(table[~table["edge"].isin(list(repeats))], "difference", MOVERS)
    return rows.assign(mirror=[mirror.get(edge, "") for edge in rows["edge"]])


def top_movers(view: View, rows: pd.DataFrame) -> None:
    """The `movers` of a comparison, each a link to where it is drawn."""
    shown = pd.DataFrame(
        {
            "Edge": [address("circuits", view, pick=edge) for edge in rows["edge"]],
            "Mirror": rows["mirror"],
            "Base": rows["base_strength"].map(number),
            "Tuned": rows["tuned_strength"].map(number),
            "Difference": [number(d, signed=True) for d in rows["difference"]],
            "95 % interval": list(map(between, rows["ci_low"], rows["ci_high"])),
            "q": ["–" if np.isnan(q) else f"{q:.2g}" for q in rows["q"]],
            **{f"{side.capitalize()} checked": rows[f"{side}_verdict"] for side in BOTH if f"{side}_verdict" in rows},
            "Rank": [f"{b} → {t}" for b, t in zip(rows["base_rank"], rows["tuned_rank"], strict=True)],
        }
    )
    if not rows["mirror"].any():
        shown = shown.drop(columns="Mirror")
    st.dataframe(
        shown,
        hide_index=True,
        height="content",
        column_config={
            "Edge": st.column_config.LinkColumn(
                display_text=r"pick=([^&]+)", help="Opens it on Circuits.", pinned=True
            ),
            "Mirror": st.column_config.TextColumn(
                help="The reader's other edge, which has the same score with the other sign on every question: one "
                "finding, and one row."
            ),
            **{f"{side.capitalize()} checked": st.column_config.TextColumn(help=CHECKS_MEANING) for side in BOTH},
            "q": st.column_config.TextColumn(help="At most 0.05: it changed, tested over all edges at once."),
            "Rank": st.column_config.TextColumn(help="By strength, in base and tuned; 1 is the strongest."),
        },
    )


def over_cuts(comparisons: list[ComparisonRow], metric: str) -> pd.DataFrame:
    """A metric at the cut of each comparison, those that score the same tokens being one point: columns `cut` (in
    words), `tokens`, `base`, `tuned`, `ci_low`, `ci_high`."""
    fields = ("base", "tuned", "difference", "ci_low", "ci_high")
    rows = []
    for same in same_tokens(comparisons):
        row = same.rows[0]
        compared = data.compared(row.comparison_key)[metric]
        at = {"cut": same.words, "tokens": row.cut}
        rows.append({**at, **{field: getattr(compared, field) for field in fields}})
    return pd.DataFrame(rows).sort_values("tokens", kind="stable", ignore_index=True)
