"""Whoever connects to a store's owner and is no caller: what they say, and a crowd of them.

python -m benchmarks.strays STORE           # keeps 50 connected to the owner of a store, until its input ends
"""

import contextlib
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, answer_challenge
from pathlib import Path

from probing.store.owner import owner_file

EACH = 10
"""Strays of each kind in a crowd."""


def _request(stray: socket.socket) -> None:
    stray.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")


def _half_a_frame(stray: socket.socket) -> None:
    stray.sendall(struct.pack("!i", 200) + b"half")


def _long_frame(stray: socket.socket) -> None:
    stray.sendall(struct.pack("!iQ", -1, 1 << 40) + bytes(10_000))


def _wrong_key(stray: socket.socket) -> None:
    with contextlib.suppress(Exception), Connection(stray.dup().detach()) as connection:
        answer_challenge(connection, b"guess")


STRAYS: dict[str, Callable[[socket.socket], None]] = {
    "a plain HTTP request": _request,
    "an idle connection": lambda stray: None,
    "half a frame": _half_a_frame,
    "an over-long frame": _long_frame,
    "a wrong key": _wrong_key,
}
"""What each kind says, once."""


def connect(store: Path) -> socket.socket:
    """A connection to the owner of a store that has said nothing yet."""
    stray = socket.socket(socket.AF_UNIX)
    stray.settimeout(30)
    stray.connect(json.loads(owner_file(store).read_text())["socket"])
    return stray


def until_hung_up(stray: socket.socket) -> None:
    """Read until the other side ends the connection."""
    with contextlib.suppress(ConnectionError):
        while stray.recv(4096):
            pass


class _Crowd:
    """Some of each kind, who come again half a second after they were hung up on."""

    def __init__(self, store: Path) -> None:
        self.visits = 0
        self.wanted = threading.Event()
        self.here: set[int] = set()
        self._store = store
        self._counting = threading.Lock()
        for number, say in enumerate(EACH * list(STRAYS.values())):
            threading.Thread(target=self._come, args=(number, say), daemon=True).start()

    def _come(self, number: int, say: Callable[[socket.socket], None]) -> None:
        while self.wanted.wait():
            with contextlib.suppress(OSError, ValueError), connect(self._store) as stray:
                with self._counting:
                    self.visits += 1
                    self.here.add(number)
                say(stray)
                stray.settimeout(0.5)
                while self.wanted.is_set():
                    with contextlib.suppress(TimeoutError):
                        until_hung_up(stray)
                        break
            self.here.discard(number)
            time.sleep(0.5)


def main() -> None:
    """Be a crowd."""
    crowd = _Crowd(Path(sys.argv[1]))
    for _ in sys.stdin:
        if crowd.wanted.is_set():
            crowd.wanted.clear()
            while crowd.here:
                time.sleep(0.01)
        else:
            before = crowd.visits
            crowd.wanted.set()
            while crowd.visits < before + EACH * len(STRAYS):
                time.sleep(0.01)
        print(crowd.visits, flush=True)


if __name__ == "__main__":
    main()
