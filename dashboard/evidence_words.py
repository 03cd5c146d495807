"""Sentences of the page Evidence, made from numbers."""

from collections.abc import Mapping, Sequence

from probing.evidence import Audit, Overlap
from probing.figures.theme import percent
from probing.jobs.tasks.circuit import FAITHFUL, Kept
from probing.metrics import Agreement
from probing.words import of_agreement


def agreement_cells(found: Agreement | None) -> dict[str, str]:
    """The numbers of an agreement, each with its interval."""
    cells = ("not checked",) * 3 if found is None else of_agreement(found)
    return dict(zip(("Rank", "Signs", "Size"), cells, strict=True))


def audited(audits: Mapping[str, Audit]) -> str:
    """What removing the strongest edges says of their estimates."""
    clauses = []
    for side, found in audits.items():
        said = found.table.loc[found.table["group"] == "strongest", "verdict"]
        clauses.append(
            f"in {side} **{(said == 'confirmed').sum()} of {len(said)}** are confirmed, {(said == 'opposite').sum()} "
            f"opposite and {(said == 'overestimated').sum()} overestimated"
        )
    return f"Of the strongest edges, {'; '.join(clauses)}."


def best_method(best: str, methods: Mapping[str, Sequence[Audit]]) -> str:
    """Which method's scores rank edges most as reality does, and whether its signs are right too; the methods come in
    the order of their ranks."""
    others = [name for name in methods if name != best]
    rank, right = (_of(methods[best], measure) for measure in ("rank", "sign"))
    if not others:
        return f"Only **{best}** was checked here: its ranks agree with reality's by {rank}, and {right} of its signs."
    sentence = f"**{_capital(best)}** ranks edges most as reality does here: {rank}; next comes {others[0]} with "
    sentence += f"{_of(methods[others[0]], 'rank')}. Its signs are right for {right} of the edges"
    signs = {name: sum(_agreement(found).sign.value for found in both) / len(both) for name, both in methods.items()}
    surest = max(signs, key=lambda name: signs[name])
    better = f", those of {surest} for {_of(methods[surest], 'sign')}" if surest != best else ""
    return f"{sentence}{better}."


def _of(both: Sequence[Audit], measure: str) -> str:
    """The numbers of both models."""
    values = [getattr(_agreement(found), measure).value for found in both]
    return " and ".join(percent(value, signed=False) if measure == "sign" else f"{value:.2f}" for value in values)


def _agreement(found: Audit) -> Agreement:
    """Over all edges, or those that were drawn, of which there are some."""
    assert found.overall is not None
    return found.overall


def needed(of: Mapping[str, Kept]) -> str:
    """How many edges it takes to keep most of each model, of its own circuits and of the other's."""
    share = percent(FAITHFUL, signed=False)
    clauses = []
    for side, found in of.items():
        own, *others = found.curves
        clause = f"{side} needs **{_edges(found, own)} of {found.edges:,} edges** of its own circuits"
        clauses.append(clause + "".join(f", {_edges(found, other)} of {other}'s" for other in others))
    return f"To keep {share} of its margin, {'; '.join(clauses)}."


def _edges(found: Kept, whose: str) -> str:
    """The first size that keeps enough; where that is the model itself, what the largest circuit had that did not."""
    size, sizes = found.needed(whose), found.sizes[whose]
    if size is None:
        return "an unknown number"
    return f"{size:,}" if size < found.edges else f"more than {sizes[-2]:,}"


def stable(n: int, within: Overlap, tuned: Overlap, seeds: Sequence[Overlap], chance: float) -> str:
    """How far the strongest edges of base and tuned are the same, and what other questions, seeds and chance leave."""
    between = f"base and tuned share {_at(tuned, n)}"
    seed = f", the base and other seeds {' and '.join(_at(one, n) for one in seeds)}" if seeds else ""
    noise = f"two draws of the base's own questions {_at(within, n)}"
    by_chance = f"chance {percent(chance, signed=False)}"
    return f"Of the edges that are among the {n} strongest of either, {between}; {noise}{seed}; {by_chance}."


def _at(found: Overlap, n: int) -> str:
    return percent(found.mean[n - 1], signed=False)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
