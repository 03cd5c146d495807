"""Two models that answer while somebody waits: what is asked, what comes back, and the process that does it.

`experiment` says what travels. `door` is the way to the process, for those who load no model themselves; `server` is
that process, `engine` what it does, and `speaking` how one model answers with some of its edges removed.
"""

from probing.playground.door import Door, Limits
from probing.playground.experiment import Change, Chosen, Experiment, Kind, Outcome, PlaygroundError, Said, Side

__all__ = [
    "Change",
    "Chosen",
    "Door",
    "Experiment",
    "Kind",
    "Limits",
    "Outcome",
    "PlaygroundError",
    "Said",
    "Side",
]
