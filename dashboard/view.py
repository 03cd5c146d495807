"""The shared selection: pair, question set, cohort and cut, in the sidebar and in the URL of every page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlencode

import streamlit as st

from dashboard import data
from dashboard.words import as_text
from probing.cuts import MOST_TOKENS, Cut
from probing.errors import SelectionError
from probing.graph import Granularity, ResidualGraph
from probing.jobs.plan import Spec
from probing.method import PAPERS, Loss, Method, Path, Reference, Text
from probing.metrics import Comparison
from probing.pairs import Pair, Registry, load_registry
from probing.published import Published, published
from probing.rollouts import ALPHAS, CHOICES, DEFAULT_CUT, EVERY, Criteria
from probing.store.records import ComparisonRow, JobRow, SameTokens, same_tokens

COHORT_NAMES = {
    "both_correct": "both correct",
    "both_wrong": "both wrong",
    "base_only": "only the base correct",
    "tuned_only": "only the tuned correct",
    "any": "whoever is right",
}

GRANULARITY_NAMES: dict[Granularity, str] = {
    "projections": "q, k and v apart",
    "blocks": "the block as one",
    "heads": "each head apart",
}

PATH_NAMES: dict[Path, str] = {
    "eap": "the paper's estimate",
    "norm-exact": "norms taken exactly",
    "eap-ig": "integrated gradients",
    "exact": "each edge really removed",
}

LOSS_NAMES: dict[Loss, str] = {"nll": "likelihood", "margin": "margin", "log-odds": "log-odds"}

REFERENCE_NAMES: dict[Reference, str] = {"zero": "nothing", "mean": "each writer's mean", "patch": "a counterpart"}

TEXT_NAMES: dict[Text, str] = {
    "own": "each model's own answers",
    "shared": "the base's answers",
    "shared-tuned": "the tuned model's answers",
    "shared-reference": "the reference answers",
}

State = Literal["ready", "impossible", "computing", "failed", "absent"]


@dataclass(frozen=True)
class View:
    """What the person looks at, and what the store has of it."""

    pair: Pair
    question_set: str
    cohort: str
    at: Cut
    state: State
    row: ComparisonRow | None
    """The comparison; None unless ready or impossible."""
    job: JobRow | None
    """The job that would make it, if there is one."""

    @property
    def comparison(self) -> ComparisonRow:
        """The comparison of a view that is ready or impossible."""
        assert self.row is not None
        return self.row

    @property
    def key(self) -> str:
        """The comparison's key."""
        return self.comparison.comparison_key

    @property
    def graph(self) -> ResidualGraph:
        """The graph of both models."""
        assert self.comparison.graph is not None
        return self.comparison.graph

    @property
    def method(self) -> Method:
        """How its scores were made."""
        return method_of(self.comparison)

    def published(self, pair: Pair, at: Cut | None = None) -> list[Published]:
        """The paper's rows for a pair on these questions; none beside what was made by another method."""
        if self.method.words:
            return []
        return published(pair, load_registry().questions[self.question_set].title, at)

    @property
    def keys(self) -> tuple[str, str]:
        """The runs of base and tuned."""
        assert self.comparison.base_run is not None
        assert self.comparison.tuned_run is not None
        return self.comparison.base_run, self.comparison.tuned_run

    @property
    def counts(self) -> dict[str, int]:
        """Questions in each cohort and at each stage of the selection."""
        return self.comparison.counts or {}

    @property
    def cut(self) -> int:
        """Tokens of an answer that are scored."""
        return self.comparison.cut or 0


def controls() -> None:
    """Draw the shared controls; each is bound to the URL."""
    registry = load_registry()
    pairs = registry.pairs
    _note_unknown(registry)
    name = st.selectbox(
        "Pair",
        list(pairs),
        format_func=lambda n: pairs[n].title,
        key="pair",
        bind="query-params",
        persist_state="session",
        help="The model before and after tuning.",
    )
    pair = pairs[name or next(iter(pairs))]
    st.selectbox(
        "Questions",
        list(pair.questions),
        format_func=lambda n: registry.questions[n].title,
        key="questions",
        bind="query-params",
        persist_state="session",
        help="What both models were asked.",
    )
    st.selectbox(
        "Cohort",
        list(CHOICES),
        format_func=COHORT_NAMES.__getitem__,
        key="cohort",
        bind="query-params",
        persist_state="session",
        help="Which questions: by who answered them correctly. The paper uses those that both solve.",
    )
    _cut_control(pair.name)

    variants = _variants(current_choice())
    if len(variants) > 1:
        st.selectbox(
            "Rules",
            list(variants),
            key="variant",
            bind="query-params",
            help="By which rules questions were kept and edges scored, where they are not the paper's.",
        )


