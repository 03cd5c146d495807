"""Bad input by the hundred thousand: never a traceback, a hang, a write where none belongs, or growth without bound.

    python -m benchmarks.fuzz                   # at least 100 000 cases
    python -m benchmarks.fuzz --quick           # a fiftieth of each

Hypothesis makes the cases: valid files that were changed, cut, nested or filled with the wrong things, and noise. Every
reader must either read its case or refuse it with a `PersonError`; every link must give a page without an exception.
"""

import argparse
import asyncio
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from benchmarks.serving import ROOT
from benchmarks.viewer import Viewer, ViewerError
from probing.edge_tables import circuit, edge_table, edge_values
from probing.errors import PersonError
from probing.exchange import CircuitFile, as_eap_json, as_graphml, read_eap_json, read_graphml
from probing.exchange.pt import read_pt
from probing.graph import Heads, ResidualGraph, graph_of
from probing.metrics import Definition
from probing.pairs import QuestionSet, load_registry, read_registry
from probing.questions import load_questions
from probing.rollout_files import read_rollouts
from probing.scores import Scores, read_scores, write_scores
from probing.sequences import read_samples

LONGEST = 5.0
"""Seconds that a single case may take."""

MOST_GROWTH = 1.5 * 2**30
"""Bytes by which the memory of this process may grow over all cases of one kind."""


class FuzzError(Exception):
    """A case that was met with something other than a sentence."""


# -- cases -------------------------------------------------------------------------------------------------------------

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=30),
    st.text(st.characters(categories=["Cs", "Ll"]), min_size=1, max_size=4),  # halves of characters
    st.sampled_from(["", "id", "answer", "both_correct", "NaN", "1e999", "\x00", "../../etc/passwd", "<script>"]),
)  # fmt: skip
ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A valid file with some of its bytes changed, cut out, doubled or replaced by noise."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["noise", "cut", "double", "end", "number", "digits", "mark", "deep"]))
        if kind == "noise":
            content[place : place + length] = draw(st.binary(max_size=length))
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "double":
            content[place:place] = content[place : place + length] * draw(st.integers(1, 50))
        elif kind == "end":
            del content[place:]
        elif kind == "number":
            content[place : place + length] = str(draw(st.integers(-(10**12), 10**18))).encode()
        elif kind == "digits":
            content[place : place + length] = b"9" * draw(st.sampled_from([310, 5000]))
        elif kind == "mark":
            content[0:0] = b"\xef\xbb\xbf"
        else:
            content[place:place] = b"[" * draw(st.sampled_from([10, 2000, 200_000]))
    return bytes(content)


@st.composite
def changed_json(draw: st.DrawFn, rows: list[dict[str, Any]]) -> bytes:
    """JSON lines whose objects have wrong, missing and further values."""
    lines = []
    for _ in range(draw(st.integers(0, 3))):
        row = dict(draw(st.sampled_from(rows)))
        for name in draw(st.lists(st.sampled_from([*row, "other"]), max_size=3)):
            if draw(st.booleans()):
                row[name] = draw(ANYTHING)
            else:
                row.pop(name, None)
        lines.append(json.dumps(row) if draw(st.integers(0, 9)) else json.dumps(draw(ANYTHING)))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


QUESTION_ROWS: list[dict[str, Any]] = [
    {"id": "1", "question": "1+1=", "answer": "\\boxed{2}", "cohort": "both_correct"},
    {"id": "2", "question": [{"role": "user", "content": "2+2="}], "answer": 4, "cohort": "both_wrong"},
]
SAMPLE_ROWS = [{"id": "q1", "input_ids": [1, 2, 3, 4], "answer_start": 2, "answer_length": 2}]
ROLLOUT_ROWS = [
    {
        "idx": 1, "question": "?", "cohort": "both_correct",
        "base_prompt_tokens": [1, 2], "base_answer_tokens": [3], "base_answer_tokens_range": [2, 3],
        "rl_prompt_tokens": [1, 2], "rl_answer_tokens": [3, 4], "rl_answer_tokens_range": [2, 4],
    }
]  # fmt: skip


def _jsonl(rows: list[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    valid = "\n".join(map(json.dumps, rows * 2)).encode()
    return changed_json(rows) | mangled([valid]) | st.binary(max_size=200)


def _parquet() -> bytes:
    out = BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(QUESTION_ROWS[:1]), out)
    return out.getvalue()


_CELLS = (
    st.none() | st.text(max_size=8),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.binary(max_size=8),
    st.lists(st.text(max_size=4), max_size=3),
    st.fixed_dictionaries({"ground_truth": st.text(max_size=4)}),
    st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text(max_size=8)})),
    st.datetimes(),
    st.decimals(0, 9, places=3),
)
_COLUMNS = st.sampled_from(_CELLS).flatmap(lambda cells: st.lists(cells, min_size=2, max_size=2))


