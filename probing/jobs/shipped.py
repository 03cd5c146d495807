"""What a fresh store starts with: comparisons of every pair on this machine, and what speaks for or against them."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from probing.cuts import Cut
from probing.jobs.plan import Request, Spec
from probing.jobs.tasks import BOTH, Case, Curve, Task, Transplant
from probing.method import PAPERS, Method
from probing.pairs import Pair, Registry
from probing.rollouts import ALPHAS, DEFAULT_CUT
from probing.store import Store
from probing.store.records import ComparisonRow, EvaluationRow

MARGIN = Method(path="norm-exact", loss="margin")
"""The estimate that comes closest to what really happens, and does not fall with the loss."""

DEFINITIONS = (PAPERS, MARGIN, Method(path="exact"), Method(path="exact", loss="margin"))
"""The methods by which the small pairs are compared, side by side."""

SAMPLES = 200
"""Questions of the transplants."""


def shipped(registry: Registry, evidence: Collection[str] | None = None) -> list[Spec]:
    """The jobs of a fresh store, in order: the default cut of every pair on this machine; of small pairs (or of those
    in `evidence`), the same by other methods, and with circuits run, and transplants; then other cuts, and training.
    """
    first = DEFAULT_CUT
    rest = tuple(cut for cut in ALPHAS if cut != first)
    local = [pair for pair in registry.pairs.values() if pair.is_local]
    small = [pair for pair in local if (pair.is_small if evidence is None else pair.name in evidence)]
    curves = tuple(Curve(side) for side in BOTH)
    transplants = (Transplant("weights", "into-base", SAMPLES), Transplant("weights", "into-tuned", SAMPLES))

    def jobs() -> Iterator[Spec]:
        yield from (_job(pair, (first,)) for pair in local)
        for pair in small:
            yield from (_job(pair, (first,), method=method) for method in DEFINITIONS[1:])
        for pair in small:
            yield from (_job(pair, (first,), method=method, also=curves) for method in DEFINITIONS[:2])
        yield from (_job(pair, (), also=transplants) for pair in small if pair.control != "seed")
        yield from (_job(pair, rest) for pair in local)
        yield from (_job(pair, (first,), timeline=True) for pair in local if pair.steps)

    return list(jobs())


def _job(pair: Pair, cuts: tuple[Cut, ...], **wanted: Any) -> Spec:
    return Spec(pair.name, pair.questions[0], cuts, **wanted)


def is_done(store: Store, request: Request) -> bool:
    """Whether a store has all that a job would bring, whatever device it was made on."""
    spec = request.spec
    keys = {request.request_key(selection) for selection in spec.selections()}
    if not all(store.comparisons.settled(key, request.steps) for key in keys):
        return False
    if not spec.also:
        return True
    made: dict[str, set[str]] = {}
    for row in map(ComparisonRow.of, store.comparisons.table().to_dict("records")):
        if row.settings.get("request") in keys and not row.failure:  # of one that cannot be made nothing is measured
            made.setdefault(row.settings["request"], set()).add(row.comparison_key)
    table = store.evaluations.table()
    table = table[table["finished"].notna() & (table["pair"] == spec.pair) & (table["question_set"] == spec.questions)]
    found = [EvaluationRow.of(row) for row in table.to_dict("records")]

    def is_there(task: Task) -> bool:
        if task.of_pair:
            return any(is_of(row, task, set()) and _asks(row, task, request) for row in found)
        return all(any(is_of(row, task, of_cut) for row in found) for of_cut in made.values())

    return all(map(is_there, spec.also))


def _asks(row: EvaluationRow, task: Task, request: Request) -> bool:
    """Whether an evaluation is of a request's models and what they are asked, whatever device it was made on."""
    case = Case({side: request.asked(side) for side in BOTH}, request.spec.method.as_json(), {})
    return _holds(row.settings, task.settings(case))


def _holds(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether settings have these values, and perhaps others."""
    return all(
        _holds(settings.get(name, {}), value) if isinstance(value, Mapping) else settings.get(name) == value
        for name, value in wanted.items()
    )


def is_of(row: EvaluationRow, task: Task, comparisons: set[str]) -> bool:
    """Whether an evaluation is what a task measures, of one of some comparisons or of its pair."""
    wanted = {"version": task.version, **task.as_json()}
    same = all(row.settings.get(name, value) == value for name, value in wanted.items()) and row.kind == task.kind
    if task.of_pair:
        return same
    return same and row.side == task.of_side and row.comparison_key in comparisons
