"""Every pair at every cut in one table: sortable numbers, shown with arrow and interval, each row a link."""

from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from dashboard import data, exports
from dashboard.pattern import Told, in_short
from dashboard.seeds import bands_of
from dashboard.site import COMPARE
from dashboard.view import View, alike, asked, method_of, seeds_among
from dashboard.words import ARROWS, arrowed
from probing.cuts import Cut
from probing.figures.theme import percent, text_colours
from probing.jobs.plan import is_outdated
from probing.metrics import COMPLEXITY, LOSS, METRICS, PATTERN
from probing.pairs import Pair, load_registry
from probing.published import Published
from probing.store.records import same_tokens

_SHOWN = (*PATTERN, LOSS.key)


def _heading(metric: str) -> str:
    return METRICS[metric].short.capitalize()


def _link(pair: Pair, view: View, at: Cut) -> str:
    """This page's address for a pair and a cut."""
    return f"/{COMPARE.name}?{urlencode(asked(view, pair, at))}"


def rows(view: View) -> list[dict[str, Any]]:
    """One row for each comparison like the view's (those that score the same tokens are one), and for each of the
    paper's rows on the same pair and questions."""
    registry = load_registry()
    found, compared_alike, method = [], alike(view), method_of(view.comparison)
    for same in same_tokens(compared_alike):
        row = same.row(view.at)
        pair = registry.pairs.get(row.pair)
        if pair is None:
            continue
        bands = bands_of(seeds_among(compared_alike, pair, row.at))
        told = Told(method, data.compared(row.comparison_key), bands)
        before, after = (percent(of, signed=False) for of in row.accuracies)
        accuracy = f"{before.removesuffix(' %')} → {after}"
        pattern = in_short(told) + (" (earlier version)" if is_outdated(row) else "")
        made = _row(view, pair, row.at, same.words, pattern, told)
        found.append(made | {"at": same.cuts[0], "Tokens": row.cut, "Accuracy": accuracy})
    for pair in registry.pairs.values():
        found += [_published_row(view, pair, row) for row in view.published(pair)]
    order = list(registry.pairs)
    controls = [pair.name for pair in registry.pairs.values() if pair.control]
    return sorted(found, key=lambda row: (row["name"] in controls, order.index(row["name"]), row["at"]))


def _row(view: View, pair: Pair, at: Cut, cut: str, pattern: str, told: Told | None) -> dict[str, Any]:
    kind = f"control: {pair.control}" if pair.control else pair.kind
    row = {"name": pair.name, "at": at, "Pair": _link(pair, view, at), "Cut": cut, "Kind": kind, "Pattern": pattern}
    for metric in _SHOWN:
        c, band = (told.compared.get(metric), told.bands.get(metric)) if told else (None, None)
        beyond = c is not None and band is not None and band.place(c) == "beyond"
        row[_heading(metric)] = 100 * c.relative if c and c.relative is not None else None
        row[f"{_heading(metric)} text"] = arrowed(c, beyond) if c else "–"
        row[f"{_heading(metric)} seeds"] = band.words if band else "–"
        row[f"{_heading(metric)} direction"] = c.direction if c else 0
    return row | {"Tokens": None, "Accuracy": "–"}


def _published_row(view: View, pair: Pair, row: Published) -> dict[str, Any]:
    made = _row(view, pair, row.at, str(row.at), "published", None)
    for metric, (base, tuned) in row.metrics.items():
        relative = (tuned - base) / base
        made[_heading(metric)] = 100 * relative
        bins = ", bins to the largest |score|" if metric == COMPLEXITY.key else ""
        text = f"{ARROWS[1 if relative > 0 else -1]} {percent(relative)}, no interval{bins}"
        made[f"{_heading(metric)} text"] = text
        made[f"{_heading(metric)} direction"] = 1 if relative > 0 else -1
    return made


def show(view: View) -> None:
    """The table, with what it holds to take away."""
    table = pd.DataFrame(rows(view))
    names = [_heading(metric) for metric in _SHOWN]
    shown = table[["Pair", "Cut", "Kind", "Pattern", *names, "Accuracy"]]
    styled = shown.style
    colours = text_colours(st.context.theme.type == "dark")
    for name in names:
        texts = dict(zip(table[name], table[f"{name} text"], strict=True))
        directions = dict(zip(table[name], table[f"{name} direction"], strict=True))
        styled = styled.format(texts.get, subset=[name], na_rep="–").map(
            lambda value, of=directions: f"color: {colours[of.get(value, 0)]}", subset=[name]
        )
    st.dataframe(
        styled,
        hide_index=True,
        height="content",
        column_config={
            "Pair": st.column_config.LinkColumn(display_text=r"pair=([^&]+)", help="Opens the comparison.", width=125),
            "Kind": st.column_config.TextColumn(width=110),
            "Cut": st.column_config.TextColumn(
                help="α, the share of the mean answer length that is scored, and how many tokens of an answer that is. "
                "Cuts that come to the same tokens are one row."
            ),
            "Pattern": st.column_config.TextColumn(
                help="How the three metrics moved, beside what the paper found for online RL."
            ),
            **{
                name: st.column_config.NumberColumn(
                    help=f"{METRICS[metric].meaning} Relative change, with its 95 % interval."
                )
                for metric, name in zip(_SHOWN, names, strict=True)
            },
        },
        key="leaderboard",
    )
    exports.offer("all-pairs", table.drop(columns=["name", "at", *(f"{name} direction" for name in names)]))
