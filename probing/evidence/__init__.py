"""What speaks for or against a comparison's numbers, of what a store has: nothing is computed here by a model.

`removed` gathers what is known of edges that were really removed, wherever that was found out; `checks` holds estimates
against it.
"""

from probing.evidence.checks import VERDICTS, Verdict, checked
from probing.evidence.removed import Removed, removed

__all__ = ["VERDICTS", "Removed", "Verdict", "checked", "removed"]
