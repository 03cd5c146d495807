"""A large store of invented scores: four pairs of 32 layers, three question sets, four cuts, a hundred questions each.

Forty million scores. Only their size is like a real model's; they are drawn from a heavy-tailed distribution. The store
and its registry are written through the same calls that the worker makes.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from probing.graph import graph_of
from probing.jobs.plan import SIDES
from probing.method import Method
from probing.rollouts import ALPHAS, Answer, Criteria, select
from probing.scores import Scores
from probing.store import Store, open_store
from probing.store.spool import AnswerBatch, ScoreBatch
from probing.summary import summarise

PAIRS = ("grpo", "ppo", "dpo", "control")
SETS = ("easy", "middle", "hard")
LAYERS = 32
QUESTIONS = 120


def _registry() -> str:
    entries = [
        f'[questions.{name}]\ntitle = "{name.capitalize()}"\nfile = "none.jsonl"\ngrading = "exact"\n' for name in SETS
    ]
    entries += [
        f'[pairs.{name}]\ntitle = "{name.upper()}"\nalgorithm = "{name.upper()}"\nkind = "invented"\n'
        f'base = "invented/base"\ntuned = "invented/{name}"\nquestions = {list(SETS)}\n'
        for name in PAIRS
    ]
    return "\n".join(entries)


def make(path: Path) -> dict[str, str]:
    """Make the store unless it is there; returns the environment in which a server shows it."""
    registry = path.with_suffix(".toml")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        registry.write_text(_registry(), encoding="utf-8")
        store = open_store(path)
        rng = np.random.default_rng(0)
        for pair in PAIRS:
            for questions in SETS:
                _fill(store, pair, questions, rng)
        store.close()
    return {"PROBING_PAIRS": str(registry)}


def _answers(side: str) -> list[Answer]:
    length = 200 if side == "base" else 220
    return [
        Answer(f"q{k:03}", tuple(range(60)), tuple(range(60, 60 + length + k % 40)), f"answer {k}", True)
        for k in range(QUESTIONS)
    ]


def _fill(store: Store, pair: str, questions: str, rng: np.random.Generator) -> None:
    rollouts = tuple(f"{pair}-{questions}-{side}" for side in SIDES)
    for side, key in zip(SIDES, rollouts, strict=True):
        answers = _answers(side)
        how = {"device": "auto", "dtype": "auto", "attention": "sdpa"}
        store.rollouts.start(key, f"invented/{side}", key, questions, how, QUESTIONS)
        texts = tuple(f"Question {k}" for k in range(QUESTIONS))
        pieces = [tuple(tuple(f"t{t} " for t in tokens) for tokens in column) for column in (
            [a.prompt_tokens for a in answers], [a.tokens for a in answers])]  # fmt: skip
        store.spool.put(
            AnswerBatch(key, tuple(range(QUESTIONS)), texts, texts, texts, tuple(answers), pieces[0], pieces[1])
        )
        store.batches.ingest()
        store.rollouts.finish(key, {}, 1.0)
    for alpha in ALPHAS:
        selection = Criteria(alpha=alpha)
        selected = select(_answers("base"), _answers("tuned"), selection)
        comparison = f"{pair}-{questions}-{alpha:g}"
        settings: dict[str, Any] = {
            "rollouts": list(rollouts),
            "selection": vars(selection),
            "method": Method().as_json(),
        }
        store.comparisons.save(comparison, pair, questions, (rollouts[0], rollouts[1]), settings, selected)
        both = [_run(store, comparison, side, selected.ids, settings, rng.lognormal(0.0, 0.3)) for side in SIDES]
        store.summaries.save(comparison, "tuned", summarise(*both))


def _run(store: Store, comparison: str, side: str, ids: tuple[str, ...], settings: dict, scale: float) -> Scores:
    key = f"{comparison}-{side}"
    graph = graph_of(LAYERS)
    store.comparisons.link(comparison, {side: key})
    store.runs.start(key, f"invented/{side}", key, graph, len(ids), len(ids), settings)
    shape = np.random.default_rng(1).lognormal(-8, 2, len(graph.edges)) * scale
    own = np.random.default_rng(zlib.crc32(key.encode()))
    edges = (own.standard_t(3, (len(ids), len(graph.edges))) * shape).astype(np.float32)
    loss = own.gamma(4.0, 0.05, len(ids)).astype(np.float32)
    store.spool.put(ScoreBatch(key, ids, loss, edges))
    store.batches.ingest()
    made = {"device": "none", "dtype": "float32"}
    store.runs.finish(key, made, 1.0)
    return Scores(graph, ids, edges, loss)
