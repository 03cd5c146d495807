"""The playground: what its engine computes, against loops of one pass for each token, literal formulas and effects that
are measured elsewhere; and its door, with the real process behind it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probing import own_pairs
from probing.ablation import effects, run_with
from probing.attribution import Fixed
from probing.errors import PairError
from probing.method import Method
from probing.models import answer
from probing.pairs import load_registry
from probing.playground import Change, Door, Experiment, Limits, Outcome, PlaygroundError
from probing.playground.door import _Visits
from probing.playground.engine import KEPT_OF_LARGE, Engine, kinds_of, where_they_part
from probing.playground.speaking import OfAnother, Speaker, Way
from tests.waiting import until

QUESTIONS = ("3471+2853=", "555+666=")
CHANGES = (("mean:a0->m0",), ("zero:m3", "mean:a2", "swap:input->m0"))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def speakers(engine: Engine) -> tuple[Speaker, Speaker]:
    base, tuned = engine._speakers(load_registry().pair("grpo"))
    return base, tuned


def _experiment(question: str = QUESTIONS[0], changes: tuple[str, ...] = (), token: int | None = 4) -> Experiment:
    return Experiment("grpo", question, tuple(map(Change.of, changes)), token)


# -- answers -----------------------------------------------------------------------------------------------------------


def _loop(speaker: Speaker, prompt: tuple[int, ...], ways: list[Way]) -> tuple[list[int], list[float]]:
    """The greedy answer, one pass for each token, and the probability of each."""
    said: list[int] = []
    shares: list[float] = []
    while len(said) < speaker.pair.max_new_tokens and said[-1:] != [speaker.tokenizer.eos_token_id]:
        sample = speaker.sample(prompt, said, len(said), 1)
        with run_with(speaker.attributor, [sample], [way.on(sample) for way in ways]) as predictions:
            logits = predictions.logits[0, 0]
        said.append(int(logits.argmax()))
        shares.append(float(logits.softmax(-1)[said[-1]]))
    return said, shares


@pytest.mark.parametrize("changes", CHANGES)
def test_an_answer_under_changes_is_that_of_a_loop_of_one_pass_for_each_token(
    engine: Engine, speakers: tuple[Speaker, Speaker], changes: tuple[str, ...]
) -> None:
    base, tuned = speakers
    for question in QUESTIONS:
        outcome = engine.do(_experiment(question, changes))
        for side, speaker, other in ((outcome.base, base, tuned), (outcome.tuned, tuned, base)):
            kinds = kinds_of(map(Change.of, changes), speaker.graph)
            ways = [
                Way([edge for edge in kinds if kinds[edge] == kind], engine._references(kind, speaker, other))
                for kind in set(kinds.values())
            ]
            prompt = engine._prompt(speaker, question)
            tokens, shares = _loop(speaker, prompt, ways)
            assert side.changed is not None
            assert side.changed.text == speaker.tokenizer.decode(tokens, skip_special_tokens=True)
            np.testing.assert_allclose(side.changed.probabilities, shares, rtol=1e-4, atol=1e-6)
            for draft in ([], tokens[:3] + [4] * 40):
                assert speaker.answer_by(draft, prompt, ways).tokens == tuple(tokens)


def test_an_answer_with_nothing_changed_is_the_models(engine: Engine, speakers: tuple[Speaker, Speaker]) -> None:
    for question in QUESTIONS:
        outcome = engine.do(_experiment(question))
        assert (outcome.base.changed, outcome.base.without, outcome.base.promised) == (None, None, None)
        for side, speaker in zip((outcome.base, outcome.tuned), speakers, strict=True):
            prompt = engine._prompt(speaker, question)
            [(tokens, text)] = answer(
                speaker.attributor.model, speaker.tokenizer, [prompt], speaker.pair.max_new_tokens
            )
            assert side.answer.text == text
            assert "".join(side.answer.tokens) == text + speaker.tokenizer.eos_token
            looped, shares = _loop(speaker, prompt, [])
            assert looped == list(tokens)
            np.testing.assert_allclose(side.answer.probabilities, shares, rtol=1e-4)
            assert side.chosen.likeliest[0] == (side.chosen.token, pytest.approx(side.chosen.probability))
            assert side.chosen.token == side.answer.tokens[4]


def test_right_is_what_the_sum_is_or_what_the_pairs_questions_say(engine: Engine) -> None:
    outcome = engine.do(_experiment("3471+2853="))
    assert (outcome.base.answer.text, outcome.base.answer.is_right) == ("04 12 12 06 6224", False)
    assert (outcome.tuned.answer.text, outcome.tuned.answer.is_right) == ("04 12 13 06 6324", True)
    assert engine.do(_experiment("34+28")).base.answer.is_right is None, "nobody knows what is asked"
    [named] = [line for line in map(json.loads, _addition().read_text().splitlines()) if line["id"] == "add-0003"]
    assert engine.do(_experiment(named["question"])).tuned.answer.is_right is True


def test_a_name_that_stands_for_another_pair_or_other_questions_is_answered_anew(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_OWN_PAIRS", str(tmp_path / "own.toml"))
    file = tmp_path / "asked.jsonl"
    grpo = load_registry().pair("grpo")
    sums = {"title": "Asked", "file": str(file), "grading": "last-number"}
    mine = {
        "title": "Mine",
        "algorithm": "GRPO",
        "kind": "RL",
        "base": grpo.base,
        "max_new_tokens": grpo.max_new_tokens,
    }
    right = []
    for tuned, reference in ((grpo.tuned, "6324"), (grpo.base, "6324"), (grpo.tuned, "6224")):
        file.write_text(json.dumps({"id": "1", "question": "3471+2853=", "answer": reference}))
        own_pairs.add({**mine, "tuned": tuned}, sums)
        right.append(engine.do(Experiment("mine", "3471+2853=")).tuned.answer.is_right)
        own_pairs.remove("mine")
    assert right == [True, False, False]


def test_of_large_models_few_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probing.pairs.SMALL", 0)
    engine = Engine(allow_large=True)
    for number in range(KEPT_OF_LARGE):
        engine.do(_experiment(f"{100 + number}+200="))
    assert len(engine._kept["answers of large models"]._kept) == KEPT_OF_LARGE


def _addition() -> Path:
    path = load_registry().question_set("addition").file
    assert path is not None
    return path


def test_the_place_that_is_looked_at_is_where_the_answers_part_if_none_is_named(engine: Engine) -> None:
    outcome = engine.do(_experiment("3471+2853=", token=None))
    assert outcome.token == 7, "04 12 12 and 04 12 13"
    assert (outcome.base.chosen.token, outcome.tuned.chosen.token) == ("2", "3")
    assert where_they_part([1, 2], [1, 2, 3]) == 0
    last = engine.do(_experiment("3471+2853=", token=31))
    assert last.base.chosen.token == "</s>", "past its end, the last of an answer"


# -- what the changes do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zero", "mean", "swap"])
def test_the_margin_moves_as_the_effect_of_the_edge_says_and_promises_are_estimates(
    engine: Engine, speakers: tuple[Speaker, Speaker], kind: str
) -> None:
    graph = speakers[0].graph
    moves = []
    for name in ("input->m0", "m0->a3<v>", "a2->logits", "m5->logits"):
        outcome = engine.do(_experiment(changes=(f"{kind}:{name}",)))
        for side, (speaker, other) in zip((outcome.base, outcome.tuned), (speakers, speakers[::-1]), strict=True):
            prompt = engine._prompt(speaker, QUESTIONS[0])
            [(tokens, _)] = answer(speaker.attributor.model, speaker.tokenizer, [prompt], 32)
            sample = speaker.sample(prompt, tokens, 4, 1)
            references = engine._references(kind, speaker, other)  # type: ignore[arg-type]
            [[effect]] = effects(speaker.attributor, [sample], [graph.number(name)], "margin", references)
            assert side.without is not None
            assert side.without.margin - side.chosen.margin == pytest.approx(-effect, abs=1e-4)
            moves.append(abs(effect))
            method = Method(path="norm-exact", loss="margin", reference=references.kind)
            [scores] = speaker.attributor.score([sample], method, references).edges
            assert side.promised == pytest.approx(-scores[graph.number(name)], abs=1e-5)
            if kind == "zero":
                np.testing.assert_allclose(side.scores, scores, atol=1e-5)
    assert max(moves) > 0.5


def test_promises_add_up_and_an_edge_that_two_changes_cover_is_changed_as_the_last_says(engine: Engine) -> None:
    edge, node = "zero:a1->m2", "mean:a1"
    alone, whole = (engine.do(_experiment(changes=(one,))).base for one in (edge, node))
    last, first = (engine.do(_experiment(changes=several)).base for several in ((node, edge), (edge, node)))
    assert first.promised == whole.promised
    assert first.without == whole.without
    by_mean = engine.do(_experiment(changes=("mean:a1->m2",))).base
    assert None not in (whole.promised, by_mean.promised, alone.promised)
    assert last.promised == pytest.approx(whole.promised - by_mean.promised + alone.promised, abs=1e-5)  # type: ignore[operator]
    assert last.without != whole.without


def test_with_all_that_the_other_writes_a_model_says_what_its_head_makes_of_the_others_residual(
    engine: Engine, speakers: tuple[Speaker, Speaker]
) -> None:
    for host, donor in (speakers, speakers[::-1]):
        prompt = engine._prompt(host, QUESTIONS[0])
        sample = host.sample(prompt, (), 0, 1)
        found = host.says(sample, [Way(range(host.graph.size), OfAnother(donor.attributor))])
        inside, model = donor.attributor.model.model, host.attributor.model
        seen: list[torch.Tensor] = []
        hook = inside.norm.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))  # type: ignore[misc]
        with hook, torch.no_grad():
            inside(torch.tensor([prompt]))
            expected = model.lm_head(model.model.norm(seen[0]))[0, -1:]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert (found - host.says(sample)).abs().max() > 0.1


def test_means_are_those_of_the_pairs_first_questions_with_the_models_own_answers(
    engine: Engine, speakers: tuple[Speaker, Speaker]
) -> None:
    base, tuned = speakers
    references = engine._references("mean", base, tuned)
    assert isinstance(references, Fixed)
    prompts = [
        engine._prompt(base, json.loads(line)["question"]) for line in _addition().read_text().splitlines()[:100]
    ]
    said = answer(base.attributor.model, base.tokenizer, prompts, 32)
    fed = [token for prompt, (tokens, _) in zip(prompts, said, strict=True) for token in (*prompt, *tokens)[:-1]]
    expected = base.attributor.model.get_input_embeddings()(torch.tensor(fed)).double().mean(0)
    torch.testing.assert_close(references.stand_ins.written[0].double(), expected, rtol=1e-4, atol=1e-6)
    assert engine._references("mean", base, tuned) is references, "measured once"


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "sentence"),
    [
        (_experiment("12+x\t3="), r"cannot read 'x', '\\t'\."),
        (_experiment("1" * 60), "61 tokens, and the answer may have 32: more than the 64"),
        (_experiment(changes=("zero:a9",)), "no “a9”"),
        (_experiment(changes=("swap:m3->a0<q>",)), "no “m3->a0<q>”"),
        (_experiment(changes=("mean:logits",)), "Nothing leaves “logits”"),
        (replace(_experiment(), pair="smollm2-grpo"), "only with the small models"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(engine: Engine, experiment: Experiment, sentence: str) -> None:
    with pytest.raises(PlaygroundError, match=sentence):
        engine.do(experiment)
    with pytest.raises(PairError, match="no pair 'nobody'"):
        engine.do(replace(experiment, pair="nobody"))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"question": " "}, "no question"),
        ({"question": "1" * 201}, "201 characters"),
        ({"changes": (Change("zero", "a0"),) * 25}, "25 changes"),
        ({"token": -1}, "no token -1"),
    ],
)
def test_an_experiment_is_bounded(wrong: dict, sentence: str) -> None:
    with pytest.raises(PlaygroundError, match=sentence):
        Experiment(**{"pair": "grpo", "question": "1+1=", **wrong})


# -- the door ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    made = Door(False, tmp_path_factory.mktemp("door") / "log", Limits(waiting=3))
    yield made
    made.close()


def _pid(door: Door) -> int:
    assert door._process is not None
    return door._process._process.pid


def test_whoever_has_a_door_loads_no_model() -> None:
    code = "import probing.playground, sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_through_the_door_comes_what_the_engine_finds(door: Door, engine: Engine) -> None:
    assert not door.is_warm
    for changes in CHANGES[-1:]:
        asked = _experiment(changes=changes, token=None)
        found, expected = door.ask(asked, "someone"), engine.do(asked)
        assert _plain(found) == _plain(expected)
        assert found.graph == expected.graph
    assert door.is_warm
    with pytest.raises(PlaygroundError, match="cannot read 'é'"):
        door.ask(_experiment("1+é="), "someone")
    pid = _pid(door)
    assert door.ask(asked, "someone").seconds < 0.05, "what was done before is kept"
    assert _pid(door) == pid


def _plain(outcome: Outcome) -> dict:
    plain = outcome.as_json()
    del plain["seconds"]
    return plain


def test_turns_come_in_order_not_too_many_wait_and_nobody_asks_twice_at_once(door: Door) -> None:
    """The process stands still meanwhile, as if it were busy."""
    door.ask(_experiment(), "someone")
    done: list[int] = []

    def ask(number: int) -> None:
        door.ask(_experiment(f"12{number}+345="), f"person {number}")
        done.append(number)

    os.kill(_pid(door), signal.SIGSTOP)
    try:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: len(door._turns._waiting) == number + 1)  # type: ignore[misc]
        with pytest.raises(PlaygroundError, match=r"busy: 3 questions are before yours\. Try again in a few seconds"):
            door.ask(_experiment(), "one more")
        with pytest.raises(PlaygroundError, match="before this one is still being answered"):
            door.ask(_experiment(), "person 2")
    finally:
        os.kill(_pid(door), signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert done == [0, 1, 2, 3]
    assert door.ask(_experiment(), "one more").token == 4, "who was turned away may come again"


def test_nobody_asks_more_than_so_often_in_a_minute_and_others_may_still(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_visits", _Visits(3))
    for _ in range(3):
        door.ask(_experiment(), "eager")
    with pytest.raises(PlaygroundError, match=r"asked 3 questions within a minute.* Go on in [56]\d seconds"):
        door.ask(_experiment(), "eager")
    door.ask(_experiment(), "another")
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 61)
    door.ask(_experiment(), "eager")
    assert set(door._visits._lately) == {"eager"}, "who has not asked for a minute is forgotten"


def test_what_is_no_experiment_costs_the_process_nothing(door: Door) -> None:
    door.ask(_experiment(), "someone")
    for stray in ("nonsense", "[]", "{}", '{"pair": "grpo", "question": 3, "changes": []}'):
        process = door._process
        assert process is not None and process._process.stdin is not None
        process._process.stdin.write(stray.encode() + b"\n")
        process._process.stdin.flush()
        assert process._line(10)["error"][0].startswith("A fault in the program")
    assert door.ask(_experiment(), "someone").token == 4


def test_a_process_that_dies_over_an_answer_costs_one_and_it_ends_with_whoever_started_it(door: Door) -> None:
    door.ask(_experiment(), "someone")
    first = _pid(door)
    os.kill(first, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (first, signal.SIGKILL)).start()
    with pytest.raises(PlaygroundError, match=r"process has ended, so there is no answer\. Ask again"):
        door.ask(_experiment(), "someone")
    assert not door.is_warm
    assert door.ask(_experiment(), "someone").base.answer.text == "04 12 12 06 6224"
    assert _pid(door) != first
    process = door._process
    assert process is not None and process._process.stdin is not None
    process._process.stdin.close()
    assert process._process.wait(60) == 0


def _talking(script: str, **limits: float) -> Door:
    """A door with another process behind it."""
    door = Door(False, limits=Limits(**limits))  # type: ignore[arg-type]
    door._command = ["sh", "-c", script]
    return door


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 1", "has ended"),
        ("exec sleep 60", "nothing for 1 s,"),
        ("echo {}; read x; exec sleep 60", "nothing for 2 s,"),
        ("echo {}; read x; echo garbage; exec sleep 60", "something that is no answer"),
        ('echo {}; read x; echo \'{"outcome": {"base": 1}}\'; exec sleep 60', "something that is no answer"),
        ("echo {}; read x; echo 3; exec sleep 60", "something that is no answer"),
        ("echo {}; read x; head -c 100000 /dev/zero; exit", "has ended"),
    ],
)
def test_whatever_else_is_behind_the_door_there_is_a_sentence(script: str, sentence: str) -> None:
    door = _talking(script, start=1.0, answer=2.0)
    with pytest.raises(PlaygroundError, match=sentence):
        door.ask(_experiment(), "someone")
    assert door._process is None


def test_a_door_that_closes_tells_who_waits() -> None:
    door = _talking("echo {}; read x; exec sleep 60")
    told: list[str] = []

    def ask(who: str) -> None:
        try:
            door.ask(_experiment(), who)
        except PlaygroundError as error:
            told.append(str(error))

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: door.is_warm and len(door._turns._waiting) == 5)
    door.close()
    for thread in threads:
        thread.join()
    assert sorted("has ended" in one for one in told) == [False] * 4 + [True]
    assert sum("closed" in one for one in told) == 4


def test_a_process_that_nobody_asks_is_ended_and_none_is_started_behind_a_closed_door() -> None:
    door = _talking('echo {}; while read x; do echo \'{"error": ["Heard.", ""]}\'; done', idle=0.4)
    for _ in range(2):
        with pytest.raises(PlaygroundError, match="Heard"):
            door.ask(_experiment(), "someone")
        assert door.is_warm
        until(lambda: door._process is None)
    with pytest.raises(PlaygroundError, match="Heard"):
        door.ask(_experiment(), "someone")
    pid = _pid(door)
    door.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(PlaygroundError, match="closed"):
        door.ask(_experiment(), "someone")
