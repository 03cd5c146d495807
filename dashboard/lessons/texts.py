"""The lessons' texts, which are files in docs/lessons so that they can be read without the program.

A comment in a file, `<!-- the models answer -->`, is where the page has a live figure. The texts hold no numbers: what
is a number on a page is computed.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "docs" / "lessons"


@dataclass(frozen=True)
class Lesson:
    """One lesson as it is written."""

    number: int
    """From 1."""
    title: str
    pieces: tuple[tuple[str, str | None], ...]
    """Markdown, each with the name of the figure that stands below it; None below the last."""

    @property
    def page(self) -> str:
        """Its script, as `st.page_link` takes it."""
        return f"../pages/lesson{self.number}.py"


@cache
def lessons() -> tuple[Lesson, ...]:
    """All of them, in order."""
    return tuple(_read(path) for path in sorted(_FOLDER.glob("*.md")))


def _read(path: Path) -> Lesson:
    title, body = path.read_text(encoding="utf-8").removeprefix("# ").split("\n", 1)
    parts = re.split(r"^<!-- (.+?) -->$", body, flags=re.MULTILINE)
    pieces = tuple(zip((text.strip() for text in parts[::2]), [*parts[1::2], None], strict=True))
    return Lesson(int(path.name.partition("-")[0]), title, pieces)
