"""What is measured beside scores: asked for as a value, done units at a time, kept under the key of the artifact."""

import gc
import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from probing.ablation import loss_without
from probing.attribution import Attributor
from probing.cuts import Cut
from probing.errors import TaskError
from probing.extraction import SHARES, circuits
from probing.graph import Edge, ResidualGraph
from probing.jobs import measuring, tasks
from probing.jobs.bench import Bench
from probing.jobs.crew import Alone
from probing.jobs.forecast import forecast
from probing.jobs.job import Job
from probing.jobs.measuring import Ground, Measuring, Units, ablation
from probing.jobs.plan import SIDES, Spec, Wanted, evaluation_key
from probing.jobs.tasks import Case, Check, Cost, Curve, Task
from probing.jobs.worker import follow
from probing.method import Method
from probing.models import load_model
from probing.pairs import load_registry
from probing.report import evaluated
from probing.rollouts import samples, select
from probing.scores import Scores
from probing.store import Store, open_store
from probing.store.records import ComparisonRow, EvaluationRow, Measurements, SameTokens, same_tokens
from tests import literal, small

CHECK = Check("tuned", strongest=3, random=2)
SPEC = replace(small.SPEC, also=(CHECK,))


def _first_cut(store: Store) -> list[SameTokens]:
    """The comparison of the first cut, of which tasks are done."""
    key = small.plan().comparison_key(SPEC.selections()[0])
    rows = map(ComparisonRow.of, store.comparisons.table().to_dict("records"))
    return same_tokens(row for row in rows if row.comparison_key == key)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store in which the job ran to its end; each test asks for more than the one before."""
    with small.store_of(tmp_path_factory.mktemp("tasks"), SPEC) as opened:
        yield opened


def _scores(store: Store) -> Scores:
    """Those of the tuned model."""
    return store.runs.scores(small.runs(store)["tuned"])


def test_what_is_kept_is_what_the_literal_twin_loses_without_an_edge(store: Store) -> None:
    plan = small.plan()
    (row,) = map(EvaluationRow.of, store.evaluations.table().to_dict("records"))
    assert (row.evaluation_key, row.kind, row.pair, row.side, row.cuts) == (
        small.key(store, CHECK), "ablation", "small", "tuned", (Cut(0.3),),
    )  # fmt: skip
    assert row.finished is not None
    assert row.provenance is not None
    assert row.provenance["device"] == "cpu"
    found = store.evaluations.values(row.evaluation_key)
    answers = {side: store.rollouts.answers(plan.rollout_key(side)) for side in SIDES}
    chosen = {s.id: s for s in samples(answers["tuned"], select(*answers.values(), SPEC.selections()[0]))}
    assert set(found.ids) == set(chosen)
    model = load_model(plan.checkpoints["tuned"], torch.device("cpu"), torch.float64)
    for unit in (0, 2, 4):
        edge, sample = Edge.of(found.units[unit]), chosen[found.ids[unit]]
        whole, written, _ = literal.run(model, sample)
        without, _, _ = literal.run(model, sample, {edge.reader.name: -written[edge.writer.name]})
        assert abs(float(without - whole)) > 1e-5
        assert found.values["nll"][unit, unit] == pytest.approx(float(without - whole), rel=1e-3, abs=1e-6)


def test_the_strongest_edges_come_first_and_the_others_are_drawn_from_the_rest(store: Store) -> None:
    key = small.key(store, CHECK)
    scores = _scores(store)
    by_hand = sorted(
        scores.graph.edges, key=dict(zip(scores.graph.edges, -np.abs(scores.edges).sum(0), strict=True)).get
    )
    units = store.evaluations.values(key).units
    assert list(units[:3]) == by_hand[:3]
    assert set(units[3:]) < set(by_hand[3:])
    other = [scores.graph.edges[edge] for edge in replace(CHECK, seed=1).edges(scores)]
    assert other[:3] == list(units[:3])
    assert other[3:] != list(units[3:])
    assert sorted(Check(strongest=10, random=10**9).edges(scores)) == list(range(scores.graph.size))


def test_a_job_that_was_stopped_goes_on_with_the_units_that_are_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "AT_ONCE", 4)
    check = Check("base", strongest=6, random=4)
    spec = replace(SPEC, also=(check,))
    removed: list[int] = []
    effects = ablation.effects_by_loss
    monkeypatch.setattr(
        ablation,
        "effects_by_loss",
        lambda a, s, edges, *how, **more: [removed.extend(edges), effects(a, s, edges, *how, **more)][1],
    )
    key = small.key(store, check)

    def stop(stage: str, done: int, total: int) -> None:
        if "ablation" in stage and done >= 4:
            assert total == 10
            raise KeyboardInterrupt

    job = store.queue.submit(spec.as_json())
    with pytest.raises(KeyboardInterrupt):
        follow(store, job, stop)
    assert store.queue.job(job).status == "queued", "it was given back"
    first = list(removed)
    assert len(store.evaluations.measured(key)) == len(first) == 4
    assert not store.evaluations.finished(key)

    def cancel(stage: str, done: int, total: int) -> None:
        if "ablation" in stage and done >= 8:
            store.queue.end(job, "cancelled", "Cancelled.")

    assert follow(store, job, cancel).status == "cancelled"
    assert len(store.evaluations.measured(key)) == 8, "what it had finished is kept"
    assert follow(store, store.queue.submit(spec.as_json()), lambda *_: None).status == "done"
    assert len(set(removed)) == len(removed) == 10, "no edge was removed twice"
    assert store.evaluations.finished(key)
    whole = replace(check, seed=0, strongest=10, random=0)  # six of its edges are the same, measured at one go
    small.do(store, replace(spec, also=(whole,)))
    again, found = (store.evaluations.values(small.key(store, task)) for task in (whole, check))
    assert again.units[:6] == found.units[:6]
    np.testing.assert_array_equal(again.values["nll"][:6], found.values["nll"][:6])


def test_comparisons_that_need_the_same_evaluation_share_it(store: Store) -> None:
    stages = small.do(store, SPEC)
    assert stages == []
    laxer = replace(SPEC, selection=replace(SPEC.selection, gamma=100.0))  # no answer is that long
    stages = small.do(store, laxer)
    assert not [stage for stage in stages if "ablation" in stage]
    table = store.evaluations.table()
    rows = table[table["evaluation_key"] == small.key(store, CHECK)]
    assert (len(rows), rows["comparison_key"].nunique()) == (2, 2)
    assert small.key(store, CHECK, laxer) == small.key(store, CHECK)


def test_scores_of_another_loss_are_checked_by_that_loss(store: Store) -> None:
    spec = replace(SPEC, method=Method(loss="margin"), also=(Check("tuned", strongest=1, random=1),))
    small.do(store, spec)
    found, plan = store.evaluations.values(small.key(store, spec.also[0], spec)), small.plan(spec)
    answers = {side: store.rollouts.answers(plan.rollout_key(side)) for side in SIDES}
    chosen = {s.id: s for s in samples(answers["tuned"], select(*answers.values(), SPEC.selections()[0]))}
    model, sample = load_model(plan.checkpoints["tuned"], torch.device("cpu"), torch.float64), chosen[found.ids[0]]
    for unit, name in enumerate(found.units):
        edge, (whole, written, _) = Edge.of(name), literal.run(model, sample, loss="margin")
        without, _, _ = literal.run(model, sample, {edge.reader.name: -written[edge.writer.name]}, loss="margin")
        assert found.values["margin"][unit, 0] == pytest.approx(float(without - whole), rel=1e-3, abs=1e-5)


def test_all_that_decides_an_evaluation_is_in_its_key_and_nothing_else(store: Store) -> None:
    checks = [CHECK, *(replace(CHECK, **change) for change in (
        {"side": "base"}, {"strongest": 4}, {"random": 3}, {"seed": 1}, {"questions": 5},
    ))]  # fmt: skip
    keys = {small.key(store, check) for check in checks}
    assert len(keys) == 6
    settings = store.runs.settings(small.runs(store)["tuned"])
    case = Case({}, {}, {}, dict.fromkeys(SIDES, "one"), dict.fromkeys(SIDES, settings))
    assert evaluation_key(CHECK, case) == evaluation_key(replace(CHECK, side="base"), case), "of the same run"


def test_tasks_go_through_json_and_jobs_of_before_there_were_any_are_read(tmp_path: Path) -> None:
    assert Spec.from_json(SPEC.as_json()) == SPEC
    before = {name: value for name, value in SPEC.as_json().items() if name != "also"}
    assert Spec.from_json(before) == replace(SPEC, also=())
    with pytest.raises(TaskError, match="no task 'magic'"):
        Spec.from_json(before | {"also": [{"kind": "magic"}]})
    opened = open_store(tmp_path / "store.duckdb")
    job = follow(opened, opened.queue.submit(before | {"also": [{"kind": "magic"}]}), lambda *_: None)
    kinds = "ablation, circuit, edge, transplant"
    assert (job.status, job.message) == ("failed", f"There is no task 'magic'. There are: {kinds}.")
    opened.close()


def test_tasks_are_asked_for_in_words() -> None:
    assert tasks.parse("ablation") == (Check("base"), Check("tuned"))
    assert tasks.parse("ablation:side=base,strongest=5") == (Check("base", strongest=5),)
    for text, said in (
        ("magic", "no task 'magic'"), ("ablation:depth=1", "no setting 'depth'"),
        ("ablation:seed=x", "'x' is no number"), ("ablation:side=left", "Needed: a side"),
        ("ablation:strongest=0,random=0", "at least one edge"),
    ):  # fmt: skip
        with pytest.raises(TaskError, match=said):
            tasks.parse(text)


def test_a_forecast_says_what_a_task_would_take_and_what_is_there(store: Store) -> None:
    other = replace(CHECK, strongest=10**9)  # each edge of the graph once, and the whole
    lines = list(forecast(replace(SPEC, also=(CHECK, other)), load_registry(), store).lines())
    known, new = (line for line in lines if line.startswith("also"))
    words = "3 strongest and 2 random edges of tuned really removed"
    assert known == f"also       {words}, α 0.3: already computed [{small.key(store, CHECK)}]"
    assert f"α 0.3: {164 * 6} passes over at most 22 tokens, at most" in new
    assert new.endswith(f" [{small.key(store, other)}]")


def test_what_is_printed_of_an_ablation_is_what_its_scores_and_effects_say(store: Store) -> None:
    lines = list(evaluated(store, "small", "few", _first_cut(store)))
    (row,) = (line.split(" | ") for line in lines if "| tuned | 3 strongest |" in line)
    scores, found = _scores(store), store.evaluations.values(small.key(store, CHECK))
    edges = [scores.graph.edges.index(unit) for unit in found.units[:3]]
    said, happened = np.abs(scores.edges[:, edges]).mean(0), np.abs(found.values["nll"][:3]).mean(1)
    assert row[3] == "6"
    assert float(row[4].split()[0]) == pytest.approx(spearmanr(said, happened)[0], abs=0.005)
    assert float(row[6].split()[0]) == pytest.approx(happened.sum() / said.sum(), rel=0.01)
    assert list(evaluated(store, "small", "few", [])) == []


# -- circuits ---------------------------------------------------------------------------------------------------------


def test_circuits_of_both_sides_run_in_a_model_and_its_curve_is_printed(store: Store) -> None:
    task = Curve("base", extract="greedy", random=2)
    small.do(store, replace(SPEC, also=(task,)))
    plan, key = small.plan(), small.key(store, task)
    found = store.evaluations.values(key)
    runs = store.comparisons.runs(plan.comparison_key(SPEC.selections()[0]))
    scores = {side: store.runs.scores(run) for side, run in runs.items()}
    graph = scores["base"].graph
    assert (found.units[0], found.units[-1], len(found.units)) == (
        "none:0",
        f"all:{graph.size}",
        2 * (9 + 4) + 2 * 9 + 2,
    )
    own = dict(zip(scores["base"].ids, scores["base"].loss, strict=True))
    np.testing.assert_allclose(found.values["loss"][-1], [own[question] for question in found.ids], rtol=1e-5)
    answers = {side: store.rollouts.answers(plan.rollout_key(side)) for side in SIDES}
    chosen = samples(answers["base"], select(*answers.values(), SPEC.selections()[0]))
    attributor = Attributor(load_model(plan.checkpoints["base"], torch.device("cpu"), torch.float32))
    (inside,) = circuits(graph, scores["tuned"].edges.mean(0, dtype=np.float64), "greedy", "magnitude", [0.5])
    unit = f"tuned:greedy:0.5:{inside.sum()}"
    assert inside.sum() > 0
    for place, sample in enumerate(chosen):
        expected = loss_without(attributor, [sample], np.flatnonzero(~inside))
        np.testing.assert_allclose(found.values["loss"][found.units.index(unit), place], expected, rtol=1e-4)
    runs = store.comparisons.runs(plan.comparison_key(SPEC.selections()[0]))
    turned = Case({}, plan.spec.method.as_json(), {}, {"base": runs["tuned"], "tuned": runs["base"]})
    same_runs = evaluation_key(replace(task, side="tuned"), turned)
    assert same_runs != small.key(store, task), "of the pair turned round, the sides that units name are others"
    lines = list(evaluated(store, "small", "few", _first_cut(store)))
    rows = [line.split(" | ") for line in lines if "| greedy magnitude |" in line]
    assert [row[1:3] for row in rows] == [["base", "base"], ["base", "tuned"], ["base", "2 random"]]
    f = []
    for whose in ("base", "random0", "random1"):
        of = [k for k, unit in enumerate(found.units) if unit.startswith(whose) and float(unit.split(":")[2]) <= 0.5]
        of.append(-1)
        m = found.values["margin"].mean(1)
        f.append(np.trapezoid((m[of] - m[0]) / (m[-1] - m[0]), SHARES))
    assert float(rows[0][7].split()[0]) == pytest.approx(f[0], abs=0.006)
    assert [float(end) for end in rows[2][7].split(" to ")] == pytest.approx(sorted(f[1:]), abs=0.006)
    with pytest.raises(TaskError, match="top or greedy"):
        tasks.parse("circuit:extract=best")


# -- a kind that is of the pair as a whole, and needs both models -----------------------------------------------------

_alive: dict[int, weakref.ref] = {}


@dataclass(frozen=True)
class Distance(Task):
    """How far the two models' blocks are apart, which is the same for every question."""

    kind = "distance"
    version = 1
    of_pair = True
    together = True

    words = "blocks compared"

    def settings(self, case: Case) -> dict[str, Any]:
        """Both models."""
        return {"models": [case.answers[side]["identity"] for side in SIDES]}

    def cost(self, graph: ResidualGraph, questions: int) -> Cost:
        """As if each block answered again."""
        return Cost(answers=2 * graph.layers * questions)

    @staticmethod
    def lines(store: Store, evaluations: Sequence[EvaluationRow]) -> Iterator[str]:
        """One line."""
        yield f"{len(evaluations)} pairs compared"


