"""Finished batches on their way into the store, as files beside it.

A worker writes a batch under a temporary name, flushes it to disk and renames it; from then on it survives the death
of any process. The store's owner ingests each file in one transaction and deletes it. Ingesting a file twice changes
nothing, so a crash between the two is harmless. What a file holds, its name says.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from jaxtyping import Float

from probing.errors import StoreError
from probing.rollouts import Answer
from probing.store.files import private


class Batch(Protocol):
    """What can be put into a spool."""

    @property
    def file_name(self) -> str:
        """Of the file that it goes into: what kind of batch it is, then whose, then which."""

    def write(self, file: IO[bytes]) -> None:
        """Write it."""

    @staticmethod
    def read(path: Path) -> "Batch":
        """What `write` wrote."""


@dataclass(frozen=True)
class AnswerBatch:
    """Answers of one rollout, with each question's place in its set, its text and prompt."""

    rollout_key: str
    positions: tuple[int, ...]
    questions: tuple[str, ...]
    references: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: tuple[Answer, ...]
    prompt_pieces: tuple[tuple[str, ...], ...]
    answer_pieces: tuple[tuple[str, ...], ...]
    """The text of each token."""

    @property
    def file_name(self) -> str:
        """Sorts as the questions do."""
        return f"answers-{self.rollout_key}-{self.positions[0]:06d}.json"

    def write(self, file: IO[bytes]) -> None:
        """As JSON."""
        file.write(json.dumps(asdict(self)).encode())

    @staticmethod
    def read(path: Path) -> "AnswerBatch":
        """What `write` wrote."""
        row = json.loads(path.read_text())
        answers = tuple(
            Answer(a["question_id"], tuple(a["prompt_tokens"]), tuple(a["tokens"]), a["text"], a["correct"])
            for a in row["answers"]
        )
        positions, *texts = (tuple(row[name]) for name in ("positions", "questions", "references", "prompts"))
        questions, references, prompts = texts
        pieces = (tuple(map(tuple, row[name])) for name in ("prompt_pieces", "answer_pieces"))
        return AnswerBatch(row["rollout_key"], positions, questions, references, prompts, answers, *pieces)


@dataclass(frozen=True)
class ScoreBatch:
    """Scores of some samples of one run, over the edges in canonical order."""

    run_key: str
    ids: tuple[str, ...]
    loss: Float[np.ndarray, " sample"]
    scores: Float[np.ndarray, "sample edge"]

    @property
    def file_name(self) -> str:
        """That of its run and first sample."""
        return f"scores-{self.run_key}-{_short(self.ids[0])}.npz"

    def write(self, file: IO[bytes]) -> None:
        """As arrays."""
        np.savez(file, key=self.run_key, ids=np.array(self.ids), loss=self.loss, scores=self.scores)

    @staticmethod
    def read(path: Path) -> "ScoreBatch":
        """What `write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return ScoreBatch(str(file["key"]), tuple(map(str, file["ids"])), file["loss"], file["scores"])


@dataclass(frozen=True)
class PositionBatch:
    """The scores of one sample of a run at every position, over the edges in canonical order."""

    run_key: str
    question_id: str
    scores: Float[np.ndarray, "position edge"]

    @property
    def file_name(self) -> str:
        """That of its run and sample."""
        return f"positions-{self.run_key}-{_short(self.question_id)}.npz"

    def write(self, file: IO[bytes]) -> None:
        """As arrays."""
        np.savez(file, key=self.run_key, id=self.question_id, scores=self.scores)

    @staticmethod
    def read(path: Path) -> "PositionBatch":
        """What `write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return PositionBatch(str(file["key"]), str(file["id"]), file["scores"])


@dataclass(frozen=True)
class MeasurementBatch:
    """What some units of one evaluation measured, by measure, over the evaluation's questions in their order."""

    evaluation_key: str
    units: tuple[str, ...]
    values: dict[str, Float[np.ndarray, "unit id"]]

    @property
    def file_name(self) -> str:
        """That of its evaluation and first unit."""
        return f"measurements-{self.evaluation_key}-{_short(self.units[0])}.npz"

    def write(self, file: IO[bytes]) -> None:
        """As arrays, the measures one above the other."""
        names, values = np.array(list(self.values)), np.stack(list(self.values.values()))
        np.savez(file, key=self.evaluation_key, units=np.array(self.units), measures=names, values=values)

    @staticmethod
    def read(path: Path) -> "MeasurementBatch":
        """What `write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            values = dict(zip(map(str, file["measures"]), file["values"], strict=True))
            return MeasurementBatch(str(file["key"]), tuple(map(str, file["units"])), values)


_BATCHES: dict[str, type[Batch]] = {
    "answers": AnswerBatch, "scores": ScoreBatch, "positions": PositionBatch, "measurements": MeasurementBatch,
}  # fmt: skip
"""By the word that a file's name begins with."""


def _short(name: str) -> str:
    """Stands in a file's name for one that may be long, and hold any character."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


class Spool:
    """The folder of batches that belongs to a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store.with_name(store.name + ".spool")

    def put(self, batch: Batch) -> None:
        """Write a batch durably.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        target = self.folder / batch.file_name
        part = target.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with private(part, "wb") as file:
                batch.write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreError(
                f"Cannot write to {self.folder}: {error.strerror}.", "Free some space or check its permissions."
            ) from error

    def waiting(self) -> Iterator[tuple[Path, Batch]]:
        """The finished batches, oldest name first; a damaged file is renamed and passed over."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            if path.suffix not in (".npz", ".json"):
                continue
            try:
                yield path, _BATCHES[path.name.partition("-")[0]].read(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
                path.replace(path.with_suffix(path.suffix + ".damaged"))
