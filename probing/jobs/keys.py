"""Keys: digests of all that decides an artifact."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from probing.method import Loss, Method


def key_of(settings: Any) -> str:
    """The digest of some settings, which JSON can hold."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


_GROUND = ("model", "rollout", "questions", "cut", "scored", "counterparts", "references")


def ground_key(settings: Mapping[str, Any]) -> str:
    """Key of what decides the effects of edges that are really removed, given the settings of a run as the store has
    them: all of these but how the run estimates effects, and which edges its graph has."""
    found = {name: settings[name] for name in _GROUND if name in settings}
    return key_of({**found, "reference": Method.from_json(settings["method"]).reference})


def exact_key(settings: Mapping[str, Any], loss: Loss) -> str:
    """Key of the run that has the real effects of all edges of another run, whose settings are given as the store has
    them, on a loss."""
    method = replace(Method.from_json(settings["method"]).present, path="exact", loss=loss)
    deciding = {name: value for name, value in settings.items() if name != "tokenizer"}
    return key_of({**deciding, "method": method.as_json()})
