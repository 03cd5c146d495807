"""Many answers to many questions behind one prefix, without computing what they share twice.

All prompts begin with the same solved examples, and all answers to a question with the same prompt. Sampling keeps the
prefix's keys and values and lets the answers of a question branch off its own. For log-probabilities with gradients,
prefix, questions and answers are laid in one row whose attention mask lets each token see its own branch only:
for 16 questions with 8 answers each that is about a tenth of the tokens of 128 separate rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Branches:
    """A prefix, the questions behind it, and the answers behind each question, as tokens."""

    prefix: list[int]
    questions: list[list[int]]
    answers: list[list[list[int]]]
    """Of each question: its answers, each with the token that ends it."""

    def only(self, chosen: Sequence[int]) -> "Branches":
        """The chosen questions with their answers."""
        return Branches(self.prefix, [self.questions[i] for i in chosen], [self.answers[i] for i in chosen])


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A text's tokens, with nothing added."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prefix: list[int],
    questions: Sequence[list[int]],
    ends: Tensor,
    longest: int,
    each: int = 1,
    temperature: float | None = 1.0,
) -> Branches:
    """`each` answers to every question, sampled (or greedy without a temperature), up to an end or `longest` tokens."""
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.tensor([prefix]), past_key_values=cache)
    cache.batch_repeat_interleave(len(questions))
    width = max(map(len, questions))
    gaps = [width - len(question) for question in questions]
    tokens = torch.tensor([[0] * gap + question for gap, question in zip(gaps, questions, strict=True)])
    seen = torch.tensor([[1] * len(prefix) + [0] * gap + [1] * (width - gap) for gap in gaps])
    places = (seen.cumsum(1) - 1)[:, len(prefix) :]
    logits = model(
        input_ids=tokens, attention_mask=seen, position_ids=places, past_key_values=cache, logits_to_keep=1
    ).logits[:, -1]
    cache.batch_repeat_interleave(each)
    logits, seen, place = (x.repeat_interleave(each, 0) for x in (logits, seen, places[:, -1:]))
    written: list[Tensor] = []
    running = torch.ones(len(logits), dtype=torch.bool)
    while True:
        chosen = logits.argmax(-1) if temperature is None else _draw(logits / temperature)
        written.append(torch.where(running, chosen, -1))
        running &= ~torch.isin(chosen, ends)
        if len(written) == longest or not running.any():
            break
        seen = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
        place = place + 1
        logits = model(
            input_ids=chosen[:, None], attention_mask=seen, position_ids=place, past_key_values=cache
        ).logits[:, -1]
    rows = [[token for token in row if token >= 0] for row in torch.stack(written, 1).tolist()]
    return Branches(prefix, list(questions), [rows[i : i + each] for i in range(0, len(rows), each)])


def _draw(logits: Float[Tensor, "row token"]) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1)[:, 0]


def log_probabilities(
    model: PreTrainedModel, branches: Branches, temperature: float = 1.0
) -> list[list[Float[Tensor, " token"]]]:
    """Of every answer, the log-probability of each of its tokens given all before it on its branch."""
    row = _Row()
    prefix = row.append(branches.prefix)
    predictors: list[int] = []
    targets: list[int] = []
    for question, answers in zip(branches.questions, branches.answers, strict=True):
        asked = row.append(question, prefix)
        for answer in answers:  # its first token is predicted at the question's last one, the others at the one before
            start = row.append(answer, asked).start
            predictors += [asked.stop - 1, *range(start, start + len(answer) - 1)]
            targets += answer
    logits = model(
        input_ids=torch.tensor([row.tokens]),
        position_ids=torch.tensor([row.places]),
        attention_mask=row.mask(model.dtype),
        use_cache=False,
        logits_to_keep=torch.tensor(predictors),
    ).logits[0]
    chosen = -torch.nn.functional.cross_entropy(logits / temperature, torch.tensor(targets), reduction="none")
    parts = iter(chosen.split([len(answer) for answers in branches.answers for answer in answers]))
    return [[next(parts) for _ in answers] for answers in branches.answers]


class _Row:
    """Segments in one row, each of which goes on from another and sees that one and what it sees."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.places: list[int] = []
        self._before: dict[range, list[range]] = {}

    def append(self, tokens: list[int], after: range | None = None) -> range:
        """Add a segment; returns the indices of its tokens."""
        segment = range(len(self.tokens), len(self.tokens) + len(tokens))
        self._before[segment] = [*self._before[after], after] if after is not None else []
        first = sum(map(len, self._before[segment]))
        self.tokens += tokens
        self.places += range(first, first + len(tokens))
        return segment

    def mask(self, dtype: torch.dtype) -> Float[Tensor, "1 1 token token"]:
        """What to add to the attention's logits: nothing where a token may look, else the lowest number."""
        size = len(self.tokens)
        allowed = torch.zeros(size, size, dtype=torch.bool)
        for segment, before in self._before.items():
            rows = slice(segment.start, segment.stop)
            for other in before:
                allowed[rows, other.start : other.stop] = True
            allowed[rows, rows] = torch.ones(len(segment), len(segment), dtype=torch.bool).tril()
        return torch.zeros(1, 1, size, size, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
