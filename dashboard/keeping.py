"""What pages share and may be large: kept within a number of bytes, and not only of things.

The scores of a pair take a few kilobytes, or, of a graph of heads, most of a gigabyte.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from probing.scores import Scores

T = TypeVar("T")

MOST_BYTES = 2**30
"""Of all that is kept."""


class Keeper:
    """The last used things of each kind, in all no more than so many bytes, however many threads ask for them.

    Where they are more, the largest goes first, but for the one that was just made. One is made at a time, so that two
    viewers who ask for the same large thing wait for one.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._things: OrderedDict[tuple[str, Hashable], tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.RLock()  # of one thing may need another

    def get(self, kind: str, key: Hashable, make: Callable[[], T], most: int) -> T:
        """What `make` made for this key, or makes now; `most` things of this kind are kept."""
        name = (kind, key)
        with self._lock:
            if name in self._things:
                self._things.move_to_end(name)
                return self._things[name][0]
        with self._making:
            with self._lock:
                if name in self._things:
                    return self._things[name][0]
            made = make()
            with self._lock:
                self._things[name] = made, size_of(made)
                self._let_go(kind, most)
        return made

    def _let_go(self, kind: str, most: int) -> None:
        same = [name for name in self._things if name[0] == kind]
        for name in same[: len(same) - most]:
            del self._things[name]
        while sum(size for _, size in self._things.values()) > self._most_bytes:
            *others, newest = self._things
            del self._things[max(others, key=lambda name: self._things[name][1], default=newest)]


def size_of(thing: Any) -> int:
    """The bytes of the arrays in something."""
    if isinstance(thing, Scores):
        return thing.edges.nbytes + thing.loss.nbytes
    if isinstance(thing, dict):
        return sum(map(size_of, thing.values()))
    if isinstance(thing, tuple):
        return sum(map(size_of, thing))
    return getattr(thing, "nbytes", 0)
