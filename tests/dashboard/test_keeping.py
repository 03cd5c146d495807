"""What pages share stays within a number of bytes, and the same is made once."""

import gc
import threading
import time
import weakref
from functools import partial

import numpy as np
import plotly.graph_objects as go
import pytest

from dashboard import drawing
from dashboard.drawing import drawn
from dashboard.keeping import MOST_BYTES, Keeper, size_of
from probing.graph import graph_of
from probing.scores import Scores


def _array(size: int) -> np.ndarray:
    return np.zeros(size, np.uint8)


class _Counted:
    """A keeper of a thousand bytes, asked for arrays by their size, that counts what it had to make."""

    def __init__(self) -> None:
        self.keeper, self.made = Keeper(1000), []

    def ask(self, name: str, size: int, kind: str = "pair", most: int = 16) -> np.ndarray:
        def make() -> np.ndarray:
            self.made.append(name)
            return _array(size)

        return self.keeper.get(kind, name, make, most)


def test_what_is_small_stays_and_what_is_large_goes_first() -> None:
    pages = _Counted()
    for name, size in (("small", 100), ("large", 600), ("other", 200), ("second large", 700)):
        pages.ask(name, size)
    assert pages.ask("small", 100) is pages.ask("small", 100)
    for name, size in (("other", 200), ("second large", 700)):
        pages.ask(name, size)
    assert pages.made == ["small", "large", "other", "second large"]
    pages.ask("large", 600)
    pages.ask("second large", 700)
    assert pages.made[4:] == ["large", "second large"], "there is room for one of the two"


def test_what_is_larger_than_all_may_be_is_made_but_not_kept_and_pushes_nothing_else_out_for_good() -> None:
    pages = _Counted()
    assert pages.ask("huge", 2000).nbytes == 2000
    assert pages.ask("huge", 2000).nbytes == 2000
    pages.ask("small", 100)
    pages.ask("small", 100)
    assert pages.made == ["huge", "huge", "small"]


def test_of_each_kind_the_last_used_are_kept() -> None:
    pages = _Counted()
    for name in ("a", "b", "a", "c"):
        pages.ask(name, 1, most=2)
    pages.ask("b", 1, kind="table", most=2)
    pages.ask("a", 1, most=2)
    assert pages.made == ["a", "b", "c", "b"]
    pages.ask("b", 1, most=2)
    assert pages.made == ["a", "b", "c", "b", "b"]


def test_threads_that_ask_for_the_same_get_the_same_made_once_while_others_get_what_is_there() -> None:
    keeper, made, found = Keeper(), [], []
    keeper.get("pair", "there", lambda: _array(1), 16)
    waiting = threading.Event()

    def make() -> np.ndarray:
        waiting.wait(10)
        made.append(1)
        return keeper.get("pair", "inner", lambda: _array(3), 16)

    threads = [threading.Thread(target=lambda: found.append(keeper.get("table", "same", make, 16))) for _ in range(8)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    keeper.get("pair", "there", lambda: pytest.fail("it is there"), 16)
    assert time.monotonic() - started < 5
    waiting.set()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert len(found) == 8
    assert all(one is found[0] for one in found)


def test_what_cannot_be_made_is_asked_for_again() -> None:
    keeper = Keeper()
    with pytest.raises(ZeroDivisionError):
        keeper.get("pair", "a", lambda: 1 // 0, 16)
    assert keeper.get("pair", "a", lambda: 5, 16) == 5


def test_a_pair_of_heads_is_counted_with_both_its_runs() -> None:
    graph = graph_of(2)
    one = Scores(graph, ("a", "b"), np.zeros((2, graph.size), np.float32), np.zeros(2, np.float32))
    assert size_of((one, one)) == 2 * (2 * graph.size * 4 + 2 * 4)
    assert size_of({"a": np.zeros(3), "b": np.zeros(2, np.float32)}) == 32
    assert MOST_BYTES > 2 * 100 * 805_681 * 4, "one such pair has its place"


def test_a_figure_does_not_keep_the_scores_it_was_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(scores: Scores) -> go.Figure:
        return go.Figure(layout={"title": str(scores.edges[0, 0])})

    def scores(value: float) -> Scores:
        graph = graph_of(1)
        return Scores(graph, ("a",), np.full((1, graph.size), value, np.float32), np.ones(1, np.float32))

    monkeypatch.setattr(drawing, "id", lambda thing: 1, raising=False)  # all get the same place in memory
    first = scores(1.0)
    figure = drawn(partial(draw, first), dark=False)
    assert drawn(partial(draw, first), dark=False) is figure
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    assert drawn(partial(draw, scores(2.0)), dark=False).layout.title.text == "2.0"
