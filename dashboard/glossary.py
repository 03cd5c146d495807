"""The words that the pages use in a sense of their own: each has one sentence, which appears wherever the word stands.

docs/glossary.md is the only source. In a text the first of a term's forms becomes a link to the page Glossary whose
title is the sentence: browsers show it on hover, the style sheet on focus, and a tap opens it. Help texts, which are
shown on hover themselves, hold the sentences as they are.
"""

import html
import re
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from pathlib import Path
from types import MethodType
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

_SOURCE = Path(__file__).resolve().parents[1] / "docs" / "glossary.md"


@dataclass(frozen=True)
class Term:
    """A word and what it means here."""

    name: str
    forms: tuple[str, ...]
    """How it may stand in a text, its name first."""
    sentence: str
    group: str
    """The heading under which it stands."""

    @property
    def anchor(self) -> str:
        """Where it stands on the page Glossary."""
        return re.sub(r"\W+", "-", self.name.lower()).strip("-")


@cache
def terms() -> tuple[Term, ...]:
    """Every term, in the order of docs/glossary.md."""
    found = []
    for group in re.split(r"^## ", _SOURCE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, *entries = re.split(r"^### ", group, flags=re.MULTILINE)
        for entry in entries:
            heading, sentence = entry.split("\n", 1)
            # A comma may stand inside a form: `q, k and v` is written whole.
            forms = re.split(r", (?!k and v|key or value)", heading)
            found.append(Term(forms[0], tuple(forms), " ".join(sentence.split()), title.strip()))
    return tuple(found)


@cache
def _by_form() -> dict[str, Term]:
    """The term of each form; a form that begins in lower case may also begin a sentence."""
    forms = {form: term for term in terms() for form in term.forms}
    return {form[0].upper() + form[1:]: term for form, term in forms.items()} | forms


@cache
def _pattern() -> re.Pattern[str]:
    """Finds what is left as it is (code, headings, quotations, links, tags, icons, addresses), or else a form."""
    kept = r"```.*?```|`[^`]*`|^(?:#+|>) .*?$|!?\[[^\]]*\]\([^)]*\)|<[^>]+>|:material/\w+:|\w+://\S+"
    forms = "|".join(re.escape(form) for form in sorted(_by_form(), key=len, reverse=True))
    return re.compile(rf"(?P<kept>{kept})|(?<![\w./-])(?P<form>{forms})(?![\w-])", re.MULTILINE | re.DOTALL)


def sentence(word: str) -> str:
    """What a word means; KeyError if docs/glossary.md does not say."""
    return _by_form()[word].sentence


def help_for(*words: str, more: str = "") -> str:
    """The sentences of some words as a help text, and `more` after them."""
    alone = len(words) == 1
    said = [sentence(word) if alone else f"**{word}**: {sentence(word)}" for word in words]
    return "\n\n".join([*said, more] if more else said)


def found(text: str) -> list[tuple[re.Match[str], Term]]:
    """The first place of each term in a Markdown text, in order."""
    first: dict[Term, re.Match[str]] = {}
    for match in _pattern().finditer(text):
        if match["form"]:
            first.setdefault(_by_form()[match["form"]], match)
    return [(match, term) for term, match in first.items()]


@lru_cache(maxsize=2048)
def marked(text: str) -> str:
    """A Markdown text in which the first of each term's forms leads to its sentence."""
    parts, end = [], 0
    for match, term in found(text):
        start = match.start("form")
        parts += [text[end:start], _link(match["form"], term)]
        end = match.end("form")
    return "".join([*parts, text[end:]])


def _link(form: str, term: Term) -> str:
    title = html.escape(term.sentence).replace("|", "&#124;")
    return f'[{form}](/glossary#{term.anchor} "{title}")'


_MARK = re.compile(r'\[([^\[\]]*)\]\(/glossary#[\w-]* "[^"]*"\)')


def plain(text: str) -> str:
    """A text as it was before it was `marked`."""
    return _MARK.sub(r"\1", text)


def mark_everywhere() -> None:
    """Have whatever a page writes as Markdown or as a caption marked, by whichever script or module.

    Words come from too many places for each to remember: Streamlit's own two functions are wrapped, once.
    """
    for name in ("markdown", "caption"):
        as_is = getattr(DeltaGenerator, name)
        if not hasattr(as_is, "marks_words"):
            marks = _marking(as_is)
            setattr(DeltaGenerator, name, marks)
            setattr(st, name, MethodType(marks, getattr(st, name).__self__))


def _marking(as_is: Any) -> Any:
    @wraps(as_is)
    def write(where: DeltaGenerator, body: Any, *args: Any, **options: Any) -> DeltaGenerator:
        return as_is(where, marked(str(body)), *args, **options)

    write.marks_words = True  # type: ignore[attr-defined]
    return write
