"""Counterparts of the zoo's questions: the same words about other numbers, of as many digits and so as many tokens."""

import random
import re
from itertools import pairwise, zip_longest

_NUMBER = re.compile(r"\d+")


def counterpart(question: str) -> str:
    """The question with every number replaced by another of as many digits, in the same order of size.

    Equal questions have equal counterparts.
    """
    numbers = [found[0] for found in _NUMBER.finditer(question)]
    rng = random.Random(question)
    order = _order(numbers)
    while True:
        drawn = [str(rng.randint(max(1, 10 ** (len(old) - 1)), 10 ** len(old) - 1)) for old in numbers]
        if _order(drawn) == order and all(new != old for new, old in zip(drawn, numbers, strict=True)):
            words = _NUMBER.split(question)
            return "".join(part for pair in zip_longest(words, drawn, fillvalue="") for part in pair)


def _order(numbers: list[str]) -> list[bool]:
    """Of each number and the next, whether it is the smaller."""
    return [int(one) < int(other) for one, other in pairwise(numbers)]
