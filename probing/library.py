"""What a notebook needs of two models: load them, ask them, score what they said, and try what the scores say.

`import probing` gives these names and a few others' (`probing.__all__`); nothing is loaded before it is used.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from probing import ablation
from probing.attribution import Attributor, find_references
from probing.checkpoints import Checkpoint, find
from probing.errors import QuestionError, ScoresError
from probing.evidence import Audit
from probing.evidence.audit import audit
from probing.evidence.removed import Removed, Source
from probing.extraction import SHARES, Best, Extraction, circuits, random_circuits
from probing.faithfulness import run_circuits
from probing.fitting import batch_by_batch
from probing.graph import Granularity, ResidualGraph
from probing.jobs.numerics import numerics_of
from probing.jobs.plan import Numerics
from probing.jobs.tasks.circuit import MEASURE, Kept
from probing.method import PAPERS, Method
from probing.metrics import Definition, curve
from probing.metrics import kept as share_kept
from probing.models import DTYPES, answer, answers_at_once, load_model, load_tokenizer, pick_device, use_threads_for
from probing.pairs import load_registry
from probing.questions import Question, is_right, load_questions, prompt_for
from probing.rollouts import Answer, Criteria, Selected, samples, select
from probing.scores import Scores
from probing.sequences import Sample


class Model(Attributor):
    """A checkpoint that is ready to be asked and scored.

    `checkpoint` says who it is, `model` and `tokenizer` are those of transformers, `graph` has the edges that are
    scored. It is asked with `template`, and answers with at most `max_new_tokens`, or up to the text `stop`.
    """

    def __init__(
        self, checkpoint: Checkpoint, how: Numerics, granularity: Granularity,
        template: str, max_new_tokens: int, stop: str | None,
    ) -> None:  # fmt: skip
        model = load_model(checkpoint, pick_device(how.device), DTYPES[how.scores], how.attention)
        use_threads_for(model)
        super().__init__(model, granularity)
        self.checkpoint, self.tokenizer = checkpoint, load_tokenizer(checkpoint)
        self.template, self.max_new_tokens, self.stop = template, max_new_tokens, stop

    def answers(self, questions: Sequence[Question], grading: str, tuned: bool = False) -> list[Answer]:
        """Greedy answers, graded; `tuned` says whose part it has where the questions themselves say who is right.

        Raises:
            QuestionError: there is no such template or rule of grading.
        """
        prompts = [prompt_for(question, self.template, self.tokenizer).tokens for question in questions]
        at_once = answers_at_once(self.model, prompts, self.max_new_tokens)
        places = [*range(len(questions))]
        found: dict[int, Answer] = {}

        def give(batch: list[int]) -> None:
            fed = [prompts[i] for i in batch]
            said = answer(self.model, self.tokenizer, fed, self.max_new_tokens, self.stop)
            for i, (tokens, text) in zip(batch, said, strict=True):
                right = is_right(questions[i], tuned, text, grading)
                found[i] = Answer(questions[i].id, prompts[i], tokens, text, right)

        batch_by_batch([places[i : i + at_once] for i in range(0, len(places), at_once)], give)
        return [found[i] for i in places]


@dataclass(frozen=True)
class LoadedPair:
    """A base model and one tuned from it, the questions for both, and the rule by which answers are graded: `math`,
    `last-number`, `number:TOLERANCE` or `exact`."""

    base: Model
    tuned: Model
    questions: Sequence[Question]
    grading: str


@dataclass(frozen=True)
class Asked:
    """What both models are scored on, each on its own answers to the same questions, cut alike."""

    base: list[Sample]
    tuned: list[Sample]
    selected: Selected
    """What became of each question; `selected.funnel` says it in words."""


def load(
    name: str,
    granularity: Granularity = "projections",
    template: str = "plain",
    max_new_tokens: int = 32,
    stop: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Model:
    """Load a checkpoint by its folder, hub id or GGUF file, and prove that its edges add up.

    `granularity` is `blocks`, `projections` or `heads`. `template` is a name, `chat`, or a text with `{q}` in it.
    `dtype` is that of answers and scores: by default float32 where that fits, else the checkpoint's own.

    Raises:
        ModelError: the model cannot be found, loaded or trusted.
    """
    checkpoint = find(name)
    how = numerics_of(device, dtype, "sdpa", [checkpoint])
    return Model(checkpoint, how, granularity, template, max_new_tokens, stop)


def load_pair(
    name: str,
    questions: str | None = None,
    granularity: Granularity = "projections",
    device: str = "auto",
    dtype: str = "auto",
) -> LoadedPair:
    """Load both models of a pair of data/pairs.toml (or of `PROBING_PAIRS`), and one of its question sets, the first
    unless another is named.

    For two models that are in no file, make a `LoadedPair` of what `load` gives.

    Raises:
        PairError: there is no such pair or question set.
        ModelError: a model cannot be found, loaded or trusted.
        QuestionError: the questions cannot be read.
    """
    registry = load_registry()
    pair = registry.pair(name)
    asked = registry.question_set(questions or pair.questions[0])
    revisions = {"base": pair.base_revision, "tuned": pair.tuned_revision}
    checkpoints = [find(getattr(pair, side), revision, pair.pickled) for side, revision in revisions.items()]
    how = numerics_of(device, dtype, "sdpa", checkpoints)
    base, tuned = (
        Model(checkpoint, how, granularity, pair.template, pair.max_new_tokens, pair.stop) for checkpoint in checkpoints
    )
    return LoadedPair(base, tuned, load_questions(asked), asked.grading)


def ask(pair: LoadedPair, criteria: Criteria | None = None) -> Asked:
    """Have both models answer the pair's questions greedily, and keep and cut as the criteria say.

    By default as the paper does: of the questions that both answer rightly, 100 of like length, each answer's first
    tokens up to 0.3 of the mean length.

    Raises:
        QuestionError: there are no questions, or a template or a rule of grading is unknown.
        SelectionError: no question is left; the sentence says why.
    """
    if not pair.questions:
        raise QuestionError("There are no questions to ask.", "Give the pair at least one.")
    base = pair.base.answers(pair.questions, pair.grading)
    tuned = pair.tuned.answers(pair.questions, pair.grading, tuned=True)
    selected = select(base, tuned, criteria or Criteria())
    return Asked(samples(base, selected), samples(tuned, selected), selected)


def ablate(
    model: Attributor,
    samples: Sequence[Sample],
    edges: Iterable[str],
    method: Method = PAPERS,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    found: Float[np.ndarray, "sample edge"] | None = None,
) -> ablation.Effects:
    """Really remove edges, each alone, by their names (`m2->a5<q>`): `effects` [sample, edge] is the loss without the
    edge minus the loss, in nats per scored token (in logits, where the method's loss is the margin).

    Of the method count the loss and the reference. What is `found` already, an array with NaN elsewhere, is not made
    again; `progress` is told how many samples times edges are done.

    Raises:
        ScoresError: the model's graph has no such edge.
        SequenceError: a sample that the model cannot score, or that lacks what the reference needs.
        ModelError: a loss is not finite.
    """
    names = tuple(edges)
    numbers = edge_numbers(model.graph, names)
    model.check(samples)
    loss = np.zeros(len(samples), np.float32)

    def measure(batch: list[int]) -> None:
        loss[batch] = ablation.loss_without(model, [samples[i] for i in batch], [], method.loss)

    batch_by_batch(model.batches(samples, batch_size), measure)
    references = find_references(model, method.reference, samples, batch_size)
    effects = ablation.effects(model, samples, numbers, method.loss, references, batch_size, progress, found)
    return ablation.Effects(model.graph, tuple(one.id for one in samples), names, effects, loss, method)


def edge_numbers(graph: ResidualGraph, names: Iterable[str]) -> list[int]:
    """The places of edges in the graph's order, by their names.

    Raises:
        ScoresError: the graph has no such edge.
    """
    found = []
    for name in names:
        try:
            found.append(graph.number(name))
        except ValueError as error:
            remedy = f"Edges have names such as '{graph.names([graph.size - 1])[0]}', at this granularity."
            raise ScoresError(f"The model's graph has no edge '{name}'.", remedy) from error
    return found


def check(scores: Scores, effects: ablation.Effects) -> Audit:
    """Hold scores against what removing their edges really does, on the same questions.

    `table` has a row for each edge: its `estimate` and `effect` (means over questions, in the units of the scores), the
    effect's 95 % interval `low` to `high`, and the `verdict`. `agreement["strongest"]` has the rank correlation, the
    share of equal signs and the ratio of sizes over all edges that were removed.

    Raises:
        ScoresError: the effects are of another graph, of other questions or another loss, or of no edge.
    """
    ours, theirs = scores.method, effects.method
    alike = scores.graph == effects.graph and (ours.loss, ours.reference) == (theirs.loss, theirs.reference)
    if not alike or not effects.edges or not set(effects.ids) <= set(scores.ids):
        raise ScoresError(
            "These effects are not of what the scores estimate.",
            "Ablate at least one edge of the model that was scored, on the same samples, by the same method.",
        )
    known = Removed((Source(effects.ids, effects.edges, effects.effects),))
    found = audit(scores, known, {"strongest": effects.edges})
    assert found is not None
    return found


def extract(
    scores: Scores, shares: Sequence[float] = SHARES, extraction: Extraction = "top", best: Best = "magnitude"
) -> Bool[np.ndarray, "share edge"]:
    """The circuit of each share of all edges, by the mean scores: whether each edge, in the graph's order, is in it.

    `extraction` is `top` (the best edges wherever they are) or `greedy` (grown from the logits); the best have the
    largest `magnitude` or the largest `score`. (EAP-IG, arXiv:2403.17806; the shares are MIB's, arXiv:2504.13151.)
    """
    return circuits(scores.graph, scores.edges.mean(0, dtype=np.float64), extraction, best, shares)


def keep(
    model: Attributor,
    samples: Sequence[Sample],
    scores: Mapping[str, Scores],
    extraction: Extraction = "top",
    best: Best = "magnitude",
    random: int = 3,
    seed: int = 0,
) -> Kept:
    """Run circuits in a model, all else replaced: the share f of its margin that each keeps, with 95 % intervals.

    `scores` are named by whose they are (`base`, `tuned`), the model's own first; their reference is what stands in for
    what is left out. Circuits have MIB's sizes, and `random` ones as large as the model's own come beside them.
    `curves[name].f` are the shares kept, `sizes[name]` the numbers of edges, `needed(name)` how many keep 0.8.

    Raises:
        ScoresError: scores are of another graph.
        SequenceError: a sample that the model cannot score, or that lacks what the reference needs.
    """
    if not scores or any(one.graph != model.graph for one in scores.values()):
        raise ScoresError("The scores are not of this model's graph.", "Score this model, at the same granularity.")
    found = {whose: extract(one, SHARES, extraction, best) for whose, one in scores.items()}
    own = next(iter(found.values())).sum(1).tolist()
    draws = [
        random_circuits(model.graph, own, np.random.default_rng([seed, number])) for number in range(random)
    ]  # each its own, whatever the others
    none = np.zeros((1, model.graph.size), bool)
    references = find_references(model, next(iter(scores.values())).method.reference, samples)
    values = run_circuits(model, samples, np.concatenate([none, *found.values(), *draws]), references)[MEASURE]
    nothing, rows = values[0], values[1:].reshape(-1, len(SHARES), len(samples))
    whole = rows[0, -1]
    own_rows, by_chance = rows[: len(found)], rows[len(found) :]
    return Kept(
        model.graph.size,
        len(samples),
        {whose: inside.sum(1).tolist() for whose, inside in found.items()},
        {whose: curve(one, nothing, whole, SHARES, Definition()) for whose, one in zip(found, own_rows, strict=True)},
        np.array([share_kept(one, nothing, whole) for one in by_chance]).reshape(-1, len(SHARES)),
    )
