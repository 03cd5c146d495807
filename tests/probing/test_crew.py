"""Several workers on one store, in this process: they share a job's batches, and none is done twice."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probing import fitting
from probing.errors import PersonError
from probing.jobs import tasks
from probing.jobs.bench import Bench
from probing.jobs.crew import Alone, Share, Team
from probing.jobs.job import Job
from probing.jobs.places import place_of, places
from probing.jobs.plan import SIDES
from probing.jobs.stages import Emit, Say, Stage
from probing.rollouts import Criteria
from probing.store import Store, open_store
from probing.store.spool import MeasurementBatch
from tests import small

SPEC = replace(small.SPEC, selection=Criteria(n=12), also=tasks.parse("ablation:strongest=150,random=150,side=tuned"))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store in which one worker did the job, in batches of four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "LARGEST_BATCH", 4)
        with small.store_of(tmp_path_factory.mktemp("one"), SPEC) as store:
            yield store


@dataclass
class _Watched(Alone):
    """A worker that says what it has done."""

    done: list[tuple[str, str]] = field(default_factory=list)

    def work(self, stage: Stage[Any], share: Share) -> None:
        def noted(portion: Sequence[str]) -> None:
            self.done.extend((stage.key, item) for item in portion)
            share.done(tuple(portion))

        super().work(stage, replace(share, done=noted))


def test_two_workers_share_a_job_and_make_of_it_what_one_does_bit_for_bit(
    one: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LARGEST_BATCH", 4)
    store, crews = open_store(tmp_path / "store.duckdb"), [_Watched(), _Watched()]
    for crew in crews:  # one after the other: while transformers loads, all of the process has another dtype
        for side in SIDES:
            crew.bench.load(small.plan(SPEC).wanted(side))
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            Job(store, crews[number], small.plan(SPEC), lambda *_: None, f"{number}-worker").do()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert all(len(crew.done) > 20 for crew in crews), "one of them did it alone"
    twice = [item for item, times in Counter(crews[0].done + crews[1].done).items() if times > 1]
    assert twice == [], "nothing is done twice"
    plan, selection = small.plan(SPEC), SPEC.selections()[0]
    for side in SIDES:
        assert store.rollouts.answers(plan.rollout_key(side)) == one.rollouts.answers(plan.rollout_key(side))
        run = one.comparisons.runs(plan.comparison_key(selection))[side]
        np.testing.assert_array_equal(store.runs.scores(run).edges, one.runs.scores(run).edges)
    (key,) = one.evaluations.table()["evaluation_key"]
    ours, theirs = store.evaluations.values(key), one.evaluations.values(key)
    assert ours.units == theirs.units
    for measure, values in theirs.values.items():
        np.testing.assert_array_equal(ours.values[measure], values)
    for table in (store.runs.table(), store.evaluations.table()):
        assert all('"device"' in text for text in table["provenance"]), "whoever did something says with what"
    store.close()


@dataclass(frozen=True)
class _Counting(Stage[None]):
    key: str

    def lay_out(self, bench: Bench) -> None:
        """Nothing."""

    def do(self, items: Sequence[str], bench: Bench, say: Say, emit: Emit) -> None:
        emit(MeasurementBatch(self.key, tuple(items), {"x": np.zeros((len(items), 1), np.float32)}))


def test_what_another_finishes_between_a_look_and_a_lease_is_not_done_again(tmp_path: Path) -> None:
    store, crew = open_store(tmp_path / "store.duckdb"), _Watched()
    looks: list[set[str]] = [set(), set(), {"a", "b"}]

    def there() -> set[str]:
        return looks.pop(0) if len(looks) > 1 else looks[0]

    made = Team(store, crew, lambda *_: None, "1-a").spread(_Counting("k"), "words", [("a", "b")], there)
    assert (crew.done, made) == ([], {}), "when it had the lease, it was there"
    assert store.leases.take("2-b", ["k a"]) == ["k a"], "and the lease was given back"
    store.close()


def test_a_worker_that_waits_for_another_goes_on_when_that_leaves_its_batch(tmp_path: Path) -> None:
    store, crew = open_store(tmp_path / "store.duckdb"), _Watched()
    assert store.leases.take("7-dead", ["k a"]) == ["k a"]
    timer = threading.Timer(0.3, lambda: store.leases.give_back("7-dead"))
    timer.start()
    Team(store, crew, lambda *_: None, "1-a").spread(
        _Counting("k"), "words", [("a",)], lambda: {item for _, item in crew.done}
    )
    assert crew.done == [("k", "a")]
    store.close()


def test_a_worker_that_did_not_hear_what_it_was_lent_is_lent_it_again(tmp_path: Path) -> None:
    """The store's owner died in between, and another came in its place."""
    store, crew, done = open_store(tmp_path / "store.duckdb"), _Watched(), list[int]()
    assert store.leases.take("1-a", ["k a", "summary"], 2) == ["k a", "summary"]
    waited: list[str] = []

    def report(words: str, *_: int) -> None:
        waited.append(words)
        assert len(waited) < 5, "it waits for itself"

    team = Team(store, crew, report, "1-a")
    team.spread(_Counting("k"), "words", [("a",), ("b",)], lambda: {item for _, item in crew.done})
    team.once("summary", "words", lambda: bool(done), lambda: done.append(1))
    assert (crew.done, done) == ([("k", "a"), ("k", "b")], [1])
    assert store.leases.take("2-b", ["k a", "k b", "summary"], 3) == ["k a", "k b", "summary"], "all were given back"
    store.close()


def test_what_cannot_be_divided_is_done_by_one(tmp_path: Path) -> None:
    store, done = open_store(tmp_path / "store.duckdb"), list[int]()

    def once(number: int) -> None:
        team = Team(store, Alone(), lambda *_: None, f"{number}-w")
        team.once("summary", "words", lambda: bool(done), lambda: done.append(number))

    threads = [threading.Thread(target=once, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    store.close()


def test_a_store_has_as_many_places_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path / "store.duckdb")
    monkeypatch.setenv("PROBING_WORKERS", "2")
    taken = [place_of(store) for _ in range(3)]
    assert [place is not None for place in taken] == [True, True, False]
    for place in taken[:2]:
        assert place is not None
        place.close()
    monkeypatch.delenv("PROBING_WORKERS")
    assert places() >= 1
    for text in ("0", "-1", "many", ""):
        monkeypatch.setenv("PROBING_WORKERS", text)
        with pytest.raises(PersonError, match="PROBING_WORKERS"):
            places()
    store.close()
