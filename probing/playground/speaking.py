"""One model that answers, as it is and with some of its edges removed.

An answer under changes cannot go on from what was computed for the token before: what stands in, and what is left, is
made anew in each pass. So a *draft* of the whole answer is read in one pass, which tells at every place what the model
would say there. Its tokens are right up to the first that the model does not say; what it said from there on is the
next draft. Each token that is kept was said after exactly what is kept before it, which is what a loop of one pass for
each token does; a good draft, such as what is said at every place of the answer with nothing changed, or of the other
model's answer, needs few passes (Santilli et al. 2023, arXiv:2305.10427).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probing.ablation import Removed, run_with
from probing.attribution import Attributor, References, StandIns, written_on
from probing.errors import ModelError
from probing.graph import ResidualGraph
from probing.method import Reference
from probing.models import answer, ended, vocabulary_digest
from probing.pairs import Pair
from probing.sequences import Sample


@dataclass(frozen=True)
class Way:
    """Edges that are removed, by their numbers, and what stands in for their writers on any text."""

    edges: Sequence[int]
    references: References

    def on(self, sample: Sample) -> Removed:
        """The same on one text."""
        return Removed(self.edges, self.references.of([sample]))


@dataclass(frozen=True)
class OfAnother:
    """What another model's writers write on the same text."""

    other: Attributor
    kind: Reference = "patch"

    def of(self, samples: Sequence[Sample]) -> StandIns:
        """In a pass of that model."""
        return written_on(self.other, samples)


@dataclass(frozen=True)
class Decoded:
    """An answer, and what the model says at each of its places."""

    tokens: tuple[int, ...]
    text: str
    logits: Float[Tensor, "token vocabulary"]


@dataclass(frozen=True)
class Speaker:
    """One model of a pair."""

    key: str
    """Identity of its weights."""
    attributor: Attributor
    tokenizer: Any
    pair: Pair

    @property
    def graph(self) -> ResidualGraph:
        """Its edges."""
        return self.attributor.graph

    @property
    def context(self) -> int | None:
        """How many tokens it can read, where its config says so."""
        config = self.attributor.model.config.get_text_config(decoder=True)
        return getattr(config, "max_position_embeddings", None)

    def reads_like(self, other: "Speaker") -> bool:
        """Whether the same tokens are the same text for another, and what it writes as wide."""
        widths = {one.attributor.architecture.weight.shape[1] for one in (self, other)}
        return len(widths) == 1 and vocabulary_digest(self.tokenizer) == vocabulary_digest(other.tokenizer)

    @staticmethod
    def sample(prompt: tuple[int, ...], answer: Sequence[int], first: int, count: int) -> Sample:
        """What asks of `count` places of an answer, from the `first`, what stands there; the last need not be known."""
        tokens = (*prompt, *answer, 0)[: len(prompt) + first + count]
        return Sample("typed", tokens, len(prompt) + first, count)

    def says(self, sample: Sample, ways: Sequence[Way] = ()) -> Float[Tensor, "answer vocabulary"]:
        """The logits at the places that a sample asks of.

        Raises:
            ModelError: they are not finite.
        """
        with run_with(self.attributor, [sample], [way.on(sample) for way in ways]) as said:
            logits = said.logits[0].float().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise ModelError("With these changes, what the model says is not finite.", "Change less.")
        return logits

    def answer(self, prompt: tuple[int, ...]) -> Decoded:
        """The greedy answer with nothing removed."""
        model = self.attributor.model
        [(tokens, text)] = answer(model, self.tokenizer, [prompt], self.pair.max_new_tokens, self.pair.stop)
        return Decoded(tokens, text, self.says(self.sample(prompt, tokens, 0, len(tokens))))

    def answer_by(self, draft: Sequence[int], prompt: tuple[int, ...], ways: Sequence[Way] = ()) -> Decoded:
        """The greedy answer with some edges removed, found sooner the nearer a draft is to it.

        Raises:
            ModelError: as `says` does.
        """
        longest = self.pair.max_new_tokens
        draft = list(draft)
        while True:
            draft = (draft + longest * draft[-1:])[: longest - 1]
            logits = self.says(self.sample(prompt, draft, 0, len(draft) + 1), ways)
            said = logits.argmax(-1).tolist()
            agreed = next((i for i, token in enumerate(draft) if token != said[i]), len(draft))
            right = said[: agreed + 1]
            if (found := ended(right, self.attributor.model, self.tokenizer, longest, self.pair.stop)) is not None:
                tokens, text = found
                return Decoded(tokens, text, logits[: len(tokens)])
            draft = said
