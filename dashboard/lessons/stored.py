"""What the store says of the pair that the lessons are about."""

from dashboard import data, seeds
from dashboard.lessons.live import PAIR
from dashboard.pattern import Told
from dashboard.view import PAPER, method_of, rules, seeds_among
from probing.method import Method
from probing.pairs import load_registry
from probing.rollouts import Criteria

_METHODS = (Method(), Method(path="norm-exact", loss="margin"))
"""The paper's, and the one that does not shrink with confidence."""


def told() -> list[Told]:
    """The pair's comparison by the paper's definition and by the margin, with seed bands; what a fresh store does not
    have is left out."""
    usual, pair = Criteria(), load_registry().pairs[PAIR]
    found = []
    for method in _METHODS:
        named = ", ".join(method.words) or PAPER
        alike = [
            row
            for row in data.comparison_rows()
            if row.ready and (row.at, row.cohort, rules(row)) == (usual.at, usual.cohort, named)
        ]
        own = next((row for row in alike if row.pair == pair.name), None)
        if own is not None and (compared := data.compared(own.comparison_key)):
            bands = seeds.bands_of(seeds_among(alike, pair, usual.at))
            found.append(Told(method_of(own), compared, bands))
    return found
