"""What two models say to an experiment, computed while somebody waits.

What does not depend on the changes is kept: answers and estimates by model, question and place, and the means of what
is written by model. An experiment that was done is kept whole.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probing.attribution import ZERO, References, find_references
from probing.checkpoints import find
from probing.graph import ResidualGraph, is_edge
from probing.jobs.loading import Models
from probing.jobs.numerics import numerics_of
from probing.jobs.plan import Wanted
from probing.jobs.progress import silent
from probing.method import Method
from probing.models import answer, pieces
from probing.pairs import Pair, Registry, load_registry
from probing.playground.experiment import Change, Chosen, Experiment, Kind, Outcome, PlaygroundError, Said, Side
from probing.playground.speaking import Decoded, OfAnother, Speaker, Way
from probing.questions import Question, grade, load_questions, prompt_for
from probing.sequences import Sample

LIKELIEST = 5
"""Tokens that are told of the place that is looked at."""

MEASURED, MEASURED_OF_LARGE = 100, 10
"""Questions on which it is measured what a model writes on average."""

KEPT, KEPT_OF_LARGE = 256, 8
"""Outcomes that are kept, and estimates, and answers; of large models fewer answers, as the logits of one may take half
a gigabyte."""

_SUM = re.compile(r"(\d+)\+(\d+)=")

Result = TypeVar("Result")


class Recent:
    """The last things that were asked for, by what they are made of."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """The thing of that key; made, if it is not there."""
        if key not in self._kept:
            self._kept[key] = make()
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


@dataclass(frozen=True)
class Asked:
    """A question as a model reads it, and what it answers with nothing changed."""

    question: str
    prompt: tuple[int, ...]
    answer: Decoded


@dataclass
class Engine:
    """Does one experiment after the other."""

    allow_large: bool = False
    """Whether it may load any pair, or only those that are small."""
    _models: Models = field(default_factory=lambda: Models(large=2))
    _kept: dict[str, Recent] = field(default_factory=dict)
    _registry: Registry | None = None
    """Whose pairs and questions what is kept is of."""

    def do(self, experiment: Experiment) -> Outcome:
        """What both models say.

        Raises:
            PersonError: an unknown pair, a question that the models cannot read, a change of something that they do not
                have, or a model that cannot be loaded.
        """
        started = time.monotonic()
        registry = load_registry()
        if registry is not self._registry:  # a name may stand for other models or questions now
            self._kept, self._registry = {}, registry
        pair = registry.pair(experiment.pair)
        if not self.allow_large and not pair.is_small:
            raise PlaygroundError("This server answers only with the small models that ship.", "Choose another pair.")
        outcome = self._recent("outcome").get((pair, experiment), lambda: self._do(pair, experiment))
        return replace(outcome, seconds=time.monotonic() - started)

    def _recent(self, kind: str, most: int = KEPT) -> Recent:
        return self._kept.setdefault(kind, Recent(most))

    def _do(self, pair: Pair, experiment: Experiment) -> Outcome:
        base, tuned = self._speakers(pair)
        graph = base.graph
        if tuned.graph != graph:
            raise PlaygroundError("The two models of this pair have different edges.", "Choose another pair.")
        kinds = kinds_of(experiment.changes, graph)
        if "swap" in kinds and not base.reads_like(tuned):
            raise PlaygroundError(
                "The two models of this pair have other tokens or widths, so neither can write for the other.",
                "Remove instead, by zero or mean.",
            )
        for_base = self._asked(base, experiment.question)
        for_tuned = self._asked(tuned, experiment.question, for_base.answer.tokens)
        place = experiment.token
        if place is None:
            place = where_they_part(for_base.answer.tokens, for_tuned.answer.tokens)
        return Outcome(
            self._side(base, tuned, for_base, place, kinds), self._side(tuned, base, for_tuned, place, kinds), place,
            graph, 0.0,
        )  # fmt: skip

    # -- models ----------------------------------------------------------------------------------------------------

    def _speakers(self, pair: Pair) -> list[Speaker]:
        """Both models, ready."""

        def look_up() -> list[Any]:
            sides = ((pair.base, pair.base_revision), (pair.tuned, pair.tuned_revision))
            return [find(model, revision, pair.pickled) for model, revision in sides]

        checkpoints = self._recent("checkpoints").get(pair, look_up)
        how = numerics_of("cpu", "auto", "sdpa", checkpoints)
        loaded = [
            self._models.load(Wanted(checkpoint, how, how.scores, "projections"), silent) for checkpoint in checkpoints
        ]
        return [
            Speaker(checkpoint.identity, *ready, pair) for checkpoint, ready in zip(checkpoints, loaded, strict=True)
        ]

    def _prompt(self, speaker: Speaker, question: str) -> tuple[int, ...]:
        """The tokens of the prompt.

        Raises:
            PlaygroundError: the tokenizer does not know a character, or they are more than the model can read.
        """
        tokenizer = speaker.tokenizer
        unknown = [c for c in dict.fromkeys(question) if not knows(tokenizer, c)]
        if unknown:
            named = ", ".join(repr(c) for c in unknown[:8]) + (" and others" if len(unknown) > 8 else "")
            raise PlaygroundError(f"These models cannot read {named}.", "Their questions look like 3471+2853=.")
        tokens = prompt_for(Question("typed", question, ""), speaker.pair.template, tokenizer).tokens
        room = speaker.context
        if room is not None and len(tokens) + speaker.pair.max_new_tokens > room:
            raise PlaygroundError(
                f"With this question the prompt has {len(tokens)} tokens, and the answer may have "
                f"{speaker.pair.max_new_tokens}: more than the {room} that the model reads.",
                "Ask a shorter one.",
            )
        return tokens

    # -- one model -------------------------------------------------------------------------------------------------

    def _asked(self, speaker: Speaker, question: str, draft: Sequence[int] = ()) -> Asked:
        """A question with its answer, which may be near to a draft."""
        prompt = self._prompt(speaker, question)

        def answered() -> Decoded:
            return speaker.answer_by(draft, prompt) if draft else speaker.answer(prompt)

        key = (speaker.key, prompt, speaker.pair.max_new_tokens, speaker.pair.stop)
        small = speaker.pair.is_small
        recent = self._recent("answers") if small else self._recent("answers of large models", KEPT_OF_LARGE)
        return Asked(question, prompt, recent.get(key, answered))

    def _side(self, speaker: Speaker, other: Speaker, asked: Asked, place: int, kinds: dict[int, Kind]) -> Side:
        prompt, clean = asked.prompt, asked.answer
        place = min(place, len(clean.tokens) - 1)
        sample = speaker.sample(prompt, clean.tokens, place, 1)
        chosen = clean.tokens[place]

        def estimates(kind: Kind) -> Float[np.ndarray, " edge"]:
            references = self._references(kind, speaker, other)
            method = Method(path="norm-exact", loss="margin", reference=references.kind)
            key = (speaker.key, other.key, sample, kind, speaker.pair)
            return self._recent("estimates").get(
                key, lambda: speaker.attributor.score([sample], method, references).edges[0]
            )

        scores = estimates("zero")
        side = Side(
            self._said(speaker, clean, asked.question), None,
            self._chosen(speaker, chosen, clean.logits[place]), None, None, scores,
        )  # fmt: skip
        if not kinds:
            return side
        by_kind = {kind: [edge for edge, one in kinds.items() if one == kind] for kind in dict.fromkeys(kinds.values())}
        ways = [Way(edges, self._references(kind, speaker, other)) for kind, edges in by_kind.items()]
        there = speaker.says(speaker.sample(prompt, clean.tokens, 0, len(clean.tokens)), ways)
        changed = speaker.answer_by(there.argmax(-1).tolist(), prompt, ways)
        return replace(
            side,
            changed=self._said(speaker, changed, asked.question),
            without=self._chosen(speaker, chosen, there[place]),
            promised=-float(sum(estimates(kind)[edges].sum(dtype=float) for kind, edges in by_kind.items())),
        )

    def _references(self, kind: Kind, speaker: Speaker, other: Speaker) -> References:
        """What stands in for what is removed so."""
        if kind == "zero":
            return ZERO
        if kind == "swap":
            return OfAnother(other.attributor)
        return self._recent("means").get((speaker.key, speaker.pair), lambda: self._means(speaker))

    def _means(self, speaker: Speaker) -> References:
        """What the model's writers write on average, over questions of the pair's and its own answers to them."""
        pair = speaker.pair
        count = MEASURED if pair.is_small else MEASURED_OF_LARGE
        questions = load_questions(load_registry().question_set(pair.questions[0]))[:count]
        prompts = [prompt_for(question, pair.template, speaker.tokenizer).tokens for question in questions]
        said = answer(speaker.attributor.model, speaker.tokenizer, prompts, pair.max_new_tokens, pair.stop)
        samples = [
            Sample(question.id, prompt + tokens, len(prompt), len(tokens))
            for question, prompt, (tokens, _) in zip(questions, prompts, said, strict=True)
        ]
        return find_references(speaker.attributor, "mean", samples)

    # -- words -----------------------------------------------------------------------------------------------------

    def _said(self, speaker: Speaker, decoded: Decoded, question: str) -> Said:
        shares = decoded.logits.softmax(-1)
        each = shares.gather(-1, torch.tensor(decoded.tokens)[:, None])[:, 0]
        known = self._recent("references").get(speaker.pair, lambda: references_of(speaker.pair))
        found = known(question)
        right = None if found is None else grade(decoded.text, *found)
        return Said(pieces(speaker.tokenizer, decoded.tokens), tuple(each.tolist()), decoded.text, right)

    def _chosen(self, speaker: Speaker, token: int, logits: Float[Tensor, " vocabulary"]) -> Chosen:
        shares = logits.softmax(-1)
        others = logits.clone()
        others[token] = -torch.inf
        likeliest = shares.topk(min(LIKELIEST, len(shares)))
        names = [name(speaker.tokenizer, one) for one in likeliest.indices.tolist()]
        return Chosen(
            name(speaker.tokenizer, token),
            float(shares[token]),
            float(logits[token] - others.max()),
            tuple(zip(names, likeliest.values.tolist(), strict=True)),
        )


def where_they_part(one: Sequence[int], other: Sequence[int]) -> int:
    """The first place at which two answers differ; 0 if they do not."""
    return next((place for place, both in enumerate(zip(one, other, strict=False)) if len(set(both)) > 1), 0)


def kinds_of(changes: Iterable[Change], graph: ResidualGraph) -> dict[int, Kind]:
    """How each edge that is changed is changed; of one that several changes cover, as the last of them says.

    Raises:
        PlaygroundError: the graph has nothing of that name, or nothing leaves it.
    """
    found: dict[int, Kind] = {}
    for change in changes:
        if not graph.knows(change.name):
            raise PlaygroundError(f"These models have no “{change.name}”.", "Names are like m2->a5<q>, a0 or m3.")
        edges = [graph.number(change.name)] if is_edge(change.name) else graph.out_of(change.name).tolist()
        if not edges:
            raise PlaygroundError(f"Nothing leaves “{change.name}”.", "Change what it reads.")
        found |= dict.fromkeys(edges, change.kind)
    return found


def knows(tokenizer: Any, character: str) -> bool:
    """Whether a tokenizer reads a character as what it is."""
    tokens = tokenizer(character, add_special_tokens=False)["input_ids"]
    return character in tokenizer.decode(tokens, skip_special_tokens=True)


def name(tokenizer: Any, token: int) -> str:
    """The text of a token; of one that is a part of a character, what the tokenizer calls it."""
    return pieces(tokenizer, [token])[0] or str(tokenizer.convert_ids_to_tokens(token))


def references_of(pair: Pair) -> Callable[[str], tuple[str, str] | None]:
    """What tells the right answer to a question and the rule by which it is graded, where one knows it."""
    known: dict[str, tuple[str, str]] = {}
    sums: str | None = None
    registry = load_registry()
    for questions in map(registry.question_set, pair.questions):
        if questions.file is not None and questions.grading != "none":
            loaded = load_questions(questions)
            known |= {question.text: (question.reference, questions.grading) for question in loaded}
            if all(_SUM.fullmatch(question.text) for question in loaded):
                sums = questions.grading

    def look_up(question: str) -> tuple[str, str] | None:
        found = _SUM.fullmatch(question)
        if question not in known and found is not None and sums is not None:
            return str(int(found[1]) + int(found[2])), sums
        return known.get(question)

    return look_up
