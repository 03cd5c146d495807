"""What a server's reply says that the model said, as tokens.

A server is asked in the first of these ways that it understands:

1. token ids go, token ids come back (vLLM, SGLang: `return_token_ids`);
2. token ids go, and come back within log-probabilities (llama.cpp);
3. text goes, text comes back (`transformers serve` and the rest). The text is made into tokens again. A text can be
   written in other tokens than those that a model said: these must be as many as the server says it read and wrote, and
   the only ones that tokenising the text alone, behind a space or behind its prompt gives.

Texts leave special tokens out, and some servers leave out the end token. It is put back where the server says that the
model stopped and the number of tokens is right then; a model with several is not guessed about. The text to stop at is
sent only where ids come back, since otherwise nobody could tell how an answer ended: there it is cut here.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from probing.errors import ServerError
from probing.questions import Prompt

Said = tuple[tuple[int, ...], str]
"""Tokens of an answer, and its text."""


@dataclass(frozen=True)
class Reader:
    """How one model's tokens and answers are read."""

    tokenizer: Any
    ends: Collection[int]
    """Its end tokens."""
    ended: Callable[[Sequence[int]], Said | None]
    """The answer that some tokens are, cut where it ends; None if it would go on after them."""
    max_new_tokens: int
    stop: str | None


@dataclass(frozen=True)
class Way:
    """One way of asking."""

    name: str
    body: Callable[[Prompt, Reader], dict[str, Any]]
    tokens: Callable[[dict[str, Any], Prompt, Reader], list[Any]]
    """What the tokens in a choice of a reply may be: all that is possible, or nothing."""


def _returned(choice: dict[str, Any], _prompt: Prompt, _reader: Reader) -> list[Any]:
    return [choice.get("token_ids")]


def _in_logprobs(choice: dict[str, Any], _prompt: Prompt, _reader: Reader) -> list[Any]:
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list):
        return []
    return [[one.get("id") if isinstance(one, dict) else None for one in content]]


def _again(choice: dict[str, Any], prompt: Prompt, reader: Reader) -> list[Any]:
    text = choice["text"]
    alone, spaced, whole = reader.tokenizer([text, f" {text}", prompt.text + text], add_special_tokens=False)[
        "input_ids"
    ]
    bare = reader.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    behind = [whole[len(bare) :]] if whole[: len(bare)] == bare else []
    return [one for one in (alone, spaced, *behind) if reader.tokenizer.decode(one, skip_special_tokens=True) == text]


def _as_ids(prompt: Prompt, reader: Reader) -> dict[str, Any]:
    stop = {"stop": [reader.stop]} if reader.stop else {}
    return {"prompt": list(prompt.tokens), **stop}


def _as_text(prompt: Prompt, reader: Reader) -> dict[str, Any]:
    """A text of which the server should make the prompt's tokens, by its tokenizer's usual way.

    Raises:
        ServerError: there is none.
    """
    start = reader.tokenizer.bos_token
    for text in [prompt.text, *([prompt.text.removeprefix(start)] if start else [])]:
        if tuple(reader.tokenizer(text)["input_ids"]) == prompt.tokens:
            return {"prompt": text}
    raise ServerError(
        "The server takes prompts as text only, and no text becomes just the tokens of this pair's prompts.",
        "Use a server that takes token ids: vLLM, SGLang or llama.cpp.",
    )


WAYS = (
    Way("token ids", lambda prompt, reader: _as_ids(prompt, reader) | {"return_token_ids": True}, _returned),
    Way("token ids, by log-probabilities", lambda prompt, reader: _as_ids(prompt, reader) | {"logprobs": 1},
        _in_logprobs),
    Way("text, made into tokens again", _as_text, _again),
)  # fmt: skip


def read(way: Way, reply: dict[str, Any], prompt: Prompt, reader: Reader) -> Said | None:
    """The answer that a reply holds; None where its tokens cannot be known for certain.

    Raises:
        ServerError: it is no reply to this prompt.
    """
    choice = _choice(reply)
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    asked, count = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if isinstance(asked, int) and asked != len(prompt.tokens):
        raise ServerError(
            f"The server read {asked} tokens where the pair's tokenizer makes {len(prompt.tokens)} of a prompt.",
            "Does it serve this pair's model, with the tokenizer that came with it?",
        )
    if way is WAYS[-1] and not isinstance(count, int):
        raise ServerError("The server does not say how many tokens an answer has.", "Use one that sends `usage`.")
    found = set()
    for told in way.tokens(choice, prompt, reader):
        for end in _ends(choice, reader) if _is_tokens(told, reader) else []:
            tokens = (*told, *end)
            answer = reader.ended(tokens) if count in (None, len(tokens)) else None
            if answer is not None and _agrees(choice["text"], answer[1], reader):
                found.add(answer)
    return found.pop() if len(found) == 1 else None


def _choice(reply: dict[str, Any]) -> dict[str, Any]:
    """The one answer in a reply."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        raise ServerError(f"The server's reply holds no answer: {str(reply)[:100]}", "Does it serve /v1/completions?")
    return choice


def _is_tokens(told: Any, reader: Reader) -> bool:
    known = len(reader.tokenizer)
    return isinstance(told, list) and all(isinstance(one, int) and 0 <= one < known for one in told)


def _ends(choice: dict[str, Any], reader: Reader) -> list[tuple[int, ...]]:
    """What may have been left out behind an answer: nothing, or an end token."""
    return [()] if choice.get("finish_reason") == "length" else [(), *((end,) for end in reader.ends)]


def _agrees(text: str, ours: str, reader: Reader) -> bool:
    """Whether a server's text is what the pair's tokenizer reads in the tokens, but for how they end."""
    theirs, ours = (one.partition(reader.stop)[0] if reader.stop else one for one in (text, ours))
    return theirs.strip().rstrip("\ufffd") == ours.strip().rstrip("\ufffd")
