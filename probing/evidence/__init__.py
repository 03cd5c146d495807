"""What speaks for or against a comparison's numbers, of what a store has: nothing is computed here by a model.

`removed` gathers what is known of edges that were really removed, wherever that was found out; `checks` holds estimates
against it, `audit` says how well they do on the whole, and `stability` how far the strongest edges stay the same.
`everywhere` follows one edge through many runs, and `paired` makes an edge table of real effects.
"""

from probing.evidence.audit import Audit, audit, best, groups
from probing.evidence.checks import VERDICTS, Verdict, checked, judged
from probing.evidence.everywhere import QUANTITIES, everywhere
from probing.evidence.paired import in_both
from probing.evidence.removed import Removed, removed
from probing.evidence.stability import Overlap, by_chance, largest, overlap

__all__ = [
    "QUANTITIES", "VERDICTS", "Audit", "Overlap", "Removed", "Verdict", "audit", "best", "by_chance", "checked",
    "everywhere", "groups", "in_both", "judged", "largest", "overlap", "removed",
]  # fmt: skip
