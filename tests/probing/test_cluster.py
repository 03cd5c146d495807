"""A real Ray cluster on this machine: two actors, and what becomes of a job when one dies."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probing import checkpoints
from probing.cli import main
from probing.errors import ModelError, PersonError
from probing.jobs import tasks
from probing.jobs.plan import SIDES
from probing.jobs.worker import do_all
from probing.rollouts import Criteria
from probing.store import Store, open_store
from tests import small

ray = pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")

from probing.jobs.cluster import Cluster, ClusterError  # noqa: E402 - it is there

SPEC = replace(
    small.SPEC,
    selection=Criteria(n=12),
    also=(*tasks.parse("ablation:strongest=40,random=30,side=tuned"), *tasks.parse("circuit:side=base")),
)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store in which one worker did the job."""
    with small.store_of(tmp_path_factory.mktemp("one"), SPEC) as store:
        yield store


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster("local", 2)
    yield found
    found.close()


def _require_equal(store: Store, other: Store) -> None:
    plan, selection = small.plan(SPEC), SPEC.selections()[0]
    for side in SIDES:
        assert store.rollouts.answers(plan.rollout_key(side)) == other.rollouts.answers(plan.rollout_key(side))
        run = other.comparisons.runs(plan.comparison_key(selection))[side]
        np.testing.assert_array_equal(store.runs.scores(run).edges, other.runs.scores(run).edges)
    keys = list(other.evaluations.table()["evaluation_key"])
    assert len(keys) == 2
    for key in keys:
        ours, theirs = store.evaluations.values(key), other.evaluations.values(key)
        assert ours.units == theirs.units
        for measure, values in theirs.values.items():
            np.testing.assert_array_equal(ours.values[measure], values)


def test_actors_make_what_one_worker_makes_bit_for_bit_also_when_one_is_killed(
    one: Store, cluster: Cluster, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store.duckdb")
    before = cluster.processes()
    killed: list[int] = []

    def kill(stage: str, done: int, total: int) -> None:
        if not killed and "ablation" in stage and done:
            killed.append(before[0])
            os.kill(before[0], signal.SIGKILL)

    do_all(store, [SPEC], kill, cluster)
    assert killed, "nothing was tested"
    _require_equal(store, one)
    job = store.queue.job(1)
    assert (job.status, job.attempts) == ("done", 0), "it cost a batch, not a worker"
    assert all("2 by Ray" in text for text in store.runs.table()["provenance"])
    after = cluster.processes()
    assert killed[0] not in after
    store.close()


def test_what_a_person_can_cause_is_said_as_without_a_cluster(cluster: Cluster, tmp_path: Path, one: Store) -> None:
    store = open_store(tmp_path / "store.duckdb")
    with pytest.raises(PersonError, match="There is no pair 'nope'"):
        do_all(store, [replace(SPEC, pair="nope")], lambda *_: None, cluster)
    few = replace(SPEC, also=tasks.parse("edge:edge=a0->m7,side=tuned"))
    with pytest.raises(PersonError, match="has no edge 'a0->m7'"):
        do_all(store, [few], lambda *_: None, cluster)
    assert store.leases.take("9-other", ["anything"]) == ["anything"]
    store.close()


def test_a_job_that_is_left_to_a_worker_is_not_given_to_ray(one: Store, capsys: pytest.CaptureFixture) -> None:
    assert main(["probe", "small", "--ray", "local", "--detach"]) == 2
    assert "Leave out --detach or --ray." in capsys.readouterr().err


def test_a_model_that_is_another_on_the_actors_machine_is_refused(zoo: Path, tmp_path: Path) -> None:
    here = checkpoints.find(str(zoo / "base"))
    assert checkpoints.find_again(here) == here
    with pytest.raises(ModelError, match="is another model on"):
        checkpoints.find_again(replace(here, identity="sha256:0123"))
    assert issubclass(ClusterError, PersonError)
