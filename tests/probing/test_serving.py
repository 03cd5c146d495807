import pickle
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from probing.checkpoints import find
from probing.errors import ServerError
from probing.models import answer, end_tokens, ended, load_model, load_tokenizer
from probing.pairs import load_registry
from probing.questions import Prompt, load_questions, prompt_for
from probing.serving.agreement import agreement
from probing.serving.served import Served, find_served
from probing.serving.tokens import WAYS, Reader, read
from probing.serving.wire import KEY, WAITS, Endpoint, ReplyError
from tests.serving import IdServer, free_port, reply, transformers_serve

LENGTH = 24
IDS, LOGPROBS, TEXT = WAYS

quick = partial(Endpoint, waits=(0.0, 0.0, 0.0))
"""Tries a request once more than three faults, which may all meet the same."""


@pytest.fixture(scope="module")
def base(zoo: Path) -> Any:
    """The base model and its tokenizer."""
    checkpoint = find(str(zoo / "base"))
    return load_model(checkpoint, torch.device("cpu"), torch.float32), load_tokenizer(checkpoint)


@pytest.fixture(scope="module")
def reader(base: Any) -> Reader:
    return _reader(*base)


def _reader(model: Any, tokenizer: Any, stop: str | None = None) -> Reader:
    end = partial(ended, model=model, tokenizer=tokenizer, max_new_tokens=LENGTH, stop=stop)
    return Reader(tokenizer, end_tokens(model, tokenizer), end, LENGTH, stop)


@pytest.fixture(scope="module")
def prompts(base: Any) -> list[Prompt]:
    registry = load_registry()
    questions = load_questions(registry.question_set(registry.pair("grpo").questions[0]))[:8]
    return [prompt_for(question, "plain", base[1]) for question in questions]


@pytest.fixture(scope="module")
def expected(base: Any, prompts: list[Prompt]) -> list[Any]:
    """What the model answers here."""
    return answer(*base, [prompt.tokens for prompt in prompts], LENGTH)


@pytest.fixture
def server(prompts: list[Prompt], expected: list[Any]) -> Any:
    known = {prompt.tokens: said for prompt, said in zip(prompts, expected, strict=True)}
    with IdServer(["base"], lambda asked: known[tuple(asked)]) as found:
        yield found


def _served(server: IdServer, reader: Reader, prompts: list[Prompt]) -> Served:
    return find_served(server.url, ["base"], True, reader, prompts[0], quick)


# -- real servers -----------------------------------------------------------------------------------------------------


def test_transformers_serve_gives_the_answers_that_the_model_gives_here(
    zoo: Path, tmp_path: Path, reader: Reader, prompts: list[Prompt], expected: list[Any]
) -> None:
    with transformers_serve(zoo / "base", tmp_path / "log") as url:
        served = find_served(url, [str(zoo / "base")], True, reader, prompts[0])
        assert served.way is TEXT
        assert served.answer(prompts) == expected
        with pytest.raises(ServerError, match="pinned"):
            find_served(url, ["another"], True, reader, prompts[0])


# -- a server that gives token ids, and its faults -------------------------------------------------------------------


def test_token_ids_go_and_come_back_with_many_questions_in_flight(
    server: IdServer, reader: Reader, prompts: list[Prompt], expected: list[Any]
) -> None:
    served = _served(server, reader, prompts)
    assert (served.way, served.engine) == (IDS, "vLLM")
    server.before = threading.Barrier(4, timeout=60).wait  # so nothing is answered until four are there
    assert served.answer(prompts) == expected
    assert server.asked[-1]["temperature"] == 0


def test_the_key_is_sent_from_the_environment(
    server: IdServer, reader: Reader, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "for-tests")  # pragma: allowlist secret
    _served(server, reader, prompts)
    assert server.keys == {"Bearer for-tests"}


def test_what_passes_is_asked_again(
    server: IdServer, reader: Reader, prompts: list[Prompt], expected: list[Any]
) -> None:
    served = _served(server, reader, prompts)
    server.faults = [
        lambda handler: reply(handler, "busy", 429, Retry_After="0"),
        lambda handler: reply(handler, "loading", 503),
        lambda handler: handler.connection.close(),
    ]
    assert served.answer(prompts) == expected
    assert len(server.asked) == 1 + len(prompts) + 3


def test_a_server_that_stays_away_is_named(server: IdServer, reader: Reader, prompts: list[Prompt]) -> None:
    served = _served(server, reader, prompts)
    server.faults = [lambda handler: handler.connection.close()] * 99
    with pytest.raises(ServerError, match=r"does not answer.*is kept"):
        served.answer(prompts)


def test_no_server_is_said_at_once(reader: Reader, prompts: list[Prompt]) -> None:
    with pytest.raises(ServerError, match="does not answer"):
        find_served(f"http://127.0.0.1:{free_port()}/v1", ["base"], True, reader, prompts[0])


def test_a_server_that_is_tried_again_is_left_alone_when_nobody_waits_for_it(
    server: IdServer, reader: Reader, prompts: list[Prompt]
) -> None:
    server.faults = [lambda handler: handler.connection.close()] * 99

    def say() -> None:
        if len(server.faults) < 99:
            raise InterruptedError

    started = time.monotonic()
    with pytest.raises(InterruptedError):
        find_served(server.url, ["base"], True, reader, prompts[0], say=say)
    assert time.monotonic() - started < sum(WAITS) / 2


