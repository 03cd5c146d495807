"""The samples that attribution scores, and the file they travel in.

A line of the file is a JSON object: `{"id": "q1", "input_ids": [...], "answer_start": 41, "answer_length": 16}`.
It may have a `counterpart`, as many tokens as `input_ids`: the same for another question, on which a reference is read.
The loss of a sample is the mean negative log-likelihood of `input_ids[answer_start : answer_start + answer_length]`,
each token given all before it; what is fed to the model ends one token before the last scored one.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from probing.errors import SequenceError
from probing.jsonl import as_text, read_rows


@dataclass(frozen=True)
class Sample:
    """One question's truncated sequence: the prompt, and the answer's tokens that are scored."""

    id: str
    input_ids: tuple[int, ...]
    answer_start: int
    answer_length: int
    counterpart: tuple[int, ...] | None = None
    """The tokens of another question in the same places, if there is one."""

    @property
    def fed(self) -> tuple[int, ...]:
        """The tokens that the model reads: all but the last scored one."""
        return self.input_ids[: self.answer_start + self.answer_length - 1]

    @property
    def scored(self) -> tuple[int, ...]:
        """The tokens whose log-likelihood makes the loss."""
        return self.input_ids[self.answer_start : self.answer_start + self.answer_length]

    def check(self, vocabulary: int, context: int | None) -> None:
        """Raise a SequenceError unless a model with this vocabulary and context length can score the sample."""
        where = f"Sequence '{self.id}'"
        if self.answer_length < 1:
            raise SequenceError(f"{where} has an empty answer.", "Give answer_length at least 1.")
        if self.answer_start < 1:
            raise SequenceError(
                f"{where} starts its answer at token {self.answer_start}.",
                "Its first token has nothing before it, so answer_start must be at least 1.",
            )
        if self.answer_start + self.answer_length > len(self.input_ids):
            raise SequenceError(
                f"{where} ends its answer at token {self.answer_start + self.answer_length}, "
                f"past its {len(self.input_ids)} tokens.",
                "Check answer_start and answer_length.",
            )
        if self.counterpart is not None and len(self.counterpart) != len(self.input_ids):
            raise SequenceError(
                f"{where} has {len(self.input_ids)} tokens, and its counterpart {len(self.counterpart)}.",
                "A counterpart has a token for each of the sequence's.",
            )
        unknown = next((t for t in (*self.input_ids, *(self.counterpart or ())) if not 0 <= t < vocabulary), None)
        if unknown is not None:
            raise SequenceError(
                f"{where} has token {unknown}, outside the model's vocabulary of {vocabulary}.",
                "Make the sequences with this model's tokenizer.",
            )
        if context is not None and len(self.fed) > context:
            raise SequenceError(
                f"{where} feeds {len(self.fed)} tokens to a model whose context is {context}.",
                "Shorten it or leave it out.",
            )


def _sample(row: object, where: str) -> Sample:
    if not isinstance(row, dict):
        raise SequenceError(f"{where} is not a JSON object.", "See the README for the format.")
    missing = [key for key in ("id", "input_ids", "answer_start", "answer_length") if key not in row]
    if missing:
        raise SequenceError(f"{where} lacks {', '.join(missing)}.", "See the README for the format.")
    tokens, start, length = row["input_ids"], row["answer_start"], row["answer_length"]
    counterpart = row.get("counterpart")
    whole = all(type(value) is int for value in (start, length))
    if not whole or not _are_tokens(tokens) or not (counterpart is None or _are_tokens(counterpart)):
        raise SequenceError(
            f"{where} has something other than whole numbers in input_ids, counterpart, answer_start or answer_length.",
            "See the README for the format.",
        )
    instead = None if counterpart is None else tuple(counterpart)
    return Sample(as_text(row["id"], "id", where, SequenceError), tuple(tokens), start, length, instead)


def _are_tokens(value: object) -> bool:
    return isinstance(value, list) and all(type(token) is int for token in value)


def by_length(samples: Sequence[Sample], batch_size: int) -> list[list[int]]:
    """Indices of samples in batches of like length, the same for the same samples and size."""
    order = sorted(range(len(samples)), key=lambda i: (len(samples[i].fed), i))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def read_samples(path: Path) -> list[Sample]:
    """The samples of a JSONL file.

    Raises:
        SequenceError: the file is missing, empty or not text, a line is not a sample (it is named), or an id repeats.
    """
    samples = [_sample(row, where) for where, row in read_rows(path, SequenceError)]
    if not samples:
        raise SequenceError(f"{path} holds no sequences.", "Give it at least one line.")
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise SequenceError(f"{path} has the id '{sample.id}' twice.", "Ids must be unique.")
        seen.add(sample.id)
    return samples


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples as JSONL."""
    rows = ({name: value for name, value in asdict(sample).items() if value is not None} for sample in samples)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
