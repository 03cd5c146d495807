"""Edges that are really removed, because somebody asks or a method says so, and what is known of them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from probing import evidence
from probing.cuts import Cut
from probing.edge_tables import edge_table
from probing.evidence.removed import Source
from probing.evidence.tables import tables
from probing.graph import Edge
from probing.jobs.keys import exact_key
from probing.jobs.loading import Models
from probing.jobs.plan import SIDES, make_request
from probing.jobs.shipped import DEFINITIONS, is_done
from probing.jobs.tasks import Check, OneEdge
from probing.jobs.tasks.edge import SCORE
from probing.jobs.worker import follow
from probing.method import Method
from probing.metrics import Definition, benjamini_hochberg
from probing.models import load_model
from probing.pairs import load_registry
from probing.rollouts import samples, select
from probing.scoring import attribute
from probing.sequences import Sample
from probing.store import Store
from tests import literal, small
from tests.small import SPEC

WHOLE = "m0->a2<q>"
FEW = Definition(resamples=500)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the scores of a comparison; each test asks for more than the one before."""
    with small.store_of(tmp_path_factory.mktemp("removed"), SPEC) as opened:
        yield opened


def _samples(store: Store) -> list[Sample]:
    """What the tuned model is scored on."""
    plan = small.plan(SPEC)
    answers = [store.rollouts.answers(plan.rollout_key(side)) for side in SIDES]
    return samples(answers[1], select(*answers, SPEC.selections()[0]))


def _without(store: Store, name: str, loss: str = "nll") -> list[float]:
    """By the literal twin: what the tuned model's loss gains on each sample, in the order of their names."""
    model = load_model(small.plan(SPEC).checkpoints["tuned"], torch.device("cpu"), torch.float64)
    edge, gained = Edge.of(name), []
    for sample in sorted(_samples(store), key=lambda sample: sample.id):
        whole, written, _ = literal.run(model, sample, loss=loss)
        without, _, _ = literal.run(model, sample, {edge.reader.name: -written[edge.writer.name]}, loss=loss)
        gained.append(float(without - whole))
    return gained


def _ask(store: Store) -> None:
    """Have a check and three edges removed, which is there already after the tests before."""
    checks = [Check(side, strongest=3, random=2, questions=4) for side in SIDES]  # type: ignore[arg-type]
    edges = [OneEdge(side, edge) for edge in (WHOLE, "m1->logits") for side in SIDES]  # type: ignore[arg-type]
    small.do(store, replace(SPEC, also=(*checks, *edges, OneEdge("tuned", WHOLE, "heads"))))


def test_nothing_is_known_before_anything_was_removed(store: Store) -> None:
    run = small.runs(store)["tuned"]
    assert evidence.removed(store, run, "nll") == evidence.Removed(())
    table = evidence.checked(store.runs.scores(run), evidence.removed(store, run, "nll"), FEW)
    assert set(table["verdict"]) == {"not checked"}
    assert table["effect"].isna().all()
    np.testing.assert_allclose(table["estimate"], store.runs.scores(run).edges.mean(0, dtype=np.float64))


def test_a_check_on_fewer_questions_draws_the_same_for_both_sides(store: Store) -> None:
    checks = [Check(side, strongest=3, random=2, questions=4) for side in SIDES]  # type: ignore[arg-type]
    small.do(store, replace(SPEC, also=tuple(checks)))
    base, tuned = (store.evaluations.values(small.key(store, check, SPEC)) for check in checks)
    assert base.ids == tuned.ids
    assert len(set(tuned.ids)) == 4
    assert set(tuned.ids) < {sample.id for sample in _samples(store)}
    assert tuned.values["nll"].shape == (5, 4)
    of = dict(zip(sorted(sample.id for sample in _samples(store)), _without(store, tuned.units[0]), strict=True))
    np.testing.assert_allclose(tuned.values["nll"][0], [of[name] for name in tuned.ids], rtol=2e-3, atol=1e-6)
    other = replace(checks[1], seed=1).drawn(sorted(of))
    assert other != checks[1].drawn(sorted(of))
    assert replace(checks[1], questions=0).drawn(sorted(of)) == sorted(of)
    graph = store.runs.scores(small.runs(store)["tuned"]).graph
    assert checks[1].cost(graph, 6).passes == 6 * 4


