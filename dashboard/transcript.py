"""The table of questions, and one question opened."""

import html
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from pandas.io.formats.style import Styler

from dashboard import data, exports, names
from dashboard.view import COHORT_NAMES, View
from probing.edge_tables import strongest_of_both
from probing.figures.theme import number
from probing.graph import ResidualGraph, is_edge
from probing.metrics import INTENSITY, KURTOSIS, LOSS
from probing.rollouts import REASONS

_KEY = "q"
_SHOWN = (INTENSITY, KURTOSIS, LOSS)

_STYLED = 100_000
"""Cells up to which each number is written by us; more would keep a person waiting."""


# -- the table ---------------------------------------------------------------------------------------------------------


def table(view: View) -> str | None:
    """The questions, to search and to choose from; returns the chosen one's id, or None if none is found."""
    questions = data.questions(view.key)
    search, cohort, scored = st.columns([2, 1.4, 0.8], vertical_alignment="bottom")
    with search:
        text = st.text_input(
            "Search",
            key="search",
            bind="query-params",
            placeholder="in questions and answers",
            icon=":material/search:",
        )
    with cohort:
        wanted = st.selectbox(
            "Graded", ["all", *COHORT_NAMES], format_func=lambda c: COHORT_NAMES.get(c, c), key="graded",
            bind="query-params", help="Who answered correctly.",
        )  # fmt: skip
    with scored:
        only = st.toggle("Scored only", True, key="scored", bind="query-params", help="Only what the selection kept.")
    keep = pd.Series(True, index=questions.index)
    if text:
        columns = questions[["question_id", "question", "reference", "base_answer", "tuned_answer"]]
        keep &= columns.apply(lambda c: c.str.contains(text, case=False, regex=False)).any(axis=1)
    if wanted and wanted != "all":
        keep &= questions["cohort"] == wanted
    if only:
        keep &= questions["reason"].isna()
    found = questions[keep]
    if found.empty:
        st.info("No question is like that.", icon=":material/search_off:")
        return None
    listed = found["question_id"].tolist()
    shown = _display(view, found)
    st.dataframe(
        _written(shown),
        hide_index=True,
        height=min(320, 40 + 35 * len(shown)),
        key="question-table",
        on_select=lambda: _open_row(listed),
        selection_mode="single-row",
        column_config={
            "question": st.column_config.TextColumn(width="medium"),
            INTENSITY.short: st.column_config.NumberColumn("Δ intensity", help="Tuned minus base, in nats."),
            KURTOSIS.short: st.column_config.NumberColumn("Δ kurtosis", help="Tuned minus base."),
            LOSS.short: st.column_config.NumberColumn("Δ loss", help="Tuned minus base, nats per token."),
            "tokens": st.column_config.TextColumn(help="Lengths of the two answers, base / tuned."),
            "why not scored": st.column_config.TextColumn(help="Why the selection left it out."),
        },
    )
    exports.offer("questions", lambda: _numbers(view, listed))
    ids = questions["question_id"].tolist()
    return st.selectbox(
        f"{len(found)} of {len(questions)} questions; opened below", ids, index=ids.index(listed[0]), key=_KEY,
        bind="query-params", persist_state="session",
    )  # fmt: skip


def _open_row(ids: list[str]) -> None:
    rows = st.session_state["question-table"]["selection"]["rows"]
    if rows:
        st.session_state[_KEY] = ids[rows[0]]


def _mark(correct: pd.Series) -> list[str]:
    return ["✓" if c else "✗" for c in correct]


def _differences(view: View, found: pd.DataFrame) -> pd.DataFrame:
    """Tuned minus base of some metrics, for the questions that were scored."""
    metrics = data.per_question(view.key).set_index("question_id").reindex(found["question_id"])
    return pd.DataFrame({m.short: (metrics[f"{m.key}_tuned"] - metrics[f"{m.key}_base"]).to_numpy() for m in _SHOWN})