SHARED = ("pair", "questions", "cohort", "alpha", "variant")
"""What the shared controls are called in an address."""


def is_asked_for() -> bool:
    """Whether somebody arrives by a link to a view."""
    return "arrived" not in st.session_state and any(name in st.query_params for name in SHARED)


def _cut_control(pair: str) -> None:
    """Where answers are cut, as `Cut.as_json` has it: as in the paper, as has been computed, or as is asked for."""
    asked = (_cut_in(st.query_params.get("alpha")), _cut_in(st.session_state.get("alpha")))
    st.segmented_control(
        "Cut α",
        [cut.as_json() for cut in sorted({*known_cuts(pair), *filter(None, asked)})],
        default=DEFAULT_CUT.as_json(),
        required=True,
        format_func=lambda cut: str(Cut.from_json(cut)),
        key="alpha",
        bind="query-params",
        persist_state="session",
        help="The part of each answer that is scored: the first α·T̄ tokens, α being a share of the mean answer "
        "length T̄, or so many tokens. Answers with fewer are scored whole.",
    )
    with st.popover("In tokens", icon=":material/content_cut:"):
        st.number_input(
            "First tokens",
            min_value=1,
            max_value=MOST_TOKENS,
            value=None,
            key="first_tokens",
            on_change=_cut_in_tokens,
            placeholder="such as 3",
            help="Score so many tokens from the start of each answer, whatever the mean answer length.",
        )


def _cut_in_tokens() -> None:
    if (tokens := st.session_state["first_tokens"]) is not None:
        st.session_state["alpha"] = Cut(tokens, "tokens").as_json()


def known_cuts(pair: str | None = None) -> list[Cut]:
    """The paper's cuts, and others at which a pair, or any, has been computed."""
    return sorted({*ALPHAS, *(row.at for row in data.comparison_rows() if pair in (None, row.pair))})


def _cut_in(value: float | str | None) -> Cut | None:
    """The cut that an address or a control holds, if it is one."""
    try:
        return Cut.from_json(value) if value is not None else None
    except SelectionError:
        return None


def _note_unknown(registry: Registry) -> None:
    """Remember what the URL asks for and this server does not have, before the controls drop it."""
    if "arrived" in st.session_state:
        return
    st.session_state["arrived"] = True
    known = {
        "pair": [pair.title for pair in registry.pairs.values()],
        "questions": [questions.title for questions in registry.questions.values()],
        "cohort": list(COHORT_NAMES.values()),
        "alpha": [str(cut) for cut in ALPHAS],
    }
    asked = {name: st.query_params.get(name) for name in known}
    if (cut := _cut_in(asked["alpha"])) is not None:  # any that makes sense can be computed
        known["alpha"].append(str(cut))
    unknown = {name: value for name, value in asked.items() if value and value not in known[name]}
    if unknown:
        name, value = next(iter(unknown.items()))
        st.session_state["unknown"] = (
            f"The link asks for the {name} “{as_text(value)}”, which is not known here; the default stands in for it. "
            f"Known: {as_text(', '.join(known[name]))}."
        )


def unknown() -> str | None:
    """In Markdown, what the link asked for and is not here, for as long as nothing else has been chosen."""
    message = st.session_state.get("unknown")
    if message is None:
        return None
    choice = current_choice()
    shown = (choice.pair.name, choice.question_set, choice.cohort, choice.at)
    if st.session_state.setdefault("unknown_shows", shown) != shown:
        del st.session_state["unknown"]
        return None
    return message


@dataclass(frozen=True)
class Choice:
    """What the four shared controls say."""

    pair: Pair
    question_set: str
    cohort: str
    at: Cut


