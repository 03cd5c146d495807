"""A person's own pairs: a file beside the store, in the form of data/pairs.toml, to which the browser adds.

It is written whole each time, so it is never half there, and comments that somebody wrote into it are not kept. An
entry gets in only if everything that is registered, with it, can still be read.
"""

import json
import re
import tempfile
import threading
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probing.errors import PairError
from probing.files import whole
from probing.pairs import Pair, QuestionSet, load_registry, own_path, read_registry, read_toml, registry_path

HEAD = """# Pairs of one's own, added in the browser (page "Add a pair"), which writes this file whole.
# Its form is that of data/pairs.toml; names that are registered there are refused.
"""

_WRITING = threading.Lock()

Entries = dict[str, dict[str, Any]]
"""The tables of one kind, `questions` or `pairs`, by name."""


def named(title: str) -> str:
    """The name of an entry with a title: small letters, digits and hyphens.

    Raises:
        PairError: the title has neither letters nor digits to make one of.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60]
    if not name:
        raise PairError("The title has no letter or digit of ASCII, of which a name is made.", "Add one.")
    return name


def content(path: Path | None = None) -> dict[str, Entries]:
    """What the file says; nothing where there is none.

    Raises:
        PairError: it cannot be read, or is not TOML.
    """
    path = path or own_path()
    found = read_toml(path) if path.exists() else {}
    return {**found, "questions": found.get("questions", {}), "pairs": found.get("pairs", {})}


def checked(
    pair: Mapping[str, Any], questions: Mapping[str, Any] | None = None, instead: bool = False
) -> tuple[str, str]:
    """What the file would say with a pair (its fields, and perhaps those of a question set that it alone names), and
    the pair's name. It may come `instead` of what the file says under the same names.

    Raises:
        PairError: a name or title is taken, or a field is wrong.
    """
    registry, found = load_registry(), content()

    def free(title: str, known: Mapping[str, Pair | QuestionSet], own: Entries, what: str) -> str:
        name = named(title)
        others = {n: one.title for n, one in known.items() if not (instead and n == name and n in own)}
        _refuse_taken(name, title, others, what)
        return name

    name = free(pair["title"], registry.pairs, found["pairs"], "pair")
    pair = dict(pair)
    if questions is not None:
        of = free(questions["title"], registry.questions, found["questions"], "question set")
        found["questions"] = {**found["questions"], of: dict(questions)}
        pair["questions"] = [of]
    found["pairs"] = {**found["pairs"], name: pair}
    text = as_toml(found)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / own_path().name
        trial.write_text(text, encoding="utf-8")
        try:
            read_registry(registry_path(), trial)
        except PairError as error:
            raise PairError(error.what.replace(str(trial), own_path().name), error.remedy) from error
    return text, name


def _refuse_taken(name: str, title: str, known: Mapping[str, str], what: str) -> None:
    if name in known or title in known.values():
        raise PairError(f"There is a {what} called '{title}' already.", "Choose another title.")


def add(pair: Mapping[str, Any], questions: Mapping[str, Any] | None = None, instead: bool = False) -> str:
    """Write a pair to the file, with a question set that it alone names; returns the pair's name. As in `checked`, it
    may come `instead` of what is there.

    Raises:
        PairError: a name or title is taken, a field is wrong, or the file cannot be written.
    """
    with _WRITING:
        text, name = checked(pair, questions, instead)
        _write(text)
    return name


def remove(name: str) -> None:
    """Take a pair out of the file, and its question set if no pair of the file names it any more.

    Raises:
        PairError: the file has no such pair, or cannot be written.
    """
    with _WRITING:
        found = content()
        if name not in found["pairs"]:
            raise PairError(f"There is no pair '{name}' of your own.", "Only those can be removed.")
        pairs = {other: fields for other, fields in found["pairs"].items() if other != name}
        orphans = set(found["pairs"][name]["questions"]) - {q for fields in pairs.values() for q in fields["questions"]}
        sets = {other: fields for other, fields in found["questions"].items() if other not in orphans}
        _write(as_toml({**found, "pairs": pairs, "questions": sets}))


def _write(text: str) -> None:
    path = own_path()
    with whole(path, PairError, "Make its folder writable, or name another place with PROBING_OWN_PAIRS.") as part:
        part.write_text(text, encoding="utf-8")


def as_toml(tables: Mapping[str, Any]) -> str:
    """The text of a file of pairs: tables of templates, question sets and pairs.

    Raises:
        PairError: something in it is no text, number, truth value, list or table of these.
    """
    lines = [HEAD]
    for kind, entries in tables.items():
        if not isinstance(entries, Mapping):
            raise PairError(f"'{kind}' should be a table.", "Take it out of the file.")
        texts = {name: entry for name, entry in entries.items() if not isinstance(entry, Mapping)}
        lines += [f"[{_key(kind)}]", *_fields(texts), ""] if texts else []
        for name, entry in entries.items():
            if name not in texts:
                lines += [f"[{_key(kind)}.{_key(name)}]", *_fields(entry), ""]
    return "\n".join(lines)


def _fields(fields: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in fields.items()]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    """A value as TOML writes it: JSON's texts, numbers and truth values are TOML's too, but for two characters."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_fields(value))} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
        text.encode()
    except (TypeError, ValueError) as error:  # a date, or half a character
        raise PairError(f"{str(value)[:40]!r} cannot be written to a file of pairs.", "Write it as a text.") from error
    return text
