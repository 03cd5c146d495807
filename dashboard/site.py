"""What the pages are called, how they are grouped, and what this is in a sentence."""

from dataclasses import dataclass

SAYS = "See what reinforcement learning does to the inside of a language model."
"""What this is: the first sentence of README.md."""


@dataclass(frozen=True)
class Entry:
    """A page as the navigation has it."""

    name: str
    """The name of its script, and where it is not the front page, its address."""
    title: str
    icon: str
    of_a_pair: bool = True
    """Whether it shows what the shared controls choose."""
    listed: bool = True
    """Whether the navigation shows it; otherwise other pages lead to it."""

    @property
    def script(self) -> str:
        """Its script, as Streamlit takes it."""
        return f"../pages/{self.name}.py"


FRONT = Entry("front", "Start", ":material/home:", of_a_pair=False)
COMPARE = Entry("compare", "Compare", ":material/compare_arrows:")

SECTIONS = {
    "": (FRONT,),
    "What changed": (
        COMPARE,
        Entry("circuits", "Circuits", ":material/account_tree:"),
        Entry("intensity", "Intensity", ":material/bolt:"),
        Entry("distributions", "Distributions", ":material/bar_chart:"),
        Entry("questions", "Questions", ":material/quiz:"),
        Entry("timeline", "Timeline", ":material/timeline:"),
    ),
    "Is it real": (
        Entry("evidence", "Evidence", ":material/fact_check:"),
        Entry("transplant", "Transplant", ":material/swap_horiz:"),
        Entry("methods", "Methods", ":material/menu_book:"),
    ),
    "Try it": (Entry("play", "Play", ":material/science:"),),
    "Learn": (
        Entry("lesson1", "Lessons", ":material/school:", of_a_pair=False),
        *(Entry(f"lesson{n}", f"Lesson {n}", ":material/school:", of_a_pair=False, listed=False) for n in range(2, 7)),
        Entry("glossary", "Glossary", ":material/dictionary:", of_a_pair=False),
    ),
    "Compute": (
        Entry("runs", "Runs", ":material/queue:"),
        Entry("add", "Add a pair", ":material/add_circle:"),
    ),
}
"""The navigation: every page under what a newcomer would look for."""


@dataclass(frozen=True)
class Door:
    """One of the ways in from the front page."""

    to: Entry
    label: str
    about: str


def _page(name: str) -> Entry:
    return next(page for pages in SECTIONS.values() for page in pages if page.name == name)


DOORS = (
    Door(COMPARE, "Compare", "Which edges of the model changed, by how much, and how sure that is."),
    Door(_page("play"), "Play", "Type a problem, watch both models answer, take an edge away and see what changes."),
    Door(_page("lesson1"), "Learn", "Six short lessons, from the residual stream to an exercise that is checked."),
)
"""The ways in."""
