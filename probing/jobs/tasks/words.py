"""How numbers are printed."""

import numpy as np

from probing.metrics import Estimate


def with_interval(estimate: Estimate, digits: str) -> str:
    """A number with its interval, as far as there are such."""
    if not np.isfinite(estimate.value):
        return "–"
    if not np.isfinite([estimate.low, estimate.high]).all():
        return f"{estimate.value:{digits}} (no interval)"
    return f"{estimate.value:{digits}} ({estimate.low:{digits}} to {estimate.high:{digits}})"
