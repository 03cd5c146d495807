"""One edge wherever the store has it: in every pair and control, at every cut, and along trainings."""

from functools import partial

import pandas as pd
import streamlit as st

from dashboard import data
from dashboard.view import LOSS_NAMES, View, alike, seeds, trained
from dashboard.widgets import chart
from dashboard.words import with_intervals
from probing.evidence import QUANTITIES
from probing.figures import everywhere as figures
from probing.figures.wiring import Pick
from probing.graph import is_edge, typeset
from probing.jobs.plan import step_of_side
from probing.jobs.tasks import BOTH
from probing.pairs import load_registry
from probing.store.records import same_tokens

_KEY = "everywhere"
_ROWS = ("this cut", "other cuts", "training")


def switch() -> None:
    """Whether the picked edge is shown everywhere, which is in the URL."""
    st.toggle(
        "This edge in all pairs", key=_KEY, bind="query-params",
        help="Its strength, effect and real effect in every pair and control, at every cut and step of a training.",
    )  # fmt: skip


def section(view: View, pick: Pick) -> None:
    """The picked edge everywhere, if that is wanted."""
    if pick.name is None or not is_edge(pick.name) or not st.session_state.get(_KEY):
        return
    st.subheader(f"{typeset(pick.name)} in all pairs")
    wanted = st.pills(
        "Rows", _ROWS, selection_mode="multi", default=_ROWS, key="everywhere_rows", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    found = rows(view, pick.name)
    shown = found[found["kind"].isin(wanted)]
    if shown.empty:
        st.caption("Nothing of it is chosen, or computed.")
        return
    loss = LOSS_NAMES[view.method.loss]
    titles = dict(zip(QUANTITIES, ("strength, mean |score|", "effect, mean score", "really removed"), strict=True))
    bands = band(view, found)
    with st.container(key="wide-everywhere"):
        chart(
            partial(figures.plot, shown.drop(columns=["run", "kind"]), titles, bands),
            "everywhere",
            f"Strength, effect and real effect of {pick.name} in every pair, at every cut and step, with intervals.",
            found.drop(columns="run"),
        )
    st.caption(
        f"Nats per scored token ({loss}), with 95 % intervals over questions; every row has its own questions. "
        + _of_band(bands, len(seeds(view)))
    )
    with st.expander("As a table", icon=":material/table_rows:"):
        st.dataframe(_numbers(shown), hide_index=True)


def rows(view: View, edge: str) -> pd.DataFrame:
    """A row for each model of each comparison with a view's questions, graph and rules: of which of `_ROWS` it is
    (`kind`), `group` and `label`, `pair`, `cut`, `step`, `side`, `run`, and what `evidence.everywhere` says.

    Comparisons that score the same tokens are one.
    """
    pairs = load_registry().pairs
    compared = same_tokens(row for row in alike(view) if row.graph == view.graph and row.pair in pairs)
    compared.sort(key=lambda same: (view.at not in same.cuts, same.words, list(pairs).index(same.rows[0].pair)))
    cuts, training = [], []
    for same in compared:
        row = trained(same)
        of = {"pair": row.pair, "cut": same.words}
        title, cut = pairs[row.pair].title, same.heading
        here = {"kind": _ROWS[view.at not in same.cuts], "group": cut, "label": title, **of, "step": None}
        cuts += [here | {"side": side, "run": getattr(row, f"{side}_run")} for side in BOTH]
        runs = data.runs_of(row.comparison_key)
        for side in data.steps(row.comparison_key)["side"]:
            step = step_of_side(side)
            at = {"kind": "training", "group": f"{title}, {cut}", "label": f"step {step}", **of, "step": step}
            training.append(at | {"side": "tuned", "run": runs[side]})
    table = pd.DataFrame([*cuts, *training])
    found = data.everywhere(tuple(dict.fromkeys(table["run"])), edge, view.method.loss)
    return table.merge(found, on="run")


def band(view: View, found: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The seed band: from the lowest to the highest of the view's base and the models that were trained like it from
    other seeds, at its cut; nothing of what is not known of them all."""
    others = [seed.row.base_run if seed.backwards else seed.row.tuned_run for seed in seeds(view)]
    alike_trained = found[found["run"].isin([view.keys[0], *others])].drop_duplicates("run")
    if not others or len(alike_trained) <= len(others):
        return {}
    known = [name for name in QUANTITIES if alike_trained[name].notna().all()]
    return {name: (alike_trained[name].min(), alike_trained[name].max()) for name in known}


def _of_band(bands: dict[str, tuple[float, float]], seeds: int) -> str:
    if not bands:
        return "No seed band: of this base, no model from another seed was compared on these questions and this cut."
    others = "another seed" if seeds == 1 else f"{seeds} other seeds"
    return f"The seed band: between the base and the model{'s' * (seeds > 1)} trained like it from {others}."


def _numbers(shown: pd.DataFrame) -> pd.DataFrame:
    """The same as a table that is read."""
    values = {
        title: with_intervals(shown, name, signed=name != "strength")
        for name, title in zip(QUANTITIES, ("Strength", "Effect", "Really removed"), strict=True)
    }
    return pd.DataFrame({"Where": shown["group"], "What": shown["label"], "Model": shown["side"], **values})