def test_an_edge_that_is_asked_for_is_removed_on_all_questions_and_shared(store: Store) -> None:
    tasks = tuple(OneEdge(side, WHOLE) for side in SIDES)  # type: ignore[arg-type]
    spec = replace(SPEC, also=tasks)
    small.do(store, spec)
    found = store.evaluations.values(small.key(store, tasks[1], SPEC))
    assert found.units == (WHOLE,)
    order = np.argsort(found.ids)
    for loss in ("nll", "margin"):
        np.testing.assert_allclose(found.values[loss][0][order], _without(store, WHOLE, loss), rtol=2e-3, atol=1e-6)
    laxer = replace(spec, selection=replace(SPEC.selection, gamma=100.0))  # no answer is that long
    assert not [stage for stage in small.do(store, laxer) if "edge," in stage]
    assert small.key(store, tasks[1], laxer) == small.key(store, tasks[1], SPEC)
    assert is_done(store, make_request(spec, load_registry()))
    other = replace(spec, also=(OneEdge("tuned", "m0->m1"),))
    assert not is_done(store, make_request(other, load_registry())), "of another edge nobody has asked"
    small.do(store, replace(SPEC, cuts=(*SPEC.cuts, Cut(0.5))))
    cuts = replace(spec, cuts=(*SPEC.cuts, Cut(0.5)))
    assert not is_done(store, make_request(cuts, load_registry())), "nor of it at another cut"
    nobody = replace(spec, selection=replace(SPEC.selection, cohort="both_wrong"))
    small.do(store, nobody)
    assert is_done(store, make_request(nobody, load_registry())), "nothing can be measured of no questions"


def test_a_job_for_an_edge_that_was_stopped_is_done_by_the_next(store: Store) -> None:
    spec = replace(SPEC, also=(OneEdge("base", "m1->logits"), OneEdge("tuned", "m1->logits")))

    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith("grpo edge"):
            raise KeyboardInterrupt

    job = store.queue.submit(spec.as_json(), urgent=True)
    with pytest.raises(KeyboardInterrupt):
        follow(store, job, stop)
    base, tuned = (small.key(store, task, SPEC) for task in spec.also)
    assert store.evaluations.finished(base)
    assert not store.evaluations.finished(tuned)
    stages: list[str] = []
    assert follow(store, job, lambda stage, done, total: stages.append(stage)).status == "done"
    assert store.evaluations.finished(tuned)
    assert {stage.split(",")[0] for stage in stages} == {"grpo edge"}, "the base's was there"


def test_the_heads_of_an_edge_are_removed_alone_and_their_scores_add_up_to_its_own(store: Store) -> None:
    task = OneEdge("tuned", WHOLE, "heads")
    small.do(store, replace(SPEC, also=(task,)))
    found = store.evaluations.values(small.key(store, task, SPEC))
    heads = [Edge.of(unit) for unit in found.units]
    assert len(heads) > 1
    assert {(edge.writer.name, edge.reader.block, edge.reader.kind) for edge in heads} == {("m0", "a2", "q")}
    scores = store.runs.scores(small.runs(store)["tuned"])
    rows = [scores.ids.index(name) for name in found.ids]
    whole = scores.edges[rows, scores.graph.number(WHOLE)]
    np.testing.assert_allclose(found.values[SCORE].sum(0), whole, rtol=1e-3, atol=1e-6)
    order = np.argsort(found.ids)
    expected = _without(store, found.units[1])
    assert max(map(abs, expected)) > 1e-5
    np.testing.assert_allclose(found.values["nll"][1][order], expected, rtol=5e-3, atol=2e-6)


def test_what_stands_in_for_heads_of_an_edge_is_their_own_writers_mean(store: Store) -> None:
    spec, task = replace(SPEC, method=Method(reference="mean")), OneEdge("tuned", WHOLE, "heads")
    small.do(store, replace(spec, also=(task,)))
    found = store.evaluations.values(small.key(store, task, spec))
    model = load_model(small.plan(SPEC).checkpoints["tuned"], torch.device("cpu"), torch.float64)
    edge, chosen = Edge.of(found.units[1]), {sample.id: sample for sample in _samples(store)}
    runs = {name: literal.run(model, chosen[name]) for name in found.ids}
    written = {name: wrote[edge.writer.name].flatten(0, -2) for name, (_, wrote, _) in runs.items()}
    mean = torch.cat([*written.values()]).mean(0)
    expected = []
    for name, (whole, wrote, _) in runs.items():
        moved = {edge.reader.name: mean - wrote[edge.writer.name]}
        expected.append(float(literal.run(model, chosen[name], moved)[0] - whole))
    np.testing.assert_allclose(found.values["nll"][1], expected, rtol=5e-3, atol=2e-6)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (OneEdge("tuned", "m9->logits"), "The model's graph has no edge 'm9->logits'."),
        (OneEdge("base", "m0->m1", "heads"), "The edge 'm0->m1' is between no heads that can be told apart."),
    ],
)
def test_what_cannot_be_removed_is_refused_with_a_sentence(store: Store, task: OneEdge, said: str) -> None:
    job = follow(store, store.queue.submit(replace(SPEC, also=(task,)).as_json()), lambda *_: None)
    assert job.status == "failed"
    assert job.message.startswith(said)