@dataclass(frozen=True)
class _Comparing(Measuring):
    key: str
    wanted: tuple[Wanted, Wanted]
    ids: tuple[str, ...]
    seen: tuple[str, ...] = ()

    def lay_out(self, bench: Bench) -> Units:
        return Units((("0", "1"), ("2",)), self.ids, 1)

    def after(self, found: Measurements) -> "_Comparing":
        return replace(self, seen=found.units)

    def measure(self, units: Sequence[str], bench: Bench, say: Any) -> dict[str, np.ndarray]:
        assert self.seen == (("0", "1") if units == ("2",) else ()), "of the phase before"
        models = [attributor.model for attributor, _ in bench.both(*self.wanted)]
        _alive.update({id(model): weakref.ref(model) for model in models})
        first, second = ([m.model.layers[int(u)].mlp.up_proj.weight.numpy() for u in units] for m in models)
        apart = [np.abs(a - b).max() for a, b in zip(first, second, strict=True)]
        return {"distance": np.tile(np.array(apart, np.float32)[:, None], len(self.ids))}


def _distance(task: Distance, ground: Ground) -> Measuring:
    ids = tuple(answer.question_id for answer in ground.answers("base"))
    return _Comparing(ground.key, (ground.wanted("base"), ground.wanted("tuned")), ids)