@st.composite
def odd_parquet(draw: st.DrawFn) -> bytes:
    """Two rows whose columns hold anything that Parquet can, bytes that pass for text included."""
    table = pa.table({name: pa.array(draw(_COLUMNS)) for name in ("id", "question", "answer")})
    if draw(st.booleans()):
        noise = pa.array([b"x", draw(st.binary(min_size=1, max_size=8))]).view(pa.string())
        table = table.set_column(draw(st.integers(0, 2)), draw(st.sampled_from(table.column_names)), noise)
    out = BytesIO()
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


def _circuit(graph: ResidualGraph) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(0)
    ids = ("a", "b", "c")
    base, tuned = (
        Scores(graph, ids, rng.normal(size=(3, graph.size)).astype(np.float32), np.ones(3)) for _ in range(2)
    )
    table = edge_table(graph, edge_values(base, tuned, Definition(resamples=20)))
    shown = CircuitFile.shown(graph, table, set(table["edge"][:9]))
    return as_eap_json(shown).encode(), as_graphml(circuit(table[:9])).encode()


@st.composite
def changed_circuit(draw: st.DrawFn, text: bytes) -> bytes:
    """EAP-IG's JSON with wrong values in its cfg, its edges or anywhere."""
    content = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        part = draw(st.sampled_from(["cfg", "nodes", "edges", "all"]))
        inside = content if part == "all" else content.get(part)
        if not isinstance(inside, dict) or not inside:
            continue
        name = draw(st.sampled_from(sorted(inside)))
        if draw(st.booleans()) and isinstance(inside[name], dict) and inside[name]:
            inside[name][draw(st.sampled_from(sorted(inside[name])))] = draw(ANYTHING)
        else:
            inside[name] = draw(ANYTHING | st.integers(-2, 10**7))
    return json.dumps(content).encode("utf-8", "surrogatepass")


REGISTRY = b"""
[templates]
few = "Q: {q} A:"
[questions.few]
title = "Few"
file = "few.jsonl"
grading = "last-number"
[pairs.small]
title = "Small"
algorithm = "GRPO"
kind = "online RL"
base = "zoo/base"
tuned = "zoo/grpo"
questions = ["few"]
template = "few"
max_new_tokens = 12
"""

BOMBS = [
    b'<!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><graphml>&b;</graphml>',
    b'<!DOCTYPE graphml SYSTEM "file:///etc/passwd"><graphml/>',
    b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"/></graphml>',
]


# -- readers -----------------------------------------------------------------------------------------------------------


@dataclass
class Kind:
    """A kind of input: its cases, how each is read, and how many there are of it."""

    cases: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    count: int


def _file(folder: Path, name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def do(content: bytes) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return do


def _questions(path: Path, **columns: Any) -> None:
    """Read a question set, as text that can be stored and asked."""
    for question in load_questions(QuestionSet(name="x", title="x", file=path, **({"grading": "exact"} | columns))):
        "".join((question.id, question.text, question.reference)).encode()


def _small_model(folder: Path) -> bytes:
    """A model of a few kilobytes; returns its weights."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    shutil.copytree(ROOT / "data" / "zoo" / "base", folder)
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return (folder / "model.safetensors").read_bytes()


def _load_checkpoint(folder: Path) -> Callable[[bytes], object]:
    import torch

    from probing.checkpoints import find
    from probing.models import load_model

    def do(content: bytes) -> object:
        (folder / "model.safetensors").write_bytes(content)
        return load_model(find(str(folder)), torch.device("cpu"), torch.float32)

    return do


@st.composite
def changed_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """Weights whose header's length, or a value in it, was changed."""
    length = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = draw(st.sampled_from(["length", "value", "bytes", "cut"]))
    if kind == "length":
        wrong = draw(st.integers(0, 2**64 - 1) | st.integers(max(0, length - 20), length + 20))
        return wrong.to_bytes(8, "little") + content[8:]
    if kind == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if kind == "bytes":
        changed = bytearray(content[8 : 8 + length])
        for _ in range(draw(st.integers(1, 4))):
            changed[draw(st.integers(0, length - 1))] = draw(st.integers(0, 255))
        return content[:8] + bytes(changed) + rest
    name = draw(st.sampled_from(sorted(n for n in header if n != "__metadata__")))
    entry = header[name]
    field_ = draw(st.sampled_from(["dtype", "shape", "data_offsets", "name", "all"]))
    if field_ == "name":
        header[draw(st.text(max_size=20))] = header.pop(name)
    elif field_ == "all":
        header[name] = draw(ANYTHING)
    elif field_ == "dtype":
        entry["dtype"] = draw(st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "X", ""]))
    else:
        entry[field_] = draw(st.lists(st.integers(-5, 2**64), max_size=4) | ANYTHING)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + rest


