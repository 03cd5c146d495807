"""What speaks for or against a comparison's numbers, of what a store has: nothing is computed here by a model.

`removed` gathers what is known of edges that were really removed, wherever that was found out; `checks` holds estimates
against it, `audit` says how well they do on the whole, `intensity` from the edges of a check how large all effects are,
and `stability` how far the strongest edges stay the same. `everywhere` follows one edge through many runs, `paired`
makes an edge table of real effects, and `transplants` says which of a pair's transplants speak.
"""

from probing.evidence.audit import Audit, audit, best, groups
from probing.evidence.checks import VERDICTS, Verdict, checked, judged
from probing.evidence.everywhere import QUANTITIES, everywhere
from probing.evidence.intensity import sampled_intensity
from probing.evidence.paired import in_both
from probing.evidence.removed import Removed, removed
from probing.evidence.stability import Overlap, by_chance, largest, overlap
from probing.evidence.transplants import by_direction, speaking

__all__ = [
    "QUANTITIES", "VERDICTS", "Audit", "Overlap", "Removed", "Verdict", "audit", "best", "by_chance", "by_direction",
    "checked", "everywhere", "groups", "in_both", "judged", "largest", "overlap", "removed", "sampled_intensity",
    "speaking",
]  # fmt: skip
