"""The table of questions, and one question opened."""

import html
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import data, exports, names
from dashboard.view import COHORT_NAMES, View
from probing.graph import ResidualGraph, is_edge
from probing.metrics import INTENSITY, KURTOSIS, LOSS
from probing.rollouts import REASONS

_KEY = "q"
_SHOWN = (INTENSITY, KURTOSIS, LOSS)


# -- the table ---------------------------------------------------------------------------------------------------------


def table(view: View) -> str:
    """The questions, to search and to choose from; returns the chosen one's id."""
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
    listed = found["question_id"].tolist()
    shown = _display(view, found)
    st.dataframe(
        shown,
        hide_index=True,
        height=min(320, 40 + 35 * max(1, len(shown))),
        key="question-table",
        on_select=lambda: _open_row(listed),
        selection_mode="single-row",
        column_config={
            "question": st.column_config.TextColumn(width="medium"),
            INTENSITY.short: st.column_config.NumberColumn(
                "Δ intensity", format="%.2e", help="Tuned minus base, in nats."
            ),
            KURTOSIS.short: st.column_config.NumberColumn("Δ kurtosis", format="%.1f"),
            LOSS.short: st.column_config.NumberColumn(
                "Δ loss", format="%.2e", help="Tuned minus base, nats per token."
            ),
            "tokens": st.column_config.TextColumn(help="Lengths of the two answers, base / tuned."),
            "why not scored": st.column_config.TextColumn(help="Why the selection left it out."),
        },
    )
    exports.offer("questions", lambda: _numbers(view, listed))
    ids = questions["question_id"].tolist()
    first = found["question_id"].iloc[0] if len(found) else ids[0]
    if not len(found):
        st.info("No question is like that.", icon=":material/search_off:")
    return st.selectbox(
        f"{len(found)} of {len(questions)} questions; opened below", ids, index=ids.index(first), key=_KEY,
        bind="query-params",
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
            st.caption(f"**{side}**, {right}, {row[f'{side}_length']} tokens, the first {cut} scored")
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
    cut = view.cut
    fed = []
    for side in ("base", "tuned"):
        prompt, answer = row[f"{side}_prompt_pieces"], row[f"{side}_answer_pieces"]
        scored = min(cut, int(row[f"{side}_length"]))
        known = prompt is not None
        fed.append([*prompt, *answer[: scored - 1]] if known else [""] * (int(row["prompt_length"]) + scored - 1))
    return fed


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