def _display(view: View, found: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame(
        {
            "id": found["question_id"].to_numpy(),
            "question": found["question"].to_numpy(),
            "reference": found["reference"].to_numpy(),
            "base": [f"{m} {a}" for m, a in zip(_mark(found["base_correct"]), found["base_answer"], strict=True)],
            "tuned": [f"{m} {a}" for m, a in zip(_mark(found["tuned_correct"]), found["tuned_answer"], strict=True)],
            "tokens": [f"{b} / {t}" for b, t in zip(found["base_length"], found["tuned_length"], strict=True)],
        }
    )
    shown = pd.concat([shown, _differences(view, found)], axis=1)
    if found["reason"].notna().any():
        shown["why not scored"] = [REASONS.get(r, "") for r in found["reason"]]
    return shown


def _written(shown: pd.DataFrame) -> Styler | pd.DataFrame:
    """The table with its differences written as numbers are elsewhere, and sorted by what they are."""
    if shown.size > _STYLED:
        return shown
    return shown.style.format(partial(number, signed=True), subset=[metric.short for metric in _SHOWN])


def _numbers(view: View, ids: list[str]) -> pd.DataFrame:
    """What the table holds of some questions, and every metric of each."""
    questions = data.questions(view.key)
    found = questions[questions["question_id"].isin(ids)]
    return found.merge(data.per_question(view.key), on="question_id", how="left")


# -- one question ------------------------------------------------------------------------------------------------------


def row_of(view: View, name: str) -> dict[str, Any]:
    """Everything known of one question."""
    row = data.question(view.key, name)
    return row | {"reason": row["reason"] if isinstance(row["reason"], str) else None}


def why_not(row: dict[str, Any]) -> str:
    """Why the selection left a question out."""
    return REASONS[row["reason"]]


def _span(piece: str, *classes: str) -> str:
    shown = html.escape(piece.replace("\n", "⏎\n"))
    return f'<span class="{" ".join(classes)}">{shown}</span>'


def marked(pieces: list[str], cut: int, side: str) -> str:
    """An answer as HTML: its scored tokens underlined in the side's colour, the cut drawn, the rest pale."""
    scored = "".join(_span(piece, f"scored-{side}") for piece in pieces[:cut])
    rest = "".join(_span(piece, "beyond") for piece in pieces[cut:])
    line = '<span class="cut" title="the cut: what follows is not scored"></span>' if rest else ""
    return f'<div class="tokens">{scored}{line}{rest}</div>'


def texts(view: View, row: dict[str, Any]) -> None:
    """Prompt, reference and both answers."""
    prompt, reference = st.columns([2, 1])
    with prompt:
        st.caption("Prompt")
        st.code(row["prompt"], language=None, wrap_lines=True)
    with reference:
        st.caption("Reference")
        st.code(row["reference"], language=None, wrap_lines=True)
    cut = view.cut
    for column, side in zip(st.columns(2, gap="medium"), ("base", "tuned"), strict=True):
        with column:
            right = ":material/check: correct" if row[f"{side}_correct"] else ":material/close: wrong"
            length = int(row[f"{side}_length"])
            st.caption(f"**{side}**, {right}, {length} tokens, the first {min(cut, length)} scored")
            pieces = row[f"{side}_answer_pieces"]
            if pieces is None:
                st.code(row[f"{side}_answer"], language=None, wrap_lines=True)
            elif row["reason"] is None:
                st.html(marked(list(pieces), cut, side))
            else:
                st.html(marked(list(pieces), 0, side))


def element(graph: ResidualGraph, edges: pd.DataFrame) -> str:
    """The edge or node whose contribution is shown."""
    usual = graph.blocks[-3]
    return names.box("Edge or node", graph, edges, "element", usual) or usual


def contribution(graph: ResidualGraph, scores: np.ndarray | None, name: str) -> np.ndarray:
    """One value for each position: the edge's score, or the sum over a node's edges, out of it where it writes."""
    assert scores is not None
    if is_edge(name):
        return scores[:, graph.number(name)]
    numbers = graph.out_of(name)
    return scores[:, numbers if len(numbers) else graph.into(name)].sum(1)


def fed_tokens(view: View, row: dict[str, Any]) -> list[list[str]]:
    """The texts of the tokens that each model was fed: the prompt, and the answer up to one before the cut."""
    fed = []
    for side, scored in zip(("base", "tuned"), _scored(view, row), strict=True):
        prompt, answer = row[f"{side}_prompt_pieces"], row[f"{side}_answer_pieces"]
        known = prompt is not None
        fed.append([*prompt, *answer[: scored - 1]] if known else [""] * (int(row["prompt_length"]) + scored - 1))
    return fed


def _scored(view: View, row: dict[str, Any]) -> list[int]:
    """How many tokens of each answer are scored."""
    return [min(view.cut, int(row[f"{side}_length"])) for side in ("base", "tuned")]


def beyond_the_prompt(view: View, row: dict[str, Any]) -> str:
    """Why fewer bars stand beyond the prompt than tokens are scored."""
    scored = list(dict.fromkeys(_scored(view, row)))
    bars, tokens = (" and ".join(map(str, counts)) for counts in ([n - 1 for n in scored], scored))
    return (
        f"Beyond it stand {bars} bar{'s' * (bars != '1')} for {tokens} scored token{'s' * (tokens != '1')}, because "
        "each is predicted one position earlier: the first at the last position of the prompt."
    )


def numbers(labels: list[list[str]], values: list[np.ndarray]) -> pd.DataFrame:
    """The contributions as rows of side, position, token and score."""
    return pd.concat(
        [
            pd.DataFrame({"side": side, "position": range(len(v)), "token": tokens, "score": v})
            for side, tokens, v in zip(("base", "tuned"), labels, values, strict=True)
        ],
        ignore_index=True,
    )


def own_numbers(edges: pd.DataFrame) -> pd.DataFrame:
    """A question's edges, without what a single question cannot say."""
    return edges[["edge", "writer", "reader", "base_effect", "tuned_effect", "base_rank", "tuned_rank", "difference"]]


def link(edges: pd.DataFrame) -> None:
    """To the page Circuits, where a question's strongest edge is picked among those of all questions."""
    edge = strongest_of_both(edges, 1)["edge"].iloc[0]
    st.page_link(
        "../pages/circuits.py", label=f"Its strongest edge, `{edge}`, over all questions on Circuits",
        icon=":material/account_tree:", query_params={"pick": edge},
    )  # fmt: skip
