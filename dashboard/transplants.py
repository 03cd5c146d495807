"""A pair's transplants as pages read them: which were made, what they found, and how to get those that are missing.

They are of a pair and a question set as a whole, whatever cohort and cut the sidebar says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property, partial

import pandas as pd
import streamlit as st

from dashboard import data, widgets
from dashboard.service import store
from dashboard.widgets import offer_job
from dashboard.words import as_text
from probing.evidence import by_direction
from probing.figures.transplants import TITLES, in_words
from probing.graph import ResidualGraph
from probing.jobs.plan import Spec
from probing.jobs.shipped import SAMPLES
from probing.jobs.tasks import Transplant
from probing.jobs.tasks.transplant import found
from probing.method import Method
from probing.metrics import Estimate
from probing.pairs import Pair, Registry
from probing.store.records import EvaluationRow
from probing.transplant.account import Account, account, beside
from probing.transplant.findings import MEASURES, Finding, Findings, Measure
from probing.transplant.units import BASE, DIRECTIONS, HOSTS, ORDERS, TUNED, Direction, What, in_order, singles, steps

UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Transplants:
    """What speaks for one pair."""

    what: What
    rows: Mapping[Direction, EvaluationRow]
    parts: Mapping[Direction, Sequence[str]]
    """From the input to the logits."""
    findings: Mapping[Direction, Findings]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """By what parts were measured."""
        return tuple(m for m in MEASURES if any(m in of.measures for of in self.findings.values()))

    def account(self, measure: Measure) -> Account | None:
        """What they say by one measure."""
        return account(self.findings, self.parts, measure, self.what)

    def by(self, measure: Measure) -> pd.DataFrame:
        """What of `alone` was measured so."""
        return self.alone[self.alone[measure].notna()].reset_index(drop=True)

    @cached_property
    def alone(self) -> pd.DataFrame:
        """A row for each direction and part: `moved`, how far tuning moved it, and what it makes of its host."""
        return pd.DataFrame(
            [
                {"direction": way, "part": unit.parts[0], "moved": of.moved_by(unit), **_numbers(of.of(unit))}
                for way, of in self.findings.items()
                for unit in singles(self.what, way, self.parts[way])
            ]
        )

    @cached_property
    def together(self) -> pd.DataFrame:
        """A row for each direction, order and number of `parts` that the host has of the donor, from none; `added` is
        the last of them."""
        rows = []
        for way, of in self.findings.items() if self.what == "weights" else ():
            host = replace({"base": BASE, "tuned": TUNED}[HOSTS[way][0]], direction=way)
            for order in ORDERS:
                parts = in_order(order, way, self.parts[way], of.values)
                units = [host, *singles(self.what, way, parts[:1]), *steps(way, order, parts)]
                rows += [
                    {"direction": way, "order": order, "parts": count, "added": added, **_numbers(of.of(unit))}
                    for count, (unit, added) in enumerate(zip(units, ["", *parts], strict=True))
                ]
        return pd.DataFrame(rows)


def _numbers(one: Finding) -> dict[str, float | None]:
    """Columns `correct` and `loss`, and the change of each with its interval; `gap_...` is the share of the two models'
    difference in loss that is closed."""
    numbers: dict[str, float | None] = {"correct": one.correct, "loss": one.loss}
    changes = {"correct": one.correct_change, "loss": one.loss_change, "gap": one.recovered}
    for name, estimate in changes.items():
        columns = (f"{name}_change", f"{name}_low", f"{name}_high")
        numbers |= dict(zip(columns, astuple(estimate or UNKNOWN), strict=True))
    return numbers


# -- what there is -----------------------------------------------------------------------------------------------------


def made(pair: str, question_set: str, what: What = "weights", granularity: str = "projections") -> Transplants | None:
    """The transplants that speak for a pair, of one kind; None if there are none."""
    rows = by_direction(_evaluations(pair, question_set), what, granularity)
    return _made(what, tuple(row.evaluation_key for row in rows.values()), rows) if rows else None


@st.cache_resource(max_entries=32, show_spinner=False)
def _made(what: What, keys: tuple[str, ...], _rows: Mapping[Direction, EvaluationRow]) -> Transplants:
    """Evaluations that are finished never change, so their keys say which they are."""
    each = {way: found(store(), row) for way, row in _rows.items()}
    parts, findings = ({way: both[place] for way, both in each.items()} for place in (0, 1))
    return Transplants(what, _rows, parts, findings)  # type: ignore[arg-type]


def side_by_side(
    registry: Registry, pair: Pair, question_set: str, what: What, granularity: str
) -> dict[str, Transplants]:
    """Those of all pairs with the same parts, by name: this one, then those of the same base, then others."""
    own = made(pair.name, question_set, what, granularity)
    if own is None:
        return {}
    names = sorted(registry.pairs, key=lambda name: (name != pair.name, registry.pairs[name].base != pair.base))
    others = {name: made(name, question_set, what, granularity) for name in names}
    alike = set(map(tuple, own.parts.values()))
    return {
        name: other for name, other in others.items()
        if other is not None and alike & set(map(tuple, other.parts.values()))
    }  # fmt: skip


def _evaluations(pair: str, question_set: str) -> list[EvaluationRow]:
    return [row for row in data.evaluation_rows() if (row.pair, row.question_set) == (pair, question_set)]


# -- what a page shows of it -------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[What, str]] = {
    "weights": ("weights", "projections"),
    "activations": ("activations", "projections"),
    "weights of heads": ("weights", "heads"),
    "activations of heads": ("activations", "heads"),
}
"""What may be exchanged, and of which parts."""

MEASURED_BY: dict[Measure, str] = {"correct": "accuracy", "loss": "loss"}


def kind(pair: Pair, question_set: str) -> tuple[What, str]:
    """What was exchanged: a switch, where there is more than one kind."""
    there = [name for name, of in KINDS.items() if made(pair.name, question_set, *of) is not None]
    if len(there) < 2:
        return KINDS[there[0] if there else "weights"]
    chosen = st.segmented_control(
        "Exchanged", there, default=there[0], required=True, key="exchanged", bind="query-params",
        help="Weights: a part as it is in the other model, and what follows of it. Activations: what the other model's "
        "part writes on the same text, read in the place of what this one writes there.",
    )  # fmt: skip
    return KINDS[chosen or there[0]]


def measured_by(of: Transplants) -> Measure:
    """A switch between the share of right answers and the loss, where there are both."""
    if len(of.measures) < 2:
        return of.measures[0]
    return st.segmented_control(
        "Measured by", of.measures, default=of.measures[0], required=True, format_func=MEASURED_BY.__getitem__,
        key="measured", bind="query-params",
        help="Accuracy: questions answered anew, and graded. Loss: of each host on the tuned model's answers.",
    )  # fmt: skip


def subtitle(of: Transplants, pair: Pair, questions: str) -> None:
    """Of what, and of how many questions."""
    asked = sorted({row.questions for row in of.rows.values()})
    numerics = next(iter(of.rows.values())).settings["scored"]
    st.caption(
        f"{as_text(f'{pair.algorithm}, {pair.kind}')} · {' and '.join(map(str, asked))} questions of "
        f"{as_text(questions)}, whoever answers them right · {numerics['dtype']} on {numerics['device']}"
    )


def missing(of: Transplants | None, pair: Pair, question_set: str, granularity: str) -> Spec | None:
    """The job that would make what a page lacks; None if it lacks nothing."""
    what, there = (of.what, of.rows) if of is not None else ("weights", {})
    tasks = tuple(Transplant(what, way, SAMPLES) for way in DIRECTIONS if way not in there)
    method = Method("heads") if granularity == "heads" else Method()
    return Spec(pair.name, question_set, (), method=method, also=tasks) if tasks else None


def offer(spec: Spec, graph: ResidualGraph | None) -> None:
    """Offer that job, and say what it takes."""
    wanted = " and ".join(_MADE[task.direction] for task in spec.also if isinstance(task, Transplant))
    needs = ""
    if graph is not None:
        costs = [task.cost(graph, SAMPLES) for task in spec.also]
        passes, answers = (sum(getattr(cost, name) for cost in costs) for name in ("passes", "answers"))
        needs = f" At most {passes:,.0f} texts are read and {answers:,.0f} answers given."
    why = f"Not computed yet: {wanted}, on {SAMPLES} questions.{needs} Both models are in memory at once."
    offer_job(spec, "Compute it", why)


_MADE: dict[Direction, str] = {
    "into-base": "each part of the tuned model put into the base", "into-tuned": "each part of the base put into the "
    "tuned model",
}  # fmt: skip


def controls(registry: Registry, pairs: Mapping[str, Transplants], of: Account) -> list[str]:
    """What the part that says most does in the controls, a sentence each."""
    if not of.put_in:
        return []
    part, said = (of.carrying or of.put_in)[0].part, []
    for name, other in list(pairs.items())[1:]:
        theirs = other.account(of.measure) if registry.pairs[name].control == "training" else None
        for one in theirs.put_in if theirs is not None else ():
            if one.part == part:
                said.append(beside(f"The control {as_text(registry.pairs[name].title)}", one, of.measure))
    return said


def columns(
    registry: Registry, pairs: Mapping[str, Transplants], way: Direction, measure: Measure
) -> tuple[dict[str, pd.DataFrame], dict[str, int], dict[str, list[str]]]:
    """One direction of several pairs, by title: the parts, the sign of the change from base to tuned, and of those that
    move their host beyond question noise, with all parts looked at, the one that does so most."""
    tables, signs, marked = {}, {}, {}
    for name, of in pairs.items():
        account, rows = of.account(measure), of.by(measure)
        rows = rows[rows["direction"] == way]
        if account is not None and len(rows):
            title = registry.pairs[name].title
            tables[title], signs[title] = rows, account.sign
            sure = account.carrying if way == "into-base" else account.needed
            marked[title] = [one.part for one in sure[:1]]
    return tables, signs, marked


def other_bases(registry: Registry, pair: Pair, pairs: Mapping[str, Transplants]) -> str:
    """A sentence that names those that were tuned from another base; nothing if none was."""
    titles = [as_text(registry.pairs[name].title) for name in pairs if registry.pairs[name].base != pair.base]
    return f" Tuned from another base: {', '.join(titles)}." if titles else ""


def direction(of: Transplants) -> Direction:
    """A switch between the directions that were measured."""
    ways = list(of.rows)
    if len(ways) < 2:
        return ways[0]
    return st.segmented_control(
        "Direction", ways, default=ways[0], required=True, format_func=TITLES.__getitem__, key="direction",
        bind="query-params", label_visibility="collapsed",
    )  # fmt: skip


_KEY = "block"


remember = partial(widgets.remember, _KEY)
"""Pick the part that was clicked in a chart, which it is given."""


def picker(of: Transplants) -> str | None:
    """The search box; in the URL."""
    parts = list(dict.fromkeys(part for parts in of.parts.values() for part in parts))
    return st.selectbox(
        "Part", parts, index=None, key=_KEY, bind="query-params", placeholder="click one, or choose here",
        help="`a3` is the attention block of layer 3 with its norms, `m3` the MLP. `input` is all before the first "
        "block, `logits` all after the last; where they share a matrix they are one.",
    )  # fmt: skip


def show(of: Transplants, picked: str | None, nodes: Sequence[str]) -> None:
    """The numbers of the picked part, and where its edges are."""
    if picked is None:
        st.caption("Click a dot for the numbers of its part.")
        return
    st.markdown(f"**{picked}**")
    for row in of.alone[of.alone["part"] == picked].to_dict("records"):
        st.caption(TITLES[row["direction"]].capitalize())
        st.markdown("\n".join(f"- {name} {value}" for name, value in in_words(row).items()))
    for node in nodes:
        st.page_link(
            "../pages/circuits.py", label=f"`{node}` on Circuits", icon=":material/account_tree:",
            query_params={"pick": node},
        )  # fmt: skip


def nodes_of(part: str | None) -> list[str]:
    """The blocks of the circuit graph that a part is, or belongs to."""
    return [block.partition(".")[0] for block in part.split("+")] if part else []
