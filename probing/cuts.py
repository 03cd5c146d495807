"""Where answers are cut: a value that is a share α of their mean length, or a number of tokens.

Both are an amount of a unit, T̄ or one token, so that T_cut = max(1, ⌊amount · unit⌋) is all that anybody needs to know
of either. As text a share is its number and tokens are counted ("0.3", "3 tokens"): so they stand in addresses. What
JSON holds of a share is the number alone, as ever, so that keys and stored settings are those of earlier versions.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from probing.errors import SelectionError

Unit = Literal["alpha", "tokens"]

_TOKENS = re.compile(r"([1-9]\d{0,5}) tokens?")

MOST_TOKENS = 999_999
"""The longest cut that can be written."""


@dataclass(frozen=True, order=True)
class Cut:
    """The part of an answer, from its start, that is scored. In order: shares, then numbers of tokens."""

    amount: float
    unit: Unit = "alpha"

    def __post_init__(self) -> None:
        """Refuse what is no cut, in a sentence."""
        if self.unit == "alpha" and not 0 < self.amount <= 1:
            raise SelectionError("The selection's alpha cannot be used.", "Needed: 0 < alpha <= 1.")
        if self.unit == "tokens" and not (1 <= self.amount <= MOST_TOKENS and self.amount == int(self.amount)):
            raise SelectionError(
                "The selection's tokens cannot be used.", f"Needed: a whole number from 1 to {MOST_TOKENS:,}."
            )

    def tokens_of(self, mean_length: float | Fraction) -> int:
        """T_cut, of answers that are so long on average."""
        amount = Fraction(str(self.amount))
        return max(1, math.floor(amount * Fraction(mean_length) if self.unit == "alpha" else amount))

    def __str__(self) -> str:
        """As it stands in an address or a list: `0.3`, `3 tokens`."""
        return repr(float(self.amount)).removesuffix(".0") if self.unit == "alpha" else counted(int(self.amount))

    @property
    def words(self) -> str:
        """As it stands in a sentence."""
        return f"α = {self}" if self.unit == "alpha" else first(int(self.amount))

    @property
    def short(self) -> str:
        """As it stands in the name of a stage or at the start of a line."""
        return f"α {self}" if self.unit == "alpha" else first(int(self.amount))

    def as_json(self) -> float | str:
        """A share is a number; tokens are text."""
        return float(self.amount) if self.unit == "alpha" else str(self)

    @staticmethod
    def from_json(value: float | str) -> "Cut":
        """The cut that `as_json` or `str` gave.

        Raises:
            SelectionError: it is no cut.
        """
        if isinstance(value, str) and (found := _TOKENS.fullmatch(value)):
            return Cut(int(found[1]), "tokens")
        try:
            return Cut(float(value))
        except ValueError:
            raise SelectionError(
                f"'{str(value)[:40]}' is no cut.", "A cut is a share such as 0.3, or tokens such as '3 tokens'."
            ) from None


def cut_of(alpha: float | None, tokens: float | None) -> Cut | None:
    """The cut that two columns of a table hold, one of which is empty; None where both are."""
    for amount, unit in ((alpha, "alpha"), (tokens, "tokens")):
        if amount is not None and not math.isnan(amount):
            return Cut(amount, unit)  # type: ignore[arg-type]
    return None


def counted(tokens: int) -> str:
    """So many tokens."""
    return f"{tokens} token{'s' if tokens != 1 else ''}"


def first(tokens: int) -> str:
    """The first so many tokens."""
    return "first token" if tokens == 1 else f"first {counted(tokens)}"


def listed(cuts: Sequence[Cut]) -> str:
    """Several cuts, one after the other: `α 0.03, 0.1, first 3 tokens`."""
    return ", ".join(filter(None, (_shares(cuts, "α "), *(cut.words for cut in cuts if cut.unit == "tokens"))))


def as_one(cuts: Sequence[Cut], tokens: int | None, sign: str = "") -> str:
    """Cuts that all come to the same number of tokens, where that is known: `0.03, 0.1: first token`.

    A cut that is given in tokens says nothing else than that. The `sign` of shares stands before them.
    """
    if tokens is None:
        return ", ".join(map(str, cuts))
    return ": ".join(filter(None, (_shares(cuts, sign), first(tokens))))


def _shares(cuts: Sequence[Cut], sign: str) -> str:
    shares = [str(cut) for cut in cuts if cut.unit == "alpha"]
    return sign + ", ".join(shares) if shares else ""