def current_choice() -> Choice:
    """The shared controls' values, or their defaults."""
    registry = load_registry()
    state = st.session_state
    pair = registry.pairs.get(state.get("pair") or "", next(iter(registry.pairs.values())))
    default = Criteria()
    return Choice(
        pair,
        state.get("questions") or pair.questions[0],
        state.get("cohort") or default.cohort,
        _cut_in(state.get("alpha")) or DEFAULT_CUT,
    )


def current() -> View:
    """The view that the shared controls describe."""
    choice = current_choice()
    row = _chosen_variant(choice)
    job = None if row else _job(choice)
    if row is None and (job is None or not job.is_active):
        row = _chosen_variant(choice)  # it may have been finished between the two looks
    return View(choice.pair, choice.question_set, choice.cohort, choice.at, _state(row, job), row, job)


def _chosen_variant(choice: Choice) -> ComparisonRow | None:
    variants = _variants(choice)
    chosen = st.session_state.get("variant") or PAPER
    return variants.get(chosen) or next(iter(variants.values()), None)


def _variants(choice: Choice) -> dict[str, ComparisonRow]:
    """The newest comparison for each set of selection rules, the paper's first."""
    chosen = choice.pair.name, choice.question_set, choice.cohort, choice.at
    variants: dict[str, ComparisonRow] = {}
    for row in data.comparison_rows():
        if (row.pair, row.question_set, row.cohort, row.at) == chosen and (row.ready or row.failure is not None):
            variants.setdefault(rules(row), row)
    return dict(sorted(variants.items(), key=lambda item: item[0] != PAPER))


def alike(view: View, pair: str | None = None) -> list[ComparisonRow]:
    """The newest comparison of every pair (or of one) at every cut, with the view's questions, cohort and rules."""
    wanted = view.question_set, view.cohort, rules(view.comparison)
    newest: dict[tuple[str, Cut], ComparisonRow] = {}
    for row in data.comparison_rows():
        same = (row.question_set, row.cohort, rules(row)) == wanted and pair in (None, row.pair)
        if row.ready and same:
            newest.setdefault((row.pair, row.at), row)
    return sorted(newest.values(), key=lambda row: row.at)


def same(view: View) -> SameTokens:
    """The comparisons that score the same tokens as a view's, its own among them."""
    return next(found for found in same_tokens(alike(view, view.pair.name)) if view.at in found.cuts)


def trained(found: SameTokens) -> ComparisonRow:
    """Of comparisons that score the same tokens, the one in which most steps of the training were compared."""
    return max(found.rows, key=lambda row: len(data.steps(row.comparison_key)))


def really(view: View) -> ComparisonRow | None:
    """The comparison that has the real effects of what a view's has estimates of: of the same questions, cut, rules and
    loss, with each edge removed. None if it has not been made."""
    method = replace(view.method, path="exact").as_json()
    same = rules(replace(view.comparison, settings=view.comparison.settings | {"method": method}))
    chosen = Choice(view.pair, view.question_set, view.cohort, view.at)
    found = _variants(chosen).get(same)
    return found if found is not None and found.ready and found.graph == view.graph else None


@dataclass(frozen=True)
class Seed:
    """What another seed does to a pair's base: a comparison of two models that were trained alike."""

    row: ComparisonRow
    backwards: bool
    """Whether the base is the tuned model of that comparison, so that differences have to be turned round."""

    def compared(self) -> dict[str, Comparison]:
        """Every metric, from the pair's base to the other seed's model."""
        found = data.compared(self.row.comparison_key)
        return {metric: c.turned if self.backwards else c for metric, c in found.items()}


def seeds(view: View) -> list[Seed]:
    """What other seeds do to a view's base, at its cut and by its rules: the seed band, as far as it was computed."""
    return seeds_among(alike(view), view.pair, view.at)


def seeds_among(rows: list[ComparisonRow], pair: Pair, at: Cut) -> list[Seed]:
    """The same of a pair at a cut, among comparisons that are alike."""
    known = {other.name: backwards for other, backwards in load_registry().seeds(pair)}
    return [Seed(row, known[row.pair]) for row in rows if row.at == at and row.pair in known]