def _npz(folder: Path) -> bytes:
    graph = graph_of(2)
    path = folder / "valid.npz"
    scores = np.ones((2, graph.size), np.float32)
    write_scores(path, Scores(graph, ("a", "b"), scores, np.ones(2, np.float32)))
    return path.read_bytes()


def _pt(folder: Path) -> bytes:
    graph = graph_of(2, granularity="heads", heads=(Heads(2, 2),) * 2)
    matrix = torch.from_numpy(graph.to_matrix(np.ones(graph.size, np.float32)))
    path = folder / "valid.pt"
    torch.save(
        {
            "cfg": {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8},
            "src_nodes": list(graph.writers), "dst_nodes": list(graph.readers), "edges_scores": matrix,
            "edges_in_graph": matrix > 0, "nodes_in_graph": torch.ones(len(matrix), dtype=torch.bool),
        },
        path,
    )  # fmt: skip
    return path.read_bytes()


def _bomb() -> bytes:
    """An archive of a few kilobytes that would unpack to gigabytes."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("scores", "loss", "ids", "writers", "readers"):
            archive.writestr(f"{name}.npy", b"\x00" * 2**24)
    return out.getvalue()


def kinds(folder: Path) -> dict[str, Kind]:
    """Every kind of input that comes as a file."""
    eap, graphml = _circuit(graph_of(2))
    of_heads, _ = _circuit(graph_of(2, granularity="heads", heads=(Heads(2, 1, True), None)))
    weights = _small_model(folder / "model")
    questions = _file(folder, "q.jsonl", _questions)
    cohorts = _file(folder, "c.jsonl", lambda path: _questions(path, grading="none", cohort="cohort", id=""))
    boxed = _file(folder, "b.jsonl", lambda path: _questions(path, final="boxed"))
    parquet = _file(folder, "q.parquet", _questions)
    archives = [_npz(folder), _bomb()]
    return {
        "question files": Kind(
            _jsonl(QUESTION_ROWS), lambda c: (_tried(questions, c), _tried(cohorts, c), boxed(c)), 25_000
        ),
        "Parquet files": Kind(odd_parquet() | mangled([_parquet()]), parquet, 8_000),
        "sequence files": Kind(_jsonl(SAMPLE_ROWS), _file(folder, "s.jsonl", read_samples), 20_000),
        "files of answers": Kind(_jsonl(ROLLOUT_ROWS), _file(folder, "a.jsonl", read_rollouts), 10_000),
        "pairs.toml": Kind(
            mangled([REGISTRY, (ROOT / "data" / "pairs.toml").read_bytes()[:3000]]) | st.binary(max_size=200),
            _file(folder, "pairs.toml", read_registry), 15_000,
        ),
        "EAP-IG JSON": Kind(
            changed_circuit(eap) | changed_circuit(of_heads) | mangled([eap, of_heads]) | st.binary(max_size=200),
            read_eap_json, 12_000,
        ),
        "EAP-IG .pt": Kind(mangled([_pt(folder)]) | st.binary(max_size=200), _file(folder, "c.pt", read_pt), 3_000),
        "GraphML": Kind(mangled([graphml, *BOMBS]) | st.binary(max_size=200), read_graphml, 8_000),
        "files of scores": Kind(mangled(archives), _file(folder, "s.npz", read_scores), 5_000),
        "safetensors headers": Kind(changed_safetensors(weights), _load_checkpoint(folder / "model"), 2_500),
    }  # fmt: skip


def _tried(read: Callable[[bytes], object], content: bytes) -> object:
    try:
        return read(content)
    except PersonError:
        return None


# -- running -----------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of the cases of one kind."""

    cases: int = 0
    refused: int = 0
    longest: float = 0.0
    sentences: Counter[str] = field(default_factory=Counter)


def run(kind: Kind, count: int, folder: Path) -> Outcome:
    """Read every case.

    Raises:
        FuzzError: one was met with something other than a sentence, took too long or left something behind.
    """
    outcome = Outcome()

    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(kind.cases)
    def test(case: Any) -> None:
        outcome.cases += 1
        started = time.monotonic()
        try:
            kind.read(case)
        except PersonError as error:
            outcome.refused += 1
            outcome.sentences[error.remedy] += 1
            if "\n" in str(error) or not error.what.endswith((".", "…")):
                raise FuzzError(f"not a sentence: {str(error)!r}") from error
        except Exception as error:
            raise FuzzError(f"{type(error).__name__}: {str(error)[:300]}, for {case[:300]!r}") from error
        outcome.longest = max(outcome.longest, time.monotonic() - started)
        if outcome.longest > LONGEST:
            raise FuzzError(f"took {outcome.longest:.1f} s, for {case[:300]!r}")

    before, memory = _listing(folder), _peak()
    test()
    if new := _listing(folder) - before:
        raise FuzzError(f"left behind {sorted(new)}")
    if _peak() - memory > MOST_GROWTH:
        raise FuzzError(f"memory grew by {(_peak() - memory) / 2**20:.0f} MB")
    return outcome


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _listing(folder: Path) -> set[Path]:
    """All that lies where a reader might write: beside the cases' folder, above it, and where it was started."""
    return {*folder.parent.iterdir(), *Path.cwd().iterdir(), *(ROOT / "data").rglob("*")}


