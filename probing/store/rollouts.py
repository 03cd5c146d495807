"""What models answered."""

import json
from typing import Any

import duckdb
import pyarrow as pa

from probing.rollouts import Answer
from probing.store.connection import FINISH, Connection, insert, now
from probing.store.spool import AnswerBatch


class Rollouts:
    """The answers of a model to a question set, by the key of all that decides them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(
        self, key: str, model: str, identity: str, question_set: str, settings: dict[str, Any], questions: int,
        batch_size: int,
    ) -> int:  # fmt: skip
        """Enter a rollout of `questions` questions, unless it is there; returns the size of its batches, which one that
        is resumed keeps."""
        row = {
            "rollout_key": key, "model": model, "identity": identity, "question_set": question_set,
            "settings": json.dumps(settings), "questions": questions, "batch_size": batch_size, "created": now(),
        }  # fmt: skip
        with self._connection.transaction() as cursor:
            insert(cursor, "rollouts", {name: [value] for name, value in row.items()})
            settle = "UPDATE rollouts SET batch_size = ? WHERE rollout_key = ? AND batch_size IS NULL"
            cursor.execute(settle, [batch_size, key])  # of an earlier version, which did not keep it
            find = "SELECT batch_size FROM rollouts WHERE rollout_key = ?"
            ((size,),) = cursor.execute(find, [key]).fetchall()
        return int(size)

    def finish(self, key: str, provenance: dict[str, Any], seconds: float) -> None:
        """Mark a rollout as complete, or say with what it was made where nobody has (`FINISH`)."""
        with self._connection.transaction() as cursor:
            values = [json.dumps(provenance), seconds, now(), key]
            cursor.execute(f"UPDATE rollouts SET {FINISH} WHERE rollout_key = $4", values)

    def finished(self, key: str) -> bool:
        """Whether every answer of the rollout is there."""
        sql = "SELECT 1 FROM rollouts WHERE rollout_key = ? AND finished IS NOT NULL"
        return bool(self._connection.rows(sql, key))

    def provenance(self, key: str) -> dict[str, Any]:
        """With what a rollout was made; empty before it is finished."""
        rows = self._connection.rows("SELECT provenance FROM rollouts WHERE rollout_key = ?", key)
        return json.loads(rows[0][0]) if rows and rows[0][0] else {}

    def answered(self, key: str) -> set[str]:
        """The questions of a rollout that have been answered."""
        return {row[0] for row in self._connection.rows("SELECT question_id FROM answers WHERE rollout_key = ?", key)}

    def answers(self, key: str) -> list[Answer]:
        """The answers of a rollout in the order of its question set."""
        rows = self._connection.rows(
            "SELECT question_id, prompt_tokens, answer_tokens, answer, correct FROM answers "
            "WHERE rollout_key = ? ORDER BY position",
            key,
        )
        return [Answer(i, tuple(prompt), tuple(tokens), text, correct) for i, prompt, tokens, text, correct in rows]

    def texts(self, key: str) -> dict[str, str]:
        """The text of each question of a rollout, by its id."""
        return dict(self._connection.rows("SELECT question_id, question FROM answers WHERE rollout_key = ?", key))


def insert_answers(cursor: duckdb.DuckDBPyConnection, batch: AnswerBatch) -> None:
    """Take in a batch; answers that are there already stay as they are."""
    tokens = pa.list_(pa.int32())
    columns = {
        "rollout_key": [batch.rollout_key] * len(batch.answers),
        "position": list(batch.positions),
        "question_id": [a.question_id for a in batch.answers],
        "question": list(batch.questions),
        "reference": list(batch.references),
        "prompt": list(batch.prompts),
        "prompt_tokens": pa.array([a.prompt_tokens for a in batch.answers], tokens),
        "answer_tokens": pa.array([a.tokens for a in batch.answers], tokens),
        "answer": [a.text for a in batch.answers],
        "correct": [a.correct for a in batch.answers],
        "prompt_pieces": pa.array(batch.prompt_pieces, pa.list_(pa.string())),
        "answer_pieces": pa.array(batch.answer_pieces, pa.list_(pa.string())),
    }
    insert(cursor, "answers", columns)
