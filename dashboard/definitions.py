"""Confidence taken out: what several definitions say of a pair, side by side, with what seeds do by the same.

They are ordinary comparisons by other methods, of the same questions by the same rules; what has not been computed is
offered, and where only some edges were really removed, the real intensity is estimated from them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import pandas as pd
import streamlit as st

from dashboard import data
from dashboard.pattern import Told, agreement
from dashboard.seeds import bands
from dashboard.view import View, by_method, method_of, titles
from dashboard.widgets import chart, offer_more
from dashboard.words import section
from probing.figures import forest
from probing.figures.theme import percent
from probing.jobs.shipped import DEFINITIONS, MARGIN
from probing.method import Loss, Method
from probing.metrics import INTENSITY, METRICS, PATTERN
from probing.words import duration

AT_ONCE = 600
"""Seconds up to which removing every edge is offered here; what takes longer is asked for on the page Runs."""


def told(view: View) -> list[Told]:
    """What each definition that was computed says of a view, its own first."""
    first = own(view)
    return [first, *(of for of in _others(view) if of.method != first.method)]


def own(view: View) -> Told:
    """What the view's own definition says."""
    return Told(method_of(view.comparison).present, data.compared(view.key), bands(view))


def _others(view: View) -> Iterator[Told]:
    for method in methods(view):
        found = by_method(view, method)
        if found is not None:
            yield Told(method, data.compared(found.key), bands(found))
        elif method.path == "exact":
            estimate = data.sampled_intensity(*view.keys, view.graph, method.loss)
            if estimate is not None:
                yield Told(method, {INTENSITY.key: estimate}, estimated=True)


def methods(view: View) -> list[Method]:
    """The definitions that stand side by side, which differ from the view's method in estimate and loss alone."""
    mine = method_of(view.comparison).present
    return [replace(mine, path=of.path, loss=of.loss) for of in DEFINITIONS]


def in_order(found: Sequence[Told], view: View) -> list[Told]:
    """As they are drawn: from the paper's definition to what really happens, whichever is in view."""
    order = methods(view)
    return sorted(found, key=lambda of: order.index(of.method) if of.method in order else -1)


def show(view: View, found: Sequence[Told], others: Sequence[View] = ()) -> None:
    """Whether the definitions of a view agree, and the three metrics by each, of other pairs too."""
    if said := agreement(found):
        st.markdown(said)
    views = [view, *others]
    definitions = [in_order(found, view), *(in_order(told(other), other) for other in others)]
    rows = _rows(dict(zip(titles(views), definitions, strict=True)))
    for column, metric in zip(st.columns(len(PATTERN), gap="medium"), PATTERN, strict=True):
        with column:
            chart(
                partial(forest.changes, rows[rows["metric"] == metric], METRICS[metric].name),
                f"definitions-{metric}",
                f"Relative change of {METRICS[metric].label} by each definition, with intervals and the seed band.",
                rows,
                export=metric == PATTERN[-1],
            )
    st.caption(
        "Tuned against base, with 95 % intervals over questions; a diamond: every edge was really removed"
        + (", hollow: estimated from some edges, with the draw of them in the interval" if _estimated(rows) else "")
        + ". Grey bars: the seed band, what models trained like the base from other seeds differ from it by, by the "
        "same definition. The margin is the chosen token's lead over the runner-up, which does not fall as a model "
        "grows sure. " + _same_text(view)
    )
    with st.expander("What the definitions and the seed band are"):
        st.markdown(f"{section('Definitions side by side')}\n\n{section('The seed band')}")
    _offer(view, found)


def _estimated(rows: pd.DataFrame) -> bool:
    return bool(rows["estimated"].any())


def _rows(found: Mapping[str, Sequence[Told]]) -> pd.DataFrame:
    """A row for each view by its title, definition and metric of the pattern."""
    rows = []
    for title, definitions in found.items():
        for of in definitions:
            for metric in PATTERN:
                change, band = of.compared.get(metric), of.bands.get(metric)
                if change is None:
                    continue
                named = {"pair": title, "definition": of.name, "metric": metric}
                band_ends = {"seeds_low": band and band.low, "seeds_high": band and band.high}
                how = {"exact": of.method.path == "exact", "estimated": of.estimated}
                rows.append({**named, **asdict(change), **band_ends, **how})
    return pd.DataFrame(rows).astype({"relative": float, "seeds_low": float, "seeds_high": float})


def _same_text(view: View) -> str:
    """Whether scoring both models on one text could change anything."""
    if method_of(view.comparison).text != "own":
        return ""
    share = data.same_text(view.key, view.cut)
    if share is None:
        return ""
    if share == 1:
        return "Both models' scored answers are the same for all questions: one text for both would change nothing."
    return (
        f"For {percent(share, signed=False)} of the questions both models' scored answers are the same; a job with one "
        "text for both (page Runs) would change the others alone."
    )


def _offer(view: View, found: Sequence[Told]) -> None:
    """Offer to compute the definitions that are missing."""
    mine = method_of(view.comparison).present
    known = {of.method for of in found if not of.estimated}
    margin = replace(mine, path=MARGIN.path, loss=MARGIN.loss)
    left, right = st.columns(2, gap="medium")
    if margin not in known:
        with left:
            offer_more(
                view, "Compute the margin",
                "What the margin says, which does not fall as a model grows sure, has not been computed here. It takes "
                f"about as long as the scores in view, {duration(_seconds(view, margin))}.", method=margin,
            )  # fmt: skip
    losses: tuple[Loss, ...] = ("nll", "margin")
    exact = [replace(mine, path="exact", loss=loss) for loss in losses]
    if known.intersection(exact):
        return
    seconds = _seconds(view, exact[0])
    why = (
        f"What really happens without each of the {view.graph.size:,} edges has not been computed here. It takes at "
        f"most {duration(seconds)} on the device that made the scores in view."
    )
    with right:
        if seconds <= AT_ONCE:
            offer_more(view, "Remove every edge", why, method=exact[0])
        else:
            st.info(why, icon=":material/hourglass_empty:")
            st.page_link("../pages/runs.py", label="Ask for it on Runs: Method, Estimate", icon=":material/queue:")


def _seconds(view: View, method: Method) -> float:
    """How long it takes to score both sides by a method, from how long the view's own took."""
    mine, edges = method_of(view.comparison), view.graph.size
    took = sum(run.seconds or 0.0 for run in data.provenance(*view.keys).values())
    return max(1.0, took * method.passes(edges) / mine.passes(edges))
