"""What is compared: the registry of model pairs and question sets, data/pairs.toml, and one's own beside the store.

Both files have one form. What is added in the browser goes into the second, which `probing.own_pairs` writes.
"""

import os
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from probing.errors import PairError

DATA = Path(__file__).resolve().parents[1] / "data"
REGISTRY = DATA / "pairs.toml"
STORE = DATA / "store.duckdb"


SMALL = 32e6
"""Bytes of two models that are small enough to have every edge removed without being asked."""

ADAPTER = "adapter_config.json"
"""What a folder has whose weights are an adapter's."""

_STEP = re.compile(r"-\d+$")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QuestionSet(_Entry):
    """A file of questions (or files of a data set on the hub), its columns, and how answers are graded."""

    name: str
    title: str
    file: Path | None = None
    hub: str | None = None
    hub_files: tuple[str, ...] = ("*.jsonl",)
    """Patterns of its files, JSON lines or Parquet."""
    hub_revision: str | None = None
    grading: str
    id: str | None = "id"
    """The column of ids; an empty string where there is none, for the number of the question."""
    question: str = "question"
    answer: str = "answer"
    cohort: str | None = None
    """The column that says who is right, where answers are not graded."""
    counterpart: str | None = None
    """The column of another question, of as many tokens, on which a reference is read."""
    size: int | None = Field(default=None, ge=1)
    """How many questions it has, for plans made where it cannot be read."""
    final: Literal["whole", "boxed", "hashes"] = "whole"
    r"""Where in its column the reference stands: all of it, in the last \boxed{}, or behind ####."""

    @model_validator(mode="after")
    def _one_source(self) -> "QuestionSet":
        if (self.file is None) == (self.hub is None):
            raise ValueError("name either a file or a data set on the hub")
        if (self.grading == "none") == (self.cohort is None):
            raise ValueError("grading 'none' and a column for the cohort go together")
        return self

    @property
    def source(self) -> str:
        """What a person calls it."""
        return str(self.file or self.hub)


class Shape(_Entry):
    """How large a decoder is."""

    layers: int
    width: int
    mlp: int
    """Width of the MLP; of a mixture, of the experts that are used together."""
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool = False
    exactly: int | None = None
    """Its number of parameters, where it has been counted."""

    @property
    def parameters(self) -> int:
        """How many weights it has: counted, or those of a Llama of this shape."""
        if self.exactly is not None:
            return self.exactly
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        block = attention + 3 * self.width * self.mlp + 2 * self.width
        return self.layers * block + self.width + (1 if self.tied else 2) * self.vocabulary * self.width


class Servers(_Entry):
    """Where a pair's models answer, each as the URL of an inference server; itself where there is none."""

    base: str | None = None
    tuned: str | None = None


class Pair(_Entry):
    """A base model and one tuned from it, and the settings with which they are asked."""

    name: str
    title: str
    algorithm: str
    kind: str
    base: str
    tuned: str
    base_revision: str | None = None
    tuned_revision: str | None = None
    pickled: bool = False
    """Whether weights may be unpickled, which can run code."""
    questions: tuple[str, ...] = Field(min_length=1)
    template: str = "plain"
    max_new_tokens: int = Field(default=32, ge=1)
    stop: str | None = None
    """A text with which an answer ends, beside the model's own end token."""
    answers: Servers | None = None
    """Servers that answer for the models; one URL stands for both."""
    checkpoints: Path | None = None
    """A folder whose folders `*-N` hold the model after N steps of the tuning."""
    about: str = ""
    control: Literal["seed", "training"] | None = None
    """What it is a control for, if it is one: two models that were trained alike from different `seed`s, or as much
    further `training` without what the others were tuned for."""
    shape: Shape | None = None
    """Of both models, as published, for plans made where their configs cannot be read."""

    @field_validator("answers", mode="before")
    @classmethod
    def _for_both(cls, told: Any) -> Any:
        return Servers(base=told, tuned=told) if isinstance(told, str) else told

    @property
    def steps(self) -> dict[int, str]:
        """The folder of each checkpoint by its step, in order; the highest may be the tuned model itself."""
        if self.checkpoints is None or not self.checkpoints.is_dir():
            return {}
        found = {int(p.name.rsplit("-", 1)[1]): str(p) for p in self.checkpoints.iterdir() if _STEP.search(p.name)}
        return dict(sorted(found.items()))

    @property
    def is_local(self) -> bool:
        """Whether both models are on this machine."""
        return all(_exists(Path(model)) for model in (self.base, self.tuned))

    @property
    def is_small(self) -> bool:
        """Whether both models are on this machine, whole, and together hold less than `SMALL` bytes. An adapter is not
        whole: its base may hold any number."""
        models = {Path(model) for model in (self.base, self.tuned)}
        if not self.is_local or any((model / ADAPTER).exists() for model in models):
            return False
        return sum(file.stat().st_size for model in models for file in (model, *model.rglob("*"))) < SMALL

    @property
    def arrow(self) -> str:
        """Both models' short names, base -> tuned."""
        return f"{self.model_name('base')} → {self.model_name('tuned')}"

    def model_name(self, side: str) -> str:
        """A short name for one side's model: a hub id, or the last part of a path, whether or not it is there."""
        model = getattr(self, side)
        if model.endswith(".gguf"):
            return Path(model).name.partition(".")[0]
        return Path(model).name if Path(model).is_absolute() or _exists(Path(model)) else model


