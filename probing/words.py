"""How numbers and their intervals are printed."""

import math

import numpy as np

from probing.metrics import FALSE_DISCOVERIES, Agreement, Estimate


def with_interval(estimate: Estimate, digits: str) -> str:
    """A number with its interval, as far as there are such."""
    if not np.isfinite(estimate.value):
        return "–"
    return f"{estimate.value:{digits}} {interval(estimate, digits)}"


def interval(estimate: Estimate, digits: str) -> str:
    """A number's interval in brackets, if it has one."""
    if not np.isfinite([estimate.low, estimate.high]).all():
        return "(no interval)"
    return f"({span(estimate.low, estimate.high, digits)})"


def span(low: float, high: float, digits: str) -> str:
    """From the lowest to the highest."""
    return f"{low:{digits}} to {high:{digits}}"


def of_agreement(found: Agreement) -> tuple[str, str, str]:
    """How far scores agree with reality: in rank, signs and size, each with its interval."""
    return with_interval(found.rank, ".2f"), with_interval(found.sign, ".0%"), with_interval(found.size, ".3g")


def changed(q: float) -> str:
    """Whether an edge changed, by its q-value over all edges."""
    if math.isnan(q):
        return "not tested: summarised by an earlier version"
    return f"{'changed' if q <= FALSE_DISCOVERIES else 'not changed'} (q = {q:.2g} over all edges)"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, length in (("years", 365 * 86_400), ("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} seconds"
