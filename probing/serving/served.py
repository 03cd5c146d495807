"""One model's answers by a server: found there by its name, asked many questions at a time, read in one way."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any, TypeVar
from urllib.parse import urldefrag

from probing.errors import ServerError
from probing.questions import Prompt
from probing.serving.tokens import WAYS, Reader, Said, Way, read
from probing.serving.wire import Endpoint, ReplyError

IN_FLIGHT = 64
"""Questions that a server has at once: it batches them itself, as many together as it has room for."""

AT_ONCE = 4 * IN_FLIGHT
"""Questions between two writings to the store."""

PATIENCE = 600.0
"""Seconds in which any answer comes, of which each new token may take one more: the last of those in flight waits for
all before it where a server does one after another."""

ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}
"""Servers by what they call the owner of their models."""

Told = TypeVar("Told")

_ALIVE = 0.5
"""Seconds between two signs of life while nothing comes."""


@dataclass(frozen=True)
class Served:
    """A model behind a server."""

    endpoint: Endpoint
    name: str
    """What the server calls it."""
    engine: str | None
    """Which server it is, where it says so."""
    reader: Reader
    way: Way

    def answer(self, prompts: Sequence[Prompt], say: Callable[[], None] = lambda: None) -> list[Said | None]:
        """Greedy answers to prompts, in their order; None where the tokens of one cannot be known for certain.

        Meanwhile it calls `say`; what that raises ends it, and breaks off what was asked.

        Raises:
            ServerError: the server stays away, will not do it, or replies with something else than answers.
        """
        return _together(self.endpoint, [partial(self._ask, prompt) for prompt in prompts], say)

    def _ask(self, prompt: Prompt) -> Said | None:
        body = _body(self.name, self.way, prompt, self.reader)
        said = read(self.way, self.endpoint.post("/completions", body), prompt, self.reader)
        if said is None and body.pop("stop", None):  # some servers leave out the tokens of what they stop at
            said = read(self.way, self.endpoint.post("/completions", body), prompt, self.reader)
        return said


def find_served(
    url: str,
    names: Sequence[str],
    alone: bool,
    reader: Reader,
    first: Prompt,
    connect: Callable[..., Endpoint] = Endpoint,
    say: Callable[[], None] = lambda: None,
) -> Served:
    """The model behind a server's URL: by the URL's fragment (`…/v1#name`), by one of the `names` that the pair has for
    it, or, where the URL is for it `alone`, as the only one that there is.

    The first question is asked to learn in which way the server understands it. Meanwhile it calls `say`; what that
    raises ends it.

    Raises:
        ServerError: no server is there, none of its models is this one, or it does not complete prompts.
    """
    address, fragment = urldefrag(url)
    endpoint = connect(address, PATIENCE + reader.max_new_tokens)

    def find() -> Served:
        listed = _listed(endpoint)
        name = fragment or _pick(address, listed, names, alone)
        return _understood(endpoint, listed, name, reader, first)

    (found,) = _together(endpoint, [find], say)
    return found


def _understood(
    endpoint: Endpoint, listed: Sequence[dict[str, Any]], name: str, reader: Reader, first: Prompt
) -> Served:
    """A server's model, asked in the first of the ways that it understands."""
    owner = next((one.get("owned_by") for one in listed if one["id"] == name), None)
    find = partial(Served, endpoint, name, ENGINES.get(str(owner)), reader)
    for way in WAYS[:-1]:
        try:
            reply = endpoint.post("/completions", _body(name, way, first, reader))
        except ReplyError as error:
            if error.passing:
                raise
            continue
        if read(way, reply, first, reader) is not None:
            return find(way)
    way = WAYS[-1]
    read(way, endpoint.post("/completions", _body(name, way, first, reader)), first, reader)
    return find(way)


def _together(endpoint: Endpoint, calls: Sequence[Callable[[], Told]], say: Callable[[], None]) -> list[Told]:
    """What calls of an endpoint return, in their order, of which many are under way at once. Meanwhile `say` is called;
    what that raises, or any of them, breaks all off."""
    pool = ThreadPoolExecutor(IN_FLIGHT, "served")
    try:
        under_way = [pool.submit(call) for call in calls]
        left = set(under_way)
        while left:
            done, left = wait(left, _ALIVE, FIRST_EXCEPTION)
            for one in done:
                one.result()
            say()
        return [one.result() for one in under_way]
    except BaseException:
        endpoint.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _body(name: str, way: Way, prompt: Prompt, reader: Reader) -> dict[str, Any]:
    return {"model": name, "max_tokens": reader.max_new_tokens, "temperature": 0, **way.body(prompt, reader)}


def _listed(endpoint: Endpoint) -> list[dict[str, Any]]:
    """The models that a server names; none where it does not say."""
    try:
        data = endpoint.get("/models").get("data")
    except ReplyError:
        return []
    return [one for one in data if isinstance(one, dict) and isinstance(one.get("id"), str)] if data else []


def _pick(address: str, listed: Sequence[dict[str, Any]], names: Sequence[str], alone: bool) -> str:
    """Which of a server's models a pair's model is."""
    ids = [one["id"] for one in listed]
    for name in names:
        for found in ids:
            if name in (found, PurePath(found).name):
                return found
    if not ids:  # it may still know the model: `transformers serve` lists what was downloaded, and not what it serves
        return names[0]
    if alone and len(ids) == 1:
        return ids[0]
    raise ServerError(
        f"The server at {address} has no model '{names[0]}', but {', '.join(ids[:5])}{', …' if len(ids) > 5 else ''}.",
        f"Say which is meant: {address}#NAME.",
    )