def test_of_what_is_known_the_most_questions_speak_whatever_the_method_of_the_estimate(store: Store) -> None:
    _ask(store)
    run = small.runs(store)["tuned"]
    known = evidence.removed(store, run, "nll")
    assert [len(source.ids) for source in known.sources] == [6, 4], "what is over the same questions is together"
    assert len(known.keys) == 4, "a check and three edges that were asked for"
    check = store.evaluations.values(small.key(store, Check("tuned", 3, 2, questions=4), SPEC))
    ids, effects = known.of(check.units[0]) or ((), [])
    assert len(ids) == 4
    small.do(store, replace(SPEC, also=(OneEdge("tuned", check.units[0]),)))
    ids, effects = evidence.removed(store, run, "nll").of(check.units[0]) or ((), [])
    of = dict(zip(ids, effects, strict=True))
    assert len(of) == 6
    np.testing.assert_allclose([of[name] for name in check.ids], check.values["nll"][0], rtol=1e-3, atol=1e-6)
    assert evidence.removed(store, run, "margin").of(WHOLE) is not None
    assert evidence.removed(store, run, "log-odds").of(WHOLE) is None, "nobody has looked at it"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OneEdge, "version", OneEdge.version + 1)
        assert evidence.removed(store, run, "nll").of(WHOLE) is None, "what was measured otherwise does not speak"
    other = Method(path="norm-exact", loss="margin")
    for method, is_known in ((other, True), (Method(reference="mean"), False)):
        spec = replace(SPEC, method=method)
        small.do(store, spec)
        of_other = store.comparisons.runs(small.plan(spec).comparison_key(SPEC.selections()[0]))["tuned"]
        assert (evidence.removed(store, of_other, "nll").of(WHOLE) is not None) is is_known


def test_effects_of_both_models_make_an_edge_table_of_what_is_known_in_both(store: Store) -> None:
    _ask(store)
    runs = small.runs(store)
    known = {side: evidence.removed(store, runs[side], "nll") for side in SIDES}
    graph = store.runs.scores(runs["base"]).graph
    found = edge_table(graph, evidence.in_both(known["base"], known["tuned"], graph, FEW))
    both = [edge for edge in graph.edges if known["base"].of(edge) and known["tuned"].of(edge)]
    assert list(found["edge"]) == both
    assert {WHOLE, "m1->logits"} <= set(both)
    for row in found.itertuples():
        of = {side: dict(zip(*known[side].of(row.edge), strict=True)) for side in SIDES}  # type: ignore[arg-type]
        common = sorted(of["base"].keys() & of["tuned"].keys())
        values = {side: np.array([of[side][name] for name in common], float) for side in SIDES}
        assert row.base_effect == pytest.approx(values["base"].mean())
        assert row.tuned_strength == pytest.approx(np.abs(values["tuned"]).mean())
        assert row.ci_low <= row.difference <= row.ci_high
    np.testing.assert_allclose(found["q"], benjamini_hochberg(found["p"].to_numpy()))
    assert sorted(found["base_rank"]) == list(range(1, len(both) + 1))
    assert evidence.in_both(evidence.Removed(()), known["tuned"], graph, FEW).empty
    elsewhere = evidence.Removed((Source(("another question",), (WHOLE,), np.ones((1, 1))),))
    assert evidence.in_both(elsewhere, known["tuned"], graph, FEW).empty, "they have no question in common"


def test_one_edge_in_many_runs_is_what_each_says_of_it(store: Store) -> None:
    _ask(store)
    runs = small.runs(store)
    table = evidence.everywhere(store, [*runs.values()], WHOLE, "nll", FEW).set_index("run")
    for run in runs.values():
        scores, row = store.runs.scores(run), table.loc[run]
        mine = scores.edges[:, scores.graph.number(WHOLE)].astype(float)
        assert row["strength"] == pytest.approx(np.abs(mine).mean())
        assert row["effect"] == pytest.approx(mine.mean())
        assert row["effect_low"] < row["effect"] < row["effect_high"]
        held = evidence.checked(scores, evidence.removed(store, run, "nll"), FEW, [WHOLE]).iloc[0]
        assert (row["verdict"], row["questions"]) == (held["verdict"], 6)
        assert list(row[["real", "real_low", "real_high"]]) == pytest.approx(list(held[["effect", "low", "high"]]))
    unknown = evidence.everywhere(store, [runs["base"]], "m0->m1", "nll", FEW).iloc[0]
    assert (unknown["verdict"], unknown["questions"]) == ("not checked", 0)
    assert np.isnan(unknown["real"])
    assert evidence.everywhere(store, [*runs.values()], "m9->logits", "nll", FEW).empty, "no graph has it"