def test_a_task_of_the_pair_has_all_questions_and_both_models_and_lets_the_second_go(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks.KINDS, "distance", Distance)
    monkeypatch.setitem(measuring._PREPARE, Distance, _distance)
    crew, plan = Alone(), small.plan(replace(SPEC, cuts=(Cut(0.3), Cut(0.5)), also=tasks.parse("distance")))
    Job(store, crew, plan, lambda *_: None).do()
    rows = [EvaluationRow.of(row) for row in store.evaluations.table().to_dict("records") if row["kind"] == "distance"]
    assert [(row.pair, row.comparison_key, row.side, row.units) for row in rows] == [("small", None, None, 3)]
    found = store.evaluations.values(rows[0].evaluation_key)
    assert len(found.ids) == 48
    base, tuned = (
        load_model(plan.checkpoints[side], torch.device("cpu"), torch.float32).model.layers for side in SIDES
    )
    for layer in range(3):
        apart = (base[layer].mlp.up_proj.weight - tuned[layer].mlp.up_proj.weight).abs().max()
        assert apart > 0
        assert found.values["distance"][layer, 7] == pytest.approx(float(apart))
    gc.collect()
    assert len(_alive) == 2, "each was loaded once"
    assert [ref() is not None for ref in _alive.values()] == [True, False]
    assert list(evaluated(store, "small", "few", [])) == ["1 pairs compared", ""], "of the pair, whatever the cut"
    afresh = replace(SPEC, also=(CHECK, Distance()))
    lines = [line for line in forecast(afresh, load_registry(), None).lines() if line.startswith("also")]
    for line, said in zip(lines, (
        "3 strongest and 2 random edges of tuned really removed, α 0.3: 36 passes over at most 22 tokens",
        "blocks compared: 576 answers, both models at once, 5.33 MB of weights",
    ), strict=True):  # fmt: skip
        assert re.fullmatch(rf"also       {said}, at most \d+ seconds( \[.{{16}}\])?", line)
