"""Large stores of invented scores, a hundred questions each: of many pairs, or of one pair's heads.

Only their size is like a real model's; they are drawn from a heavy-tailed distribution. The store and its registry are
written through the same calls that the worker makes.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probing.cuts import Cut
from probing.graph import Heads, ResidualGraph, graph_of
from probing.jobs.plan import SIDES
from probing.method import Method
from probing.rollouts import ALPHAS, DEFAULT_CUT, Answer, Criteria, select
from probing.scores import Scores
from probing.store import Store, open_store
from probing.store.spool import AnswerBatch, ScoreBatch
from probing.summary import summarise

LAYERS = 32
QUESTIONS = 120


@dataclass(frozen=True)
class Extent:
    """What a store is filled with."""

    pairs: tuple[str, ...]
    sets: tuple[str, ...]
    cuts: tuple[Cut, ...]
    graph: ResidualGraph


MANY = Extent(("grpo", "ppo", "dpo", "control"), ("easy", "middle", "hard"), ALPHAS, graph_of(LAYERS))
"""Forty million scores."""

OF_HEADS = Extent(
    ("grpo",), ("easy",), (DEFAULT_CUT,), graph_of(LAYERS, granularity="heads", heads=(Heads(32, 8),) * LAYERS)
)
"""A hundred and sixty million, of 805 681 edges; comparing them takes some minutes."""


def _registry(extent: Extent) -> str:
    entries = [
        f'[questions.{name}]\ntitle = "{name.capitalize()}"\nfile = "none.jsonl"\ngrading = "exact"\n'
        for name in extent.sets
    ]
    entries += [
        f'[pairs.{name}]\ntitle = "{name.upper()}"\nalgorithm = "{name.upper()}"\nkind = "invented"\n'
        f'base = "invented/base"\ntuned = "invented/{name}"\nquestions = {list(extent.sets)}\n'
        for name in extent.pairs
    ]
    return "\n".join(entries)


def make(path: Path, extent: Extent = MANY) -> dict[str, str]:
    """Make the store unless it is there; returns the environment in which a server shows it."""
    registry = path.with_suffix(".toml")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        registry.write_text(_registry(extent), encoding="utf-8")
        store = open_store(path)
        rng = np.random.default_rng(0)
        for pair in extent.pairs:
            for questions in extent.sets:
                _fill(store, extent, pair, questions, rng)
        store.close()
    return {"PROBING_PAIRS": str(registry)}


def _answers(side: str) -> list[Answer]:
    length = 200 if side == "base" else 220
    return [
        Answer(f"q{k:03}", tuple(range(60)), tuple(range(60, 60 + length + k % 40)), f"answer {k}", True)
        for k in range(QUESTIONS)
    ]


def _fill(store: Store, extent: Extent, pair: str, questions: str, rng: np.random.Generator) -> None:
    rollouts = tuple(f"{pair}-{questions}-{side}" for side in SIDES)
    for side, key in zip(SIDES, rollouts, strict=True):
        answers = _answers(side)
        how = {"device": "auto", "dtype": "auto", "attention": "sdpa", "decoding": {"greedy": True}}
        store.rollouts.start(key, f"invented/{side}", key, questions, how, QUESTIONS, QUESTIONS)
        texts = tuple(f"Question {k}" for k in range(QUESTIONS))
        pieces = [tuple(tuple(f"t{t} " for t in tokens) for tokens in column) for column in (
            [a.prompt_tokens for a in answers], [a.tokens for a in answers])]  # fmt: skip
        store.spool.put(
            AnswerBatch(key, tuple(range(QUESTIONS)), texts, texts, texts, tuple(answers), pieces[0], pieces[1])
        )
        store.batches.ingest()
        store.rollouts.finish(key, {}, 1.0)
    for cut in extent.cuts:
        selection = Criteria(cut)
        selected = select(_answers("base"), _answers("tuned"), selection)
        comparison = f"{pair}-{questions}-{cut}"
        settings: dict[str, Any] = {
            "rollouts": list(rollouts),
            "selection": selection.as_json(),
            "method": Method(extent.graph.granularity).as_json(),
        }
        store.comparisons.save(comparison, pair, questions, (rollouts[0], rollouts[1]), settings, selected)
        both = [
            _run(store, extent.graph, comparison, side, selected.ids, settings, rng.lognormal(0.0, 0.3))
            for side in SIDES
        ]
        store.summaries.save(comparison, "tuned", summarise(*both))


def _run(
    store: Store, graph: ResidualGraph, comparison: str, side: str, ids: tuple[str, ...], settings: dict, scale: float
) -> Scores:
    key = f"{comparison}-{side}"
    store.comparisons.link(comparison, {side: key})
    store.runs.start(key, f"invented/{side}", key, graph, len(ids), len(ids), settings)
    shape = np.random.default_rng(1).lognormal(-8, 2, graph.size) * scale
    own = np.random.default_rng(zlib.crc32(key.encode()))
    edges = (own.standard_t(3, (len(ids), graph.size)) * shape).astype(np.float32)
    loss = own.gamma(4.0, 0.05, len(ids)).astype(np.float32)
    store.spool.put(ScoreBatch(key, ids, loss, edges))
    store.batches.ingest()
    made = {"device": "none", "dtype": "float32"}
    store.runs.finish(key, made, 1.0)
    return Scores(graph, ids, edges, loss)