class Registry(_Entry):
    """All pairs and question sets, by name, in the order of the file."""

    questions: dict[str, QuestionSet]
    pairs: dict[str, Pair]

    def pair(self, name: str) -> Pair:
        """The pair of that name; PairError, with the names there are, if there is none."""
        if name not in self.pairs:
            raise PairError(f"There is no pair '{name}'.", f"Pairs: {', '.join(self.pairs)}.")
        return self.pairs[name]

    def seeds(self, pair: Pair) -> list[tuple[Pair, bool]]:
        """The controls that say how far another seed moves what a pair's base is, and whether they do so backwards: of
        those, the base is the tuned model."""
        found = [other for other in self.pairs.values() if other.control == "seed" and other.name != pair.name]
        sides = [(other, other.tuned == pair.base) for other in found if pair.base in (other.base, other.tuned)]
        return [(other, backwards) for other, backwards in sides if set(pair.questions) & set(other.questions)]

    def question_set(self, name: str) -> QuestionSet:
        """The question set of that name; PairError, with the names there are, if there is none."""
        if name not in self.questions:
            raise PairError(f"There is no question set '{name}'.", f"Question sets: {', '.join(self.questions)}.")
        return self.questions[name]


def _exists(path: Path) -> bool:
    """Whether there is such a file; not if there cannot be, because of its name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _resolved(model: str, folder: Path) -> str:
    """A path below `folder` where there is such a folder or the name starts like one, else a hub id."""
    local = folder / model
    return str(local) if _exists(local) or model.startswith(("zoo/", ".", "/")) else model


def registry_path() -> Path:
    """`PROBING_PAIRS`, or data/pairs.toml."""
    return Path(os.environ.get("PROBING_PAIRS") or REGISTRY)


def own_path() -> Path:
    """Where a person's own pairs are: `PROBING_OWN_PAIRS`, or pairs-own.toml beside the store."""
    store = Path(os.environ.get("PROBING_STORE") or STORE)
    return Path(os.environ.get("PROBING_OWN_PAIRS") or store.with_name("pairs-own.toml"))


def load_registry(path: Path | None = None) -> Registry:
    """Read and check a registry, by default that of `registry_path` and, where there is one, the file of `own_path`.

    Raises:
        PairError: a file is missing, is not TOML, an entry is wrong (it is named), or both files have one of a name.
    """
    return _read_once(path) if path is not None else _read_both(registry_path(), own_path(), own_stamp())


def own_stamp() -> tuple[int, int] | None:
    """What changes when the file of one's own pairs is written again; None where there is none."""
    try:
        found = own_path().stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


@lru_cache(maxsize=8)
def _read_once(path: Path) -> Registry:
    return read_registry(path)


@lru_cache(maxsize=8)
def _read_both(path: Path, own: Path, stamp: tuple[int, int] | None) -> Registry:
    return read_registry(*([path, own] if stamp else [path]))


def read_registry(*paths: Path) -> Registry:
    """What `load_registry` keeps, of one file or of several that stand together."""
    found: dict[str, dict[str, Any]] = {"questions": {}, "pairs": {}}
    for path in paths:
        entries = _entries(path)
        for kind, named in found.items():
            if twice := named.keys() & entries[kind].keys():
                raise PairError(f"{path} has an entry '{min(twice)}', which is there already.", "Give it another name.")
            named |= entries[kind]
    registry = Registry(**found)
    for pair in registry.pairs.values():
        for name in pair.questions:
            if name not in registry.questions:
                where = paths[-1]
                raise PairError(f"Pair '{pair.name}' names the question set '{name}', which {where} does not have.")
    return registry


def read_toml(path: Path) -> dict[str, Any]:
    """What a file of pairs says, unchecked.

    Raises:
        PairError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PairError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PairError(f"{path} is not valid TOML: {error}.", "Correct that line.") from error


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """The question sets and pairs of one file."""
    content, folder = read_toml(path), path.parent
    entries: dict[str, Any] = {"questions": {}, "pairs": {}}
    try:
        for name, fields in content.get("questions", {}).items():
            entry = QuestionSet(name=name, **fields)
            entries["questions"][name] = entry.model_copy(update={"file": entry.file and folder / entry.file})
        for name, fields in content.get("pairs", {}).items():
            pair = Pair(name=name, **fields)
            template = content.get("templates", {}).get(pair.template, pair.template)
            paths: dict[str, Any] = {side: _resolved(getattr(pair, side), folder) for side in ("base", "tuned")}
            if pair.checkpoints:
                paths["checkpoints"] = folder / pair.checkpoints
            entries["pairs"][name] = pair.model_copy(update=paths | {"template": template})
    except (ValidationError, TypeError, AttributeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        detail = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else "it should be a table"
        raise PairError(f"The entry '{name}' of {path} is wrong: {detail}.", "See the notes at its top.") from error
    return entries
