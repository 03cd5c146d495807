"""Two models that answer while somebody waits: what is asked, what comes back, and the process that does it.

`experiment` says what travels.
"""

from probing.playground.experiment import Change, Chosen, Experiment, Kind, Outcome, PlaygroundError, Said, Side

__all__ = ["Change", "Chosen", "Experiment", "Kind", "Outcome", "PlaygroundError", "Said", "Side"]
