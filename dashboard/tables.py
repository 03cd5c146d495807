"""Tables: cohorts, all pairs, all metrics, parameters and provenance."""

import json

import pandas as pd
import streamlit as st

from dashboard import data
from dashboard.selection import COHORT_NAMES, View, rules
from dashboard.theme import number, percent
from dashboard.words import PATTERN_METRICS, TERMS, interval, pattern_verdict, relative_interval
from probing.metrics import Comparison, Definition
from probing.pairs import load_registry
from probing.rollouts import COHORTS


def cohorts(view: View) -> None:
    """How many questions fall into each cohort, the one in view in bold."""
    lines = []
    for cohort in COHORTS:
        mark = "**" if cohort == view.cohort else ""
        lines.append(f"{mark}{view.counts[cohort]} {COHORT_NAMES[cohort]}{mark}")
    st.caption("  \n".join(lines))


def all_pairs(view: View) -> None:
    """Every pair at the view's question set, cohort and cut."""
    table = data.comparisons()
    same = table[
        (table["question_set"] == view.question_set)
        & (table["cohort"] == view.cohort)
        & (table["alpha"] == view.alpha)
        & table["base_run"].notna()
        & table["tuned_run"].notna()
    ]
    same = same[same["settings"].map(rules) == rules(view.row["settings"])].drop_duplicates("pair")
    found = {str(row["pair"]): row for row in same.to_dict("records")}
    rows = []
    for name, pair in load_registry().pairs.items():
        if view.question_set not in pair.questions:
            continue
        row: dict[str, str] = {"Pair": pair.arrow, "Kind": pair.kind}
        if name in found:
            shown = found[name]
            compared = data.compared(shown["base_run"], shown["tuned_run"], Definition())
            row["Pattern"] = pattern_verdict(compared)
            row["Accuracy"] = " → ".join(percent(shown[f"{s}_accuracy"], signed=False) for s in ("base", "tuned"))
            row |= {
                TERMS[m].name.split()[-1].capitalize(): relative_interval(compared[m])
                for m in (*PATTERN_METRICS, "loss")
            }
        else:
            row["Pattern"] = "not computed"
        rows.append(row)
    st.dataframe(pd.DataFrame(rows).fillna("–"), hide_index=True)


def all_metrics(compared: dict[str, Comparison]) -> None:
    """Every metric of one comparison."""
    rows = [
        {
            "Metric": TERMS[metric].name,
            "Base": number(c.base),
            "Tuned": number(c.tuned),
            "Difference": number(c.difference, signed=True),
            "95 % interval": interval(c),
            "Relative": percent(c.relative),
            "What it is": TERMS[metric].meaning,
        }
        for metric, c in compared.items()
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True)


def parameters(definition: Definition, view: View) -> None:
    """The choices in force that the metrics and the selection leave open."""
    selection = json.loads(view.row["settings"])["selection"]
    rows = {
        "bins of the histogram": f"{definition.bins}, equal width",
        "its range": "0 to the largest |score| of the two models, shared by them",
        "logarithm": "natural",
        "ε": f"{definition.epsilon:g}",
        "cells without an edge": "counted, as in the paper" if definition.structural_zeros else "left out",
        "interval": f"{definition.confidence:.0%} percentile, paired bootstrap over questions, "
        f"{definition.resamples} resamples, seed {definition.seed}",
        "cohort": COHORT_NAMES[view.cohort],
        "T̄": f"{view.row['mean_length']:.2f} tokens ({selection['mean_length']} of the two models' mean lengths)",
        "cut": f"α = {selection['alpha']:g}, the first {view.row['cut']:.0f} tokens of an answer",
        "answer lengths kept": f"{selection['beta']:g} T̄ to {selection['gamma']:g} T̄, "
        f"differing by at most {selection['delta']:g} of their mean",
        "questions drawn": f"{view.counts['selected']} of {view.counts['alike']} eligible, seed {selection['seed']}",
    }
    st.dataframe(pd.DataFrame({"Parameter": rows.keys(), "In force": rows.values()}), hide_index=True, height="content")


def provenance(runs: pd.DataFrame) -> None:
    """With what the two runs of a comparison were made."""
    columns = {}
    for run in runs.to_dict("records"):
        made = json.loads(run["provenance"])
        columns[run["side"]] = {
            "model": run["model"],
            "identity": run["identity"],
            "samples": str(run["samples"]),
            "seconds": f"{run['seconds']:.1f}",
            "finished (UTC)": f"{run['finished']:%Y-%m-%d %H:%M}",
            **{name: str(value) for name, value in made.items()},
            "run": run["run_key"],
        }
    st.dataframe(pd.DataFrame(columns).rename_axis("").reset_index(), hide_index=True, height="content")
