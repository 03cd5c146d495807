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


def _come_again(store: Path, say: Callable[[socket.socket], None]) -> None:
    while True:
        with contextlib.suppress(OSError, ValueError), connect(store) as stray:
            say(stray)
            until_hung_up(stray)
        time.sleep(0.5)


def main() -> None:
    """Keep a crowd connected; one who was hung up on comes again."""
    for say in STRAYS.values():
        for _ in range(EACH):
            threading.Thread(target=_come_again, args=(Path(sys.argv[1]), say), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
