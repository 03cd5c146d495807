"""Answers that an inference server gives for a model."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from probing.errors import ServerError
from probing.jobs.bench import Bench
from probing.jobs.stages.answering import Answering
from probing.jobs.stages.stage import Say
from probing.models import answer, end_tokens, ended
from probing.questions import Prompt
from probing.serving import ANSWERED_BY
from probing.serving.agreement import Agreement, agreement, sampled
from probing.serving.served import AT_ONCE, Served, find_served
from probing.serving.tokens import Reader, Said

LOST = 0.5
"""The share of a batch whose tokens may not be known; above it, the server's tokenizer is another."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and what it may call the model."""

    url: str
    names: tuple[str, ...]
    alone: bool
    """Whether the URL is for this side's model only."""


@dataclass
class _Tally:
    """What was seen of the answers that came to this bench."""

    agreement: Agreement = field(default_factory=Agreement)
    itself: int = 0
    """Questions that the model answered itself."""


@dataclass(frozen=True, kw_only=True)
class Fetching(Answering):
    """Greedy answers of one model by a server. Of a sample of each batch the model itself is asked, in the dtype in
    which it is scored, before anything is kept. What the server said in tokens that cannot be known for certain, the
    model answers itself."""

    server: Server

    def lay_out(self, bench: Bench) -> int:
        """As many as keep a server busy."""
        return AT_ONCE

    def made(self, bench: Bench) -> dict[str, Any]:
        """By which server, and how many tokens were checked."""
        served, tally = self._served(bench), bench.kept("tally", _Tally)
        seen = tally.agreement
        return super().made(bench) | {
            ANSWERED_BY: f"{served.engine or 'a server'} at {served.endpoint.url}, as {served.name}",
            "dtype of answers": "not known",
            "tokens came as": served.way.name,
            "tokens checked": seen.tokens,
            "tokens the model would say otherwise": seen.other,
            "of these by far": seen.far,
            "answered by the model itself": tally.itself,
        }

    def _said(self, prompts: list[Prompt], places: list[int], bench: Bench, say: Say) -> list[Said]:
        attributor, tokenizer = bench.load(self.wanted)
        model, tally = attributor.model, bench.kept("tally", _Tally)
        told = self._served(bench, prompts[0], say).answer(prompts, say)
        lost = [i for i, said in enumerate(told) if said is None]
        if len(lost) > max(1.0, LOST * len(told)):
            raise ServerError(
                f"What {self.server.url} answers cannot be made into tokens: {len(lost)} of {len(told)} answers fit "
                "neither their number of tokens nor the pair's tokenizer.",
                "Use a server that gives token ids, or check that it serves this model.",
            )
        fed = [prompts[i].tokens for i in lost]
        own = answer(model, tokenizer, fed, self.max_new_tokens, self.stop, say) if lost else []
        itself = dict(zip(lost, own, strict=True))
        answers = [itself[i] if said is None else said for i, said in enumerate(told)]
        looked_at = sampled(len(self.questions))
        some = [i for i, place in enumerate(places) if place in looked_at and i not in itself]
        seen = agreement(model, ((prompts[i].tokens, answers[i][0]) for i in some))
        tally.agreement, tally.itself = tally.agreement + seen, tally.itself + len(lost)
        tally.agreement.check(self.server.names[-1], self.server.url)
        return answers

    def _served(self, bench: Bench, first: Prompt | None = None, say: Say = lambda: None) -> Served:
        """The model at the server, found once."""

        def find() -> Served:
            attributor, tokenizer = bench.load(self.wanted)
            model = attributor.model
            end = partial(ended, model=model, tokenizer=tokenizer, max_new_tokens=self.max_new_tokens, stop=self.stop)
            reader = Reader(tokenizer, end_tokens(model, tokenizer), end, self.max_new_tokens, self.stop)
            prompt = first or next(iter(self._prompts(bench).values()))
            return find_served(self.server.url, self.server.names, self.server.alone, reader, prompt, say=say)

        return bench.kept("served", find)
