"""Figures that have been drawn, kept for whoever looks at the same.

Most of the time that a page takes goes into building its figures, and most viewers of a demo look at the same ones.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pandas.util import hash_pandas_object

from probing.figures.theme import ink

MOST = 150
"""Figures that are kept, the last used ones; the largest take a few hundred kilobytes."""

SMALL = 10_000
"""Values in an array that is compared value by value."""

_figures: OrderedDict[Hashable, tuple[go.Figure, list[weakref.ref[Any]]]] = OrderedDict()
"""Each with the arguments that are known by their identity, which another object may get once they are gone: a figure
does not keep the scores that it was drawn from."""
_lock = threading.Lock()


def drawn(draw: "partial[go.Figure]", dark: bool) -> go.Figure:
    """What a call draws, in the ink of a light or a dark page; shared, so it must not be changed.

    Calls are the same if they are of the same function with equal arguments. Large arrays, and objects that hold
    arrays, are equal only to themselves: they come from `data`, which keeps them, and are never written to.
    """
    known: list[object] = []
    key = (draw.func, _mark(draw.args, known), _mark(draw.keywords, known), dark)
    with _lock:
        figure, of = _figures.get(key, (None, []))
        if figure is not None and all(reference() is not None for reference in of):
            _figures.move_to_end(key)
            return figure
    figure = ink(draw(), dark)
    with _lock:
        _figures[key] = figure, [weakref.ref(thing) for thing in known]
        _figures.move_to_end(key)
        while len(_figures) > MOST:
            _figures.popitem(last=False)
    return figure


def _mark(value: Any, known: list[object]) -> Hashable:
    """Something that is equal for equal arguments; adds to `known` what is known by its identity."""
    if isinstance(value, dict):
        return "dict", tuple((name, _mark(inner, known)) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(_mark(inner, known) for inner in value)
    try:
        if isinstance(value, np.ndarray) and value.size <= SMALL:
            return "array", value.shape, str(value.dtype), value.tobytes()
        if isinstance(value, pd.DataFrame):
            rows = hash_pandas_object(value).to_numpy()
            return "table", tuple(value), blake2b(rows.tobytes(), digest_size=16).digest()
        hash(value)
    except TypeError:
        known.append(value)
        return "object", id(value)
    return type(value).__name__, value
