"""Short word problems with one operation: what the language model of the zoo is tuned on.

A problem is a question in words; the prompt shows three solved ones before it, so that a small pretrained model knows
what to write: the equation, on one line. The last number of that line is graded, so a reward can be computed for any
answer. Operations, numbers, names and things are drawn at random; which words go with which operation is what the
model gets wrong most often.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probing.zoo.task import endless, write_questions

NAMES = ("Sam", "Mia", "Tom", "Ana", "Leo", "Eva", "Max", "Zoe", "Ben", "Ivy")
THINGS = ("apples", "books", "coins", "cards", "shells", "pens", "stamps", "eggs", "marbles", "cookies")

STORIES = (
    ("+", "{n} has {a} {t} and buys {b} more. How many {t} does {n} have now?"),
    ("+", "{n} has {a} {t}. {m} has {b} more {t} than {n}. How many {t} does {m} have?"),
    ("+", "{n} found {a} {t} and {m} found {b} {t}. How many {t} did they find together?"),
    ("-", "{n} has {a} {t} and gives {b} of them away. How many {t} does {n} have left?"),
    ("-", "There are {a} {t} on the table. {n} takes {b} of them. How many {t} are on the table now?"),
    ("-", "{n} has {a} {t} and {m} has {b}. How many more {t} does {n} have?"),
    ("*", "{n} has {a} bags with {b} {t} in each bag. How many {t} does {n} have?"),
)
"""What can happen, and the operation that answers it."""

SOLVED = (
    ("Jo has 3 cups and finds 4 more. How many cups does Jo have now?", "3 + 4 = 7"),
    ("There are 9 cups in the room. Al takes 2 of them. How many are left?", "9 - 2 = 7"),
    ("Jo has 2 rows with 5 cups in each row. How many cups does Jo have?", "2 * 5 = 10"),
)
"""The examples in the prompt; their names and things occur in no problem."""

PREFIX = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in SOLVED)
TEMPLATE = PREFIX + "Q: {q}\nA:"
STOP = "\n"
"""An answer ends with its first line."""

LONGEST_ANSWER = 16
"""Tokens at which an answer is cut off."""


@dataclass(frozen=True)
class Problem:
    """A question in words and the number that answers it."""

    question: str
    answer: str


def draw(rng: random.Random) -> Problem:
    """A problem at random: first the story, then its people, things and numbers."""
    operation, story = rng.choice(STORIES)
    n, m = rng.sample(NAMES, 2)
    a, b = (rng.randint(2, 9), rng.randint(2, 9)) if operation == "*" else (rng.randint(2, 20), rng.randint(2, 20))
    if operation == "-":
        a += b
    answer = {"+": a + b, "-": a - b, "*": a * b}[operation]
    return Problem(story.format(n=n, m=m, t=rng.choice(THINGS), a=a, b=b), str(answer))


def problems(seed: int, exclude: frozenset[Problem] = frozenset()) -> Iterator[Problem]:
    """An endless stream of problems, the same for the same seed, without those in `exclude`."""
    return endless(draw, seed, exclude)


def read_problems(path: Path) -> list[Problem]:
    """The problems of a question set written by `write_problems`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Problem(row["question"], row["answer"]) for row in rows]


def write_problems(path: Path, chosen: list[Problem]) -> None:
    """Write `chosen` as a question set."""
    write_questions(path, "word", [(problem.question, problem.answer) for problem in chosen])