# -- links -------------------------------------------------------------------------------------------------------------

_NAMES = (
    "pair", "questions", "cohort", "alpha", "variant", "edges", "by", "share", "pick", "panels", "kinds", "layers",
    "sign", "changed", "sure", "part", "bins", "logx", "metric", "group", "q", "search", "graded", "own_edges",
    "element", "step", "among", "step_edges", "job", "trace",
)  # fmt: skip
_VALUES = (
    "PPO", "DPO", "0.3", "0.5", "m3", "a5->logits", "a0<q>", "true", "false", "-1", "0", "1e400", "nan", "100",
    "99999999", "both correct", "add-0037", "base", "difference", "Diversity", "reading layer", "../../etc/passwd",
    "'; DROP TABLE jobs", "<script>alert(1)</script>", "![x](http://x)", "\x00", "%00", "💥", "[1,2]", "{}", "null",
)  # fmt: skip


_PAGES = ("", "circuits", "distributions", "intensity", "questions", "timeline", "runs", "methods", "none")


def random_link(rng: random.Random) -> tuple[str, str]:
    """A page with parameters that may mean something."""

    def value() -> str:
        if rng.random() < 0.8:
            return rng.choice(_VALUES)
        return "".join(map(chr, rng.choices([*range(32, 127), *range(160, 0x3000)], k=rng.randrange(200))))

    pairs = [(rng.choice(_NAMES) if rng.random() < 0.9 else value()[:20], value()) for _ in range(rng.randrange(1, 7))]
    return rng.choice(_PAGES), urlencode(pairs)


async def follow_links(url: str, count: int, seed: int) -> Outcome:
    """Open pages with random parameters on a running server.

    Raises:
        FuzzError: a page had an exception on it, or took too long.
    """
    rng, outcome = random.Random(seed), Outcome()
    for _ in range(count):
        page, query = random_link(rng)
        viewer = Viewer(url, rng)
        await viewer.connect()
        try:
            seconds = await viewer.open(page, query)
        except ViewerError as error:
            raise FuzzError(f"/{page}?{query}: {error}") from error
        finally:
            await viewer.close()
        outcome.cases += 1
        outcome.longest = max(outcome.longest, seconds)
        if (leaked := [text for text in viewer.texts if str(ROOT) in text or "Traceback" in text]) or seconds > 30:
            raise FuzzError(f"/{page}?{query}: {seconds:.1f} s, {leaked}")
    return outcome


def main(argv: list[str] | None = None) -> int:
    """Try every kind and print what came of it; 1 if a case was met with anything but a sentence."""
    from benchmarks.load import hosted

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", help="kinds, by their names")
    parser.add_argument("--store", type=Path, help="for links: show what this store has, instead of computing it first")
    parser.add_argument("--links", type=int, default=2_000)
    arguments = parser.parse_args(argv)
    share = 50 if arguments.quick else 1
    failed, total = False, 0
    load_registry()
    with tempfile.TemporaryDirectory() as name:
        set_hypothesis_home_dir(Path(name) / "hypothesis")
        folder = Path(name) / "aside" / "cases"
        folder.mkdir(parents=True)
        for title, kind in kinds(folder).items():
            if arguments.only and title not in arguments.only:
                continue
            try:
                outcome = run(kind, kind.count // share, folder)
            except FuzzError as error:
                failed = True
                print(f"{title:20} FAILED: {str(error)[:1000]}", flush=True)
                continue
            total += outcome.cases
            print(f"{title:20} {outcome.cases:6} cases, {outcome.refused:6} refused with a sentence, the longest took "
                  f"{outcome.longest:.2f} s", flush=True)  # fmt: skip
        if not arguments.only or "links" in arguments.only:
            place = Path(name) / "server"
            place.mkdir()
            server = hosted(place, arguments.store, arguments.quick)
            try:
                outcome = asyncio.run(follow_links(server.url, arguments.links // share, seed=0))
                total += outcome.cases
                print(f"{'links':20} {outcome.cases:6} opened, the longest took {outcome.longest:.2f} s", flush=True)
            except FuzzError as error:
                failed = True
                print(f"{'links':20} FAILED: {error}\n{server.log.read_text()[-4000:]}", flush=True)
            finally:
                server.stop()
    print(f"{total} cases")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
