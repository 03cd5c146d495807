"""Finished batches on their way into the store, as files beside it.

A worker writes a batch under a temporary name, flushes it to disk and renames it; from then on it survives the death
of any process. The store's owner ingests each file in one transaction and deletes it. Ingesting a file twice changes
nothing, so a crash between the two is harmless.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from probing.errors import StoreError
from probing.rollouts import Answer
from probing.store.files import private


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


@dataclass(frozen=True)
class ScoreBatch:
    """Scores of some samples of one run, over the edges in canonical order."""

    run_key: str
    ids: tuple[str, ...]
    loss: Float[np.ndarray, " sample"]
    scores: Float[np.ndarray, "sample edge"]


class Spool:
    """The folder of batches that belongs to a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store.with_name(store.name + ".spool")

    def put(self, batch: AnswerBatch | ScoreBatch) -> None:
        """Write a batch durably.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        if isinstance(batch, ScoreBatch):
            first = hashlib.sha256(batch.ids[0].encode()).hexdigest()[:16]  # ids may be long, and hold any character
            name = f"scores-{batch.run_key}-{first}.npz"
        else:
            name = f"answers-{batch.rollout_key}-{batch.positions[0]:06d}.json"
        target = self.folder / name
        part = target.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with private(part, "wb") as file:
                if isinstance(batch, ScoreBatch):
                    np.savez(file, key=batch.run_key, ids=np.array(batch.ids), loss=batch.loss, scores=batch.scores)
                else:
                    file.write(json.dumps(asdict(batch)).encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreError(
                f"Cannot write to {self.folder}: {error.strerror}.", "Free some space or check its permissions."
            ) from error

    def waiting(self) -> Iterator[tuple[Path, AnswerBatch | ScoreBatch]]:
        """The finished batches, oldest name first; a damaged file is renamed and passed over."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            if path.suffix not in (".npz", ".json"):
                continue
            try:
                yield path, _read(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
                path.replace(path.with_suffix(path.suffix + ".damaged"))


def _read(path: Path) -> AnswerBatch | ScoreBatch:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            ids = tuple(map(str, file["ids"]))
            return ScoreBatch(str(file["key"]), ids, file["loss"], file["scores"])
    row = json.loads(path.read_text())
    answers = tuple(
        Answer(a["question_id"], tuple(a["prompt_tokens"]), tuple(a["tokens"]), a["text"], a["correct"])
        for a in row["answers"]
    )
    positions, *texts = (tuple(row[name]) for name in ("positions", "questions", "references", "prompts"))
    questions, references, prompts = texts
    pieces = (tuple(map(tuple, row[name])) for name in ("prompt_pieces", "answer_pieces"))
    return AnswerBatch(row["rollout_key"], positions, questions, references, prompts, answers, *pieces)