def beside(view: View, pair: Pair, at: Cut) -> View | None:
    """The comparison of a pair at a cut that is like a view's otherwise; None if it has not been computed."""
    found = [row for row in alike(view, pair.name) if row.at == at]
    return replace(view, pair=pair, at=at, row=found[0]) if found else None


def titles(views: Sequence[View]) -> list[str]:
    """What views that stand side by side are called: by their pairs, and their cuts where these differ."""
    if len({view.at for view in views}) == 1:
        return [view.pair.title for view in views]
    return [f"{view.pair.title}, {view.at.words}" for view in views]


def by_method(view: View, method: Method) -> View | None:
    """The newest comparison of a view's pair that differs from its own in the method alone; None if there is none."""

    def chosen(row: ComparisonRow) -> tuple[Any, ...]:
        return row.pair, row.question_set, row.settings["selection"], row.settings.get("answers")

    wanted = chosen(view.comparison)
    for row in data.comparison_rows():
        if row.ready and chosen(row) == wanted and method_of(row).present == method.present:
            return replace(view, row=row)
    return None


PAPER = "the paper's"
"""What the default rules are called."""


def asked(view: View, pair: Pair, at: Cut, **more: object) -> dict[str, str]:
    """What an address asks for that shows a pair at a cut as a view shows its own, and what a page's controls say."""
    question = load_registry().questions[view.question_set].title
    shown = {"pair": pair.title, "questions": question, "cohort": COHORT_NAMES[view.cohort], "alpha": str(at)}
    if (own := rules(view.comparison)) != PAPER:
        shown["variant"] = own
    return shown | {name: str(value) for name, value in more.items()}


def address(page: str, view: View, **more: object) -> str:
    """Of a page that shows a view; `more` is what its own controls say."""
    return f"/{page}?{urlencode(asked(view, view.pair, view.at, **more))}"


def method_of(comparison: ComparisonRow) -> Method:
    """How a comparison's scores were made."""
    return Method.from_json(comparison.settings["method"])


def rules(comparison: ComparisonRow) -> str:
    """How a comparison's selection and method differ from the default."""
    made = comparison.settings
    selection = made["selection"]
    usual = Criteria(Cut.from_json(selection["alpha"]), cohort=selection["cohort"]).as_json()
    names = {"n": "questions", "mean_length": "T̄ rule", "beta": "β", "gamma": "γ", "delta": "δ"}
    changed = [f"{names.get(k, k)} {selection[k]}" for k in usual if selection[k] != usual[k]]
    if all(selection[k] == getattr(EVERY, k) for k in ("beta", "gamma", "delta")):
        changed = [words for words in changed if words[0] not in "βγδ"] + ["answers of any length"]
    changed += method_of(comparison).words
    if made.get("answers") == "imported":
        changed.append("answers from a file")
    return ", ".join(changed) or PAPER


def _job(choice: Choice) -> JobRow | None:
    """The job that would make the comparison by the paper's method, unless only one by another waits."""
    wanted = {"pair": choice.pair.name, "questions": choice.question_set}
    by_papers, by_any = (job_for(wanted | how, choice.cohort, choice.at) for how in ({"method": PAPERS}, {}))
    return by_any if by_papers is None or (by_any and by_any.is_active and not by_papers.is_active) else by_papers


def job_for(wanted: dict[str, Any], cohort: str, at: Cut) -> JobRow | None:
    """The job whose spec has the `wanted` values, that cohort and that cut: the one that will be done first, or if all
    have ended the newest."""
    found = []
    for job in data.job_rows():
        spec = Spec.from_json(job.spec)
        same = all(getattr(spec, name) == value for name, value in wanted.items())
        if same and spec.selection.cohort == cohort and at in spec.cuts:
            found.append(job)
    return min((job for job in found if job.is_active), key=JobRow.turn, default=next(iter(found), None))


def _state(row: ComparisonRow | None, job: JobRow | None) -> State:
    if row is not None:
        return "ready" if row.failure is None else "impossible"
    if job is None:
        return "absent"
    if job.is_active:
        return "computing"
    return "failed" if job.status == "failed" else "absent"
