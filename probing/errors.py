"""Errors that a person can cause, as opposed to faults of the program.

Each carries one sentence of what happened and one of what to do about it. The command line prints them on stderr
and exits with code 2; pages show them as messages. Anything else that is raised is a bug.
"""

LONGEST = 500
"""Characters of what happened, where a file's own words are in it."""

QUOTED = 300
"""Characters of a library's words within a sentence of ours."""


class PersonError(Exception):
    """Something a person can put right: `what` happened, and the `remedy`; each on one line, whatever is quoted."""

    def __init__(self, what: str, remedy: str = "") -> None:
        what = _one_line(what)
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy


def _one_line(text: str) -> str:
    """Without line breaks, control characters and halves of characters, and not too long."""
    shown = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode())
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 2]} …"


def in_short(error: Exception) -> str:
    """What a library's error says, on one line and without its full stop, to be quoted within a sentence."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said[:QUOTED].rstrip(".")


class ModelError(PersonError):
    """A model that cannot be loaded or cannot be trusted."""


class QuestionError(PersonError):
    """A question set, template or grading rule that cannot be used."""


class SequenceError(PersonError):
    """A sequence that cannot be scored by the model it was given to."""


class RolloutError(PersonError):
    """A file of answers that cannot be read, used or written."""


class ServerError(PersonError):
    """An inference server that does not answer, or not as it should."""


class SelectionError(PersonError):
    """Filters that leave no question."""


class StoreError(PersonError):
    """A store that cannot be opened, read or written."""


class PairError(PersonError):
    """A pair that is unknown or wrongly described."""


class TaskError(PersonError):
    """Something that a job is asked for and cannot be done."""


class ScoresError(PersonError):
    """A file of scores that cannot be read or compared."""


class CircuitError(PersonError):
    """A file of a circuit that cannot be read."""
