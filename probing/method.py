"""How scores are made, as a value: it goes into keys and, separately, into words."""

from dataclasses import asdict, dataclass
from typing import Any

from probing.graph import Granularity

SCORES_VERSION = 1
"""Raised when the code that selects and scores changes its results."""

_WORDS: dict[Granularity, str] = {"blocks": "attention blocks as one reader", "heads": "heads apart"}
"""What granularities other than the paper's are called."""


@dataclass(frozen=True)
class Method:
    """Edge attribution patching, -<dL/dreader, writer>: against a `reference` of zero."""

    granularity: Granularity = "projections"
    method: str = "eap"
    reference: str = "zero"
    version: int = SCORES_VERSION

    def as_json(self) -> dict[str, Any]:
        """What goes into keys, and what the store keeps of it."""
        return asdict(self)

    @staticmethod
    def from_json(row: dict[str, Any]) -> "Method":
        """The method that `as_json` gave; what an earlier version did not say of its own is as it was then."""
        return Method(**row)

    @property
    def words(self) -> list[str]:
        """In what it differs from the paper's."""
        return [_WORDS[self.granularity]] if self.granularity in _WORDS else []
