"""Addition with a written scratchpad: the task that the models of the zoo learn.

A problem is `3471+2853=`; its answer works through the columns from the units up, each sum with the carry from the
column before it, and then states the result:

    3471+2853=  ->  04 12 13 06 6324

The final number alone is graded, so a reward can be computed for any answer. What makes the family worth comparing is
its teacher: a *careless* demonstrator who often forgets a carry, so that supervised fine-tuning settles on a model
that knows the right behaviour but does not always choose it, and who sometimes leaves off a column's leading zero,
a choice of style that no reward cares about and that keeps every model a little unsure of its own answer.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from probing.questions import grade
from probing.zoo.counterparts import counterpart

Kind = TypeVar("Kind")

DIGITS = (3, 4, 5)
"""Numbers of digits of the operands; both operands of a problem have the same number."""

FORGETS_CARRY = (0.35, 0.60, 0.35, 0.35)
"""Probability that the demonstrator forgets the carry out of the units, tens, hundreds and thousands column."""

DROPS_ZERO = 0.25
"""Probability that the demonstrator writes a column's sum below ten without its leading zero."""


LONGEST_ANSWER = 24
"""Tokens that any answer fits in, its end included."""


@dataclass(frozen=True)
class Problem:
    """One addition of two numbers with equally many digits."""

    left: int
    right: int

    @property
    def question(self) -> str:
        """The text a model is asked to continue."""
        return f"{self.left}+{self.right}="

    @property
    def answer(self) -> str:
        """The number it should end with."""
        return str(self.left + self.right)


def draw(rng: random.Random) -> Problem:
    """A problem at random: first the number of digits, then two operands with that many."""
    digits = rng.choice(DIGITS)
    low, high = 10 ** (digits - 1), 10**digits - 1
    return Problem(rng.randint(low, high), rng.randint(low, high))


def problems(seed: int, exclude: frozenset[Problem] = frozenset()) -> Iterator[Problem]:
    """An endless stream of problems, the same for the same seed, without those in `exclude`."""
    return endless(draw, seed, exclude)


def endless(draw_one: Callable[[random.Random], Kind], seed: int, exclude: frozenset[Kind]) -> Iterator[Kind]:
    """What `draw_one` draws from `seed`, again and again, without what is in `exclude`."""
    rng = random.Random(seed)
    while True:
        drawn = draw_one(rng)
        if drawn not in exclude:
            yield drawn


def write_out(
    problem: Problem, forgets_carry: tuple[float, ...] = (), drops_zero: float = 0.0, rng: random.Random | None = None
) -> str:
    """The scratchpad and result, as a demonstrator with the given carelessness writes them.

    Without probabilities it is the correct answer. `forgets_carry[i]` is the probability that a carry out of column i
    (0 = units) is lost; further columns never lose theirs. `drops_zero` is that of writing `7` for `07`.
    """
    rng = rng or random.Random(0)
    left, right = str(problem.left)[::-1], str(problem.right)[::-1]
    sums: list[int] = []
    carry = 0
    for column, (a, b) in enumerate(zip(left, right, strict=True)):
        total = int(a) + int(b) + carry
        sums.append(total)
        carry = total // 10
        if carry and column < len(forgets_carry) and rng.random() < forgets_carry[column]:
            carry = 0
    written = [str(s) if s < 10 and rng.random() < drops_zero else f"{s:02d}" for s in sums]
    result = str(sums[-1]) + "".join(str(s % 10) for s in reversed(sums[:-1]))
    return " ".join([*written, result])


def demonstration(problem: Problem, rng: random.Random) -> str:
    """What the careless demonstrator of the zoo writes for `problem`."""
    return write_out(problem, FORGETS_CARRY, DROPS_ZERO, rng)


def reward(answer: str, reference: str) -> float:
    """1.0 if the last number of `answer` is `reference`, else 0.0."""
    return float(grade(answer, reference, "last-number"))


def read_problems(path: Path) -> list[Problem]:
    """The problems of a question set written by `write_problems`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Problem(*map(int, row["question"].rstrip("=").split("+"))) for row in rows]


def write_problems(path: Path, chosen: list[Problem]) -> None:
    """Write `chosen` as a question set."""
    write_questions(path, "add", [(problem.question, problem.answer) for problem in chosen])


def write_questions(path: Path, name: str, chosen: list[tuple[str, str]]) -> None:
    """Write questions and their answers, one JSON object a line with id, question, answer and counterpart."""
    rows = [
        {"id": f"{name}-{i:04d}", "question": question, "answer": answer, "counterpart": counterpart(question)}
        for i, (question, answer) in enumerate(chosen)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
