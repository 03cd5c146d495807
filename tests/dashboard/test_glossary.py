"""Words and their sentences: one source, and on hover wherever a word stands."""

import re
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dashboard import glossary
from dashboard.lessons.texts import lessons
from probing.metrics import METRICS
from tests.conftest import ROOT
from tests.dashboard.apps import open_app

PAGES = [path.stem for path in sorted((ROOT / "pages").glob("*.py"))]


def _titles(body: str) -> dict[str, str]:
    """Words that are marked in a text, and what they show on hover."""
    return {word: unescape(title) for word, title in re.findall(r'\[([^\]]*)\]\(/glossary#\S* "([^"]*)"\)', body)}


def test_every_term_has_one_sentence_and_no_form_is_anothers() -> None:
    forms = [form for term in glossary.terms() for form in term.forms]
    assert len(forms) == len(set(forms)) > 60
    for term in glossary.terms():
        assert re.fullmatch(r"[A-Z][^.]*(\d\.\d[^.]*)?\.", term.sentence), term


ASKED_FOR = """
edge node writer reader nat α cohort intensity strength effect score margin likelihood logit attention MLP circuit
faithfulness interval q-value base tuned GRPO PPO DPO SFT kurtosis complexity Gini
"""


@pytest.mark.parametrize(
    "word", [*ASKED_FOR.split(), "residual stream", "attention head", "seed band", "effective edges"]
)
def test_what_the_pages_say_has_a_sentence(word: str) -> None:
    assert glossary.sentence(word)


def test_metrics_mean_what_their_help_says() -> None:
    said = {glossary.sentence(name) for term in glossary.terms() for name in term.forms}
    missing = {metric.name for metric in METRICS.values() if metric.meaning not in said}
    assert missing == {"Node output entropy"}, "which is explained by its name and its help"


def test_lessons_introduce_words_with_their_sentences() -> None:
    text = "\n".join(text for lesson in lessons() for text, _ in lesson.pieces)
    introduced = re.findall(r"^> \*\*(.+?)\*\*: (.+)$", text, re.MULTILINE)
    assert len(introduced) > 20
    assert [(word, glossary.sentence(word)) for word, _ in introduced] == introduced


def test_the_first_of_a_terms_forms_is_marked_with_its_sentence() -> None:
    marked = glossary.marked("Two edges share a score. An edge has one.")
    assert _titles(marked) == {"edges": glossary.sentence("edge"), "score": glossary.sentence("score")}
    assert marked.count("/glossary#edge") == 1
    assert _titles(glossary.marked("Edges, and q above 0.05; α·T̄")).keys() == {"Edges", "q", "α"}


@pytest.mark.parametrize(
    "text",
    [
        "`edge`", "```\nedge\n```", "## An edge", "> **edge**: it", "[edge](https://a.b)", "<b title='edge'>x</b>",
        ":material/token:", "https://edge.example", "edged", "edge-on", "a/edge",
    ],
)  # fmt: skip
def test_what_is_no_word_of_a_text_is_left_as_it_is(text: str) -> None:
    assert glossary.marked(text) == text


PIECES = ["edge", "nats", "`q`", "q", "|score|", "[x](y)", "\n", "a", '"', "**"]


@given(some.lists(some.sampled_from(PIECES)).map(" ".join))
def test_marks_can_be_taken_off_again(text: str) -> None:
    assert glossary.plain(glossary.marked(text)) == text


def test_a_help_text_has_the_sentences() -> None:
    assert glossary.help_for("edge") == glossary.sentence("edge")
    both = glossary.help_for("edge", "strength", more="More.")
    assert glossary.sentence("edge") in both
    assert glossary.sentence("strength") in both
    assert both.endswith("More.")


_NO_WORDS = (r"```.*?```|`[^`]*`", r"\[[^\]]*\]\([^)]*\)|<[^>]*>", r"(?m)^(#|>).*$", r":\S*:|\S*(://|[./-])\S*")
"""Code, links and tags, headings and quotations, and icons, addresses and what is joined to something."""


def _unmarked(body: str) -> set[str]:
    """The terms that a text has without their sentences: each looked for alone, by its name."""
    titles = _titles(body)
    text = glossary.plain(body)
    for pattern in _NO_WORDS:
        text = re.sub(pattern, " ", text, flags=re.DOTALL if pattern.startswith("`") else 0)
    lacking = {term for term in glossary.terms() if re.search(rf"(?<!\w){re.escape(term.name)}(?!\w)", text)}
    # Where a word stands inside a longer one, the sentence is that one's: `seed` in `seed band`.
    return {
        term.name
        for term in lacking
        if term.sentence not in titles.values() and not any(term.name in word for word in titles)
    }


def test_wherever_a_word_stands_on_a_page_its_sentence_is_there_on_hover(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_PLAYGROUND", "off")
    app = open_app()
    marks = 0
    for page in PAGES:
        app.switch_page(f"../pages/{page}.py").run()
        assert not app.exception, page
        for written in [*app.markdown, *app.caption]:
            body = written.proto.body
            if body.startswith(":") and "-badge[" in body:
                continue  # a badge, which stands beside the name of its metric
            assert not (lacking := _unmarked(body)), (page, lacking, body)
            marks += len(_titles(body))
    assert marks > 100
