"""What the paper reports, for the comparisons that it made: data/published.toml."""

import tomllib
from dataclasses import dataclass
from functools import lru_cache

from probing.cuts import Cut
from probing.pairs import DATA, Pair


@dataclass(frozen=True)
class Published:
    """One row of the paper's table; metrics map to the values of base and tuned."""

    base: str
    tuned: str
    questions: str
    at: Cut
    metrics: dict[str, tuple[float, float]]


@lru_cache(maxsize=1)
def _rows() -> list[Published]:
    content = tomllib.loads((DATA / "published.toml").read_text(encoding="utf-8"))
    rows = []
    for row in content["row"]:
        where = {name: row.pop(name) for name in ("base", "tuned", "questions")}
        at = Cut(row.pop("alpha"))
        metrics = {metric: (values[0], values[1]) for metric, values in row.items()}
        rows.append(Published(**where, at=at, metrics=metrics))
    return rows


def published(pair: Pair, questions_title: str, at: Cut | None = None) -> list[Published]:
    """The paper's rows for a pair of models and a question set, by its title; at one cut or at all."""
    return [
        row
        for row in _rows()
        if (row.base, row.tuned, row.questions) == (pair.base, pair.tuned, questions_title) and at in (None, row.at)
    ]