@pytest.mark.parametrize("url", ["base", "ftp://host/v1", "http://", "http://host:port/v1", "http://u:p@host/v1"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(ServerError, match="not the address"):
        Endpoint(url, 1.0)


@pytest.mark.parametrize("nonsense", ["<html>", "[]", {}, {"choices": [{"text": None}]}, {"choices": "?"}])
def test_nonsense_is_no_answer(server: IdServer, reader: Reader, prompts: list[Prompt], nonsense: Any) -> None:
    served = _served(server, reader, prompts)
    server.faults = [lambda handler: reply(handler, nonsense)] * 9
    with pytest.raises(ServerError, match=r"something else|holds no answer"):
        served.answer(prompts)


def test_a_cancelled_job_breaks_off_what_was_asked(server: IdServer, reader: Reader, prompts: list[Prompt]) -> None:
    served = _served(server, reader, prompts)
    server.faults = [lambda handler: handler.rfile.read(1)] * 99  # hangs until the other side hangs up

    def cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        served.answer(prompts, cancelled)


# -- which model ------------------------------------------------------------------------------------------------------


def test_a_model_is_found_by_its_name_or_as_the_only_one(
    server: IdServer, reader: Reader, prompts: list[Prompt]
) -> None:
    def named(alone: bool, *names: str, fragment: str = "") -> str:
        return find_served(server.url + fragment, names, alone, reader, prompts[0], quick).name

    assert named(True, "mine") == "base"
    with pytest.raises(ServerError, match="no model 'mine', but base"):
        named(False, "mine")
    server.models = ["org/other", "/models/mine"]
    assert named(False, "mine") == "/models/mine"
    assert named(False, "mine", fragment="#other") == "other"


def test_another_model_is_told_by_its_answers(base: Any, zoo: Path, prompts: list[Prompt], expected: list[Any]) -> None:
    answers = [(prompt.tokens, said[0]) for prompt, said in zip(prompts, expected, strict=True)]
    own = agreement(base[0], answers)
    assert (own.tokens, own.other, own.far) == (sum(len(said) for _, said in answers), 0, 0)
    own.check("base", "http://here")
    stranger = load_model(find(str(zoo / "grpo")), torch.device("cpu"), torch.float32)
    with pytest.raises(ServerError, match="are not base's"):
        agreement(stranger, answers).check("base", "http://here")


def test_each_token_that_differs_is_counted(base: Any, prompts: list[Prompt], expected: list[Any]) -> None:
    tokens = list(expected[0][0])
    tokens[-1] = tokens[0]  # nothing follows it, so no other token changes its mind
    found = agreement(base[0], [(prompts[0].tokens, tokens)])
    assert (found.tokens, found.other, found.far) == (len(tokens), 1, 1)


# -- tokens -----------------------------------------------------------------------------------------------------------


def _reply(text: str, count: int | None, why: str = "stop", **choice: Any) -> dict[str, Any]:
    usage = {} if count is None else {"usage": {"completion_tokens": count}}
    return {"choices": [{"text": text, "finish_reason": why, **choice}], **usage}


def test_each_way_reads_the_same_answer(reader: Reader, prompts: list[Prompt], expected: list[Any]) -> None:
    tokens, text = expected[0]
    n = len(tokens)
    content = {"content": [{"id": token} for token in tokens]}
    assert read(IDS, _reply(text, n, token_ids=list(tokens)), prompts[0], reader) == expected[0]
    assert read(IDS, _reply(text, n, token_ids=list(tokens[:-1])), prompts[0], reader) == expected[0]
    assert read(LOGPROBS, _reply(text, None, logprobs=content), prompts[0], reader) == expected[0]
    assert read(TEXT, _reply(text, n), prompts[0], reader) == expected[0]


def test_tokens_that_do_not_fit_the_text_or_the_count_are_not_taken(
    reader: Reader, prompts: list[Prompt], expected: list[Any]
) -> None:
    tokens, text = expected[0]
    n = len(tokens)
    assert read(TEXT, _reply(text, n + 1), prompts[0], reader) is None
    assert read(TEXT, _reply(text, n - 1), prompts[0], reader) is None  # it would go on
    assert read(IDS, _reply("else", n, token_ids=list(tokens)), prompts[0], reader) is None
    assert read(IDS, _reply(text, n, token_ids=[10**9]), prompts[0], reader) is None
    with pytest.raises(ServerError, match="how many tokens"):
        read(TEXT, _reply(text, None), prompts[0], reader)
    with pytest.raises(ServerError, match="read 3 tokens"):
        read(TEXT, _reply(text, n) | {"usage": {"prompt_tokens": 3}}, prompts[0], reader)


def test_an_answer_is_cut_where_the_pair_stops_it(base: Any, prompts: list[Prompt], expected: list[Any]) -> None:
    stopping = _reader(*base, stop=" ")
    [own] = answer(*base, [prompts[0].tokens], LENGTH, " ")
    assert len(own[0]) < len(expected[0][0])
    assert read(TEXT, _reply(expected[0][1], len(expected[0][0])), prompts[0], stopping) == own
    short = _reply(own[1].removesuffix(" "), len(own[0]), token_ids=list(own[0]))
    assert read(IDS, short, prompts[0], stopping) == own


def test_what_a_server_said_comes_back_from_another_process_as_it_was() -> None:
    said = pickle.loads(pickle.dumps(ReplyError("It says no.", "Ask another.", 503, 2.0)))
    assert (said.what, said.remedy, said.passing, said.after) == ("It says no.", "Ask another.", True, 2.0)
