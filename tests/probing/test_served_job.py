"""Comparisons of answers that a server gave, which knows token ids as vLLM does and has one of the models that ship."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.serving import small_registry
from probing.checkpoints import find
from probing.errors import PairError, RolloutError, ServerError
from probing.jobs.forecast import forecast
from probing.jobs.plan import SIDES, Spec, spec_of
from probing.jobs.stages import fetching
from probing.models import answer, load_model, load_tokenizer
from probing.pairs import Servers, load_registry, read_registry
from probing.serving import ANSWERED_BY
from probing.serving.served import find_served
from probing.serving.wire import Endpoint
from probing.store import Store, open_store
from probing.store.records import ComparisonRow
from tests.serving import IdServer
from tests.small import SPEC, do, plan


@pytest.fixture(scope="module")
def models(zoo: Path) -> dict[str, Callable[[list[int]], tuple[list[int], str]]]:
    """What each model says to a prompt."""

    def speaker(name: str) -> Callable[[list[int]], tuple[list[int], str]]:
        checkpoint = find(str(zoo / name))
        model, tokenizer = load_model(checkpoint, torch.device("cpu"), torch.float32), load_tokenizer(checkpoint)

        def say(prompt: list[int]) -> tuple[list[int], str]:
            [(tokens, text)] = answer(model, tokenizer, [prompt], 32)
            return list(tokens), text

        return say

    return {name: speaker(name) for name in ("base", "grpo")}


@pytest.fixture
def servers(models: dict[str, Callable]) -> Iterator[dict[str, IdServer]]:
    with IdServer(["base"], models["base"]) as base, IdServer(["tuned"], models["grpo"]) as tuned:
        yield {"base": base, "tuned": tuned}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("PROBING_PAIRS", str(small_registry(tmp_path, 24)))
    monkeypatch.setattr(fetching, "AT_ONCE", 8)
    monkeypatch.setattr(fetching, "find_served", partial(find_served, connect=partial(Endpoint, waits=(0.0,))))
    opened = open_store(tmp_path / "store.duckdb")
    yield opened
    opened.close()


def _spec(servers: dict[str, IdServer]) -> Spec:
    return replace(SPEC, served=(servers["base"].url, servers["tuned"].url))


def test_served_answers_are_those_of_the_models_and_say_that_they_were_served(
    store: Store, servers: dict[str, IdServer]
) -> None:
    spec = _spec(servers)
    do(store, SPEC)
    do(store, spec)
    for side in SIDES:
        own, by_server = plan().rollout_key(side), plan(spec).rollout_key(side)
        assert own != by_server
        assert store.rollouts.answers(own) == store.rollouts.answers(by_server)
        assert store.rollouts.provenance(by_server)[ANSWERED_BY].startswith(f"vLLM at {servers[side].url}")
        assert store.rollouts.provenance(by_server)["tokens checked"] > 100
        assert store.rollouts.provenance(by_server)["tokens the model would say otherwise"] == 0
        assert ANSWERED_BY not in store.rollouts.provenance(own)
    rows = [ComparisonRow.of(row) for row in store.comparisons.table().to_dict("records")]
    assert {spec_of(row).served for row in rows} == {("no", "no"), ("yes", "yes")}
    asked = len(servers["base"].asked)
    do(store, replace(spec, served=("yes", "yes")))  # the same job, wherever the server was
    assert len(servers["base"].asked) == asked


def test_a_server_that_dies_loses_nothing_that_was_answered(store: Store, servers: dict[str, IdServer]) -> None:
    spec, base = _spec(servers), servers["base"]

    def die() -> None:
        if len(base.asked) > 9:  # the first question, and a batch
            base.faults = [lambda handler: handler.connection.close()] * 99

    base.before = die
    with pytest.raises(ServerError, match="does not answer"):
        do(store, spec)
    kept = store.rollouts.answered(plan(spec).rollout_key("base"))
    assert len(kept) in (8, 16)
    base.faults, base.before = [], lambda: None
    before = len(base.asked)
    do(store, spec)
    prompts = {one.question_id: one.prompt_tokens for one in store.rollouts.answers(plan(spec).rollout_key("base"))}
    asked = {tuple(body["prompt"]) for body in base.asked[before:]}
    assert asked == set(prompts.values()) - {prompts[name] for name in kept}


def test_another_model_behind_the_url_is_refused_before_anything_is_kept(
    store: Store, servers: dict[str, IdServer]
) -> None:
    spec = replace(SPEC, served=(servers["tuned"].url, servers["base"].url))
    with pytest.raises(ServerError, match="are not base's"):
        do(store, spec)
    assert not store.rollouts.answered(plan(spec).rollout_key("base"))


def test_what_cannot_be_made_into_tokens_the_model_answers_itself(
    store: Store, servers: dict[str, IdServer], models: dict[str, Callable]
) -> None:
    spec, base = replace(SPEC, served=(servers["base"].url, "no")), servers["base"]
    do(store, SPEC)
    tokens = plan(SPEC)
    strange = store.rollouts.answers(tokens.rollout_key("base"))[3].prompt_tokens
    base._say = lambda prompt: ([1], "else") if tuple(prompt) == strange else models["base"](prompt)
    do(store, spec)
    key = plan(spec).rollout_key("base")
    assert store.rollouts.answers(key) == store.rollouts.answers(tokens.rollout_key("base"))
    assert store.rollouts.provenance(key)["answered by the model itself"] == 1
    assert plan(spec).rollout_key("tuned") == tokens.rollout_key("tuned")


def test_answers_that_a_server_gave_and_are_not_there_are_asked_for_in_vain(store: Store) -> None:
    with pytest.raises(RolloutError, match="not all in the store"):
        do(store, replace(SPEC, served=("yes", "yes")))


def test_a_pair_names_one_server_for_both_or_one_for_each(tmp_path: Path) -> None:
    path = small_registry(tmp_path)
    text = path.read_text()

    def answers(said: str) -> Servers | None:
        path.write_text(f"{text}answers = {said}\n")
        return read_registry(path).pair("small").answers

    assert answers('"http://here/v1"') == Servers(base="http://here/v1", tuned="http://here/v1")
    assert answers('{ tuned = "http://here/v1" }') == Servers(tuned="http://here/v1")
    with pytest.raises(PairError, match="answers"):
        answers("3")


def test_a_forecast_says_that_a_server_answers(store: Store, servers: dict[str, IdServer]) -> None:
    lines = list(forecast(_spec(servers), load_registry(), store).lines())
    assert any(f"base: to be made by the server at {servers['base'].url}" in line for line in lines)
    assert not servers["base"].asked