def test_all_edges_really_removed_are_a_run_that_brings_its_twin_of_the_other_loss(store: Store) -> None:
    exact = replace(SPEC, method=Method(path="exact"))
    small.do(store, exact)
    settings = store.runs.settings(small.runs(store)["tuned"])
    nll, margin = (store.runs.scores(exact_key(settings, loss)) for loss in ("nll", "margin"))
    chosen = sorted(_samples(store), key=lambda sample: sample.id)
    plan = small.plan(exact)
    attributor, _ = Models().load(plan.wanted("tuned"), lambda *_: None)
    for found in (nll, margin):
        alone = attribute(attributor, chosen, method=replace(found.method))
        assert found.method.loss == alone.method.loss
        np.testing.assert_allclose(found.edges, alone.edges, rtol=1e-3, atol=1e-6)
    assert np.abs(nll.edges - margin.edges).max() > 0.01
    twin = replace(exact, method=Method(path="exact", loss="margin"))
    assert not [stage for stage in small.do(store, twin) if "edges" in stage], "its scores are there"
    known = evidence.removed(store, small.runs(store)["tuned"], "margin")
    assert known.whole(nll.graph.edges) is not None
    np.testing.assert_array_equal((known.of(WHOLE) or ((), []))[1], margin.edges[:, margin.graph.number(WHOLE)])
    run = store.comparisons.runs(plan.comparison_key(SPEC.selections()[0]))["tuned"]
    table = evidence.everywhere(store, [run, small.runs(store)["tuned"]], WHOLE, "nll", FEW)
    assert table["real"].nunique() == 1, "an estimate's run finds what the exact one has"


def test_token_by_token_nobody_knows_what_really_happens(store: Store) -> None:
    asked = replace(SPEC, method=Method(path="exact"), question=_samples(store)[0].id)
    job = follow(store, store.queue.submit(asked.as_json()), lambda *_: None)
    assert (job.status, "not known token by token" in job.message) == ("failed", True)


def test_definitions_beside_each_other_are_of_the_same_questions(store: Store) -> None:
    def intensity() -> str:
        return next(line for line in tables(store, load_registry(), ["small"]) if line.startswith("| Small"))

    for method in DEFINITIONS:
        small.do(store, replace(SPEC, method=method))
    before = intensity()
    assert "–" not in before, "all four are there"
    small.do(store, replace(SPEC, selection=replace(SPEC.selection, n=4)))
    assert intensity() == before, "a newer comparison, of fewer questions and by one definition alone, is not mixed in"


def test_verdicts_by_hand() -> None:
    up, down, around = np.full(40, 2.0), np.full(40, -2.0), np.tile([1.0, -1.0], 20)
    cases = [
        (up, 0.1, "confirmed"), (down, -9.0, "confirmed"), (up, -0.1, "opposite"), (down, 0.1, "opposite"),
        (around, 0.05, "open"), (around, -0.05, "open"), (around, 5.0, "overestimated"),
        (around, -5.0, "overestimated"),
    ]  # fmt: skip
    effects = np.stack([effect for effect, _, _ in cases], axis=1)
    estimates = np.tile(np.array([estimate for _, estimate, _ in cases]), (40, 1))
    table = evidence.judged(estimates, effects, FEW)
    assert list(table["verdict"]) == [verdict for *_, verdict in cases]
    np.testing.assert_allclose(table["estimate"], [estimate for _, estimate, _ in cases])
    np.testing.assert_allclose(table["real_strength"], [2, 2, 2, 2, 1, 1, 1, 1])
    assert set(table["questions"]) == {40}
    assert table["low"][4] < 0 < table["high"][4]


def test_sources_over_other_questions_stay_apart_and_of_an_edge_the_larger_speaks() -> None:
    few, many = ("a", "b"), ("a", "b", "c")
    known = evidence.Removed(
        (
            Source(many, ("e", "f"), np.arange(6.0).reshape(3, 2)),
            Source(few, ("f", "g"), 10 + np.arange(4.0).reshape(2, 2)),
        )
    )
    groups = {ids: (edges, effects.tolist()) for ids, edges, effects in known.grouped(["g", "f", "x"])}
    assert groups == {many: (["f"], [[1.0], [3.0], [5.0]]), few: (["g"], [[11.0], [13.0]])}
    assert known.of("x") is None
    whole = known.whole(["f", "g"])
    assert whole is not None
    assert whole.ids == few
