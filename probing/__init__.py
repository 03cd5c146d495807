"""Edge attributions of language models, before and after fine-tuning.

    import probing

    pair = probing.load_pair("grpo")          # or LoadedPair(load("a folder"), load("a hub id"), questions, "exact")
    asked = probing.ask(pair)                 # both answer; what both got right is kept, and cut
    base = probing.score(pair.base, asked.base)
    tuned = probing.score(pair.tuned, asked.tuned)
    compared = probing.compare(base, tuned)
    compared["activation_intensity"].relative # the change as a share of the base; relative_low, relative_high
    probing.draw.circuit(base, tuned)         # a Plotly figure

These names stay; what they are made of stands in the modules below. Nothing is loaded before it is used, so that the
import itself costs nothing. The notebooks in docs/notebooks lead through all of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probing import draw
    from probing.callback import CircuitCallback
    from probing.cuts import Cut
    from probing.library import LoadedPair, Model, ablate, ask, check, extract, keep, load, load_pair
    from probing.method import Method
    from probing.metrics import compare
    from probing.questions import Question
    from probing.rollouts import Criteria
    from probing.scoring import attribute as score
    from probing.store import open_store

__all__ = [
    "CircuitCallback",
    "Criteria",
    "Cut",
    "LoadedPair",
    "Method",
    "Model",
    "Question",
    "ablate",
    "ask",
    "check",
    "compare",
    "draw",
    "extract",
    "keep",
    "load",
    "load_pair",
    "open_store",
    "score",
]

_FROM = {
    "CircuitCallback": "callback",
    "Criteria": "rollouts",
    "Cut": "cuts",
    "Method": "method",
    "Question": "questions",
    "compare": "metrics",
    "open_store": "store",
    "score": "scoring:attribute",
}
"""Where names are that `library` does not have; behind a colon, as what."""


def __getattr__(name: str) -> Any:
    """Load what is asked for, once."""
    if name not in __all__:
        raise AttributeError(f"module 'probing' has no attribute '{name}'")
    if name == "draw":
        return importlib.import_module("probing.draw")
    module, _, called = _FROM.get(name, "library").partition(":")
    found = getattr(importlib.import_module(f"probing.{module}"), called or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
