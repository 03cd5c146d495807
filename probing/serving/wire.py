"""Asking a server over HTTP: one JSON object goes, one comes back, and what may pass is tried again.

Every request has a connection of its own, so that all can be broken off at once: a server then stops generating what
nobody waits for.
"""

import http.client
import json
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlsplit

from probing.errors import ServerError, in_short

KEY = "PROBING_SERVED_KEY"
"""The environment variable that holds a server's API key, which is sent and never stored."""

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)
"""Seconds before each further try: three minutes, in which a server that was killed may have its model loaded again."""

LARGEST = 64 << 20
"""Bytes of one reply."""

_PASSING = {408, 425, 429, 500, 502, 503, 504}


class ReplyError(ServerError):
    """A server replied that it will not do this, or with nonsense."""

    def __init__(self, what: str, remedy: str = "", status: int = 200, after: float = 0.0) -> None:
        super().__init__(what, remedy)
        self.passing = status in _PASSING
        """Whether it may do it if asked again, in so many seconds:"""
        self.after = after


class Endpoint:
    """A server's address, `http://host:port/v1`. Its methods may be called from many threads."""

    def __init__(self, url: str, timeout: float, waits: Sequence[float] = WAITS) -> None:
        """`timeout`: seconds without a byte after which a request has failed.

        Raises:
            ServerError: that is no address.
        """
        self.url, self._timeout, self._waits = url, timeout, waits
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            parts = urlsplit("")
            self._host = ""
        if parts.scheme not in ("http", "https") or not self._host or parts.username or parts.query:
            raise ServerError(f"'{url}' is not the address of a server.", "It looks like http://localhost:8000/v1.")
        self._secure, self._path = parts.scheme == "https", parts.path.rstrip("/")
        self._open: set[Any] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def get(self, path: str) -> dict[str, Any]:
        """What stands at a path, asked for once; it raises what `post` does."""
        return self._once("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What a server replies, asked again after each of the waits while it is away or overloaded.

        Raises:
            ReplyError: it will not do this, or replies with nonsense.
            ServerError: it stays away, or `stop` was called.
        """
        for wait in self._waits:
            try:
                return self._once("POST", path, body)
            except ServerError as error:
                lasting = isinstance(error, ReplyError) and not error.passing
                asked = error.after if isinstance(error, ReplyError) else 0.0
                if lasting or self._stopped.wait(max(wait, asked)):
                    raise
        return self._once("POST", path, body)

    def stop(self) -> None:
        """Break off every request that is under way, and those to come."""
        self._stopped.set()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        key = os.environ.get(KEY)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        with closing(kind(self._host, self._port, timeout=self._timeout)) as connection:
            under_way = None
            try:
                connection.connect()
                under_way = connection.sock  # the connection forgets it once the reply is there
                with self._lock:
                    if self._stopped.is_set():
                        raise ServerError(f"{self.url} is not asked any more.")
                    self._open.add(under_way)
                connection.request(method, self._path + path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                said = response.read(LARGEST)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ServerError(
                    f"The server at {self.url} does not answer: {in_short(error)}.",
                    "Start it, or correct its address; what it has answered is kept.",
                ) from error
            finally:
                with self._lock:
                    self._open.discard(under_way)
        return self._read(response, said)

    def _read(self, response: http.client.HTTPResponse, said: bytes) -> dict[str, Any]:
        told = said.decode("utf-8", "replace")
        if response.status != http.client.OK:
            after = 0.0
            with suppress(TypeError, ValueError):
                after = min(float(response.headers["Retry-After"]), max(WAITS))
            raise ReplyError(
                f"The server at {self.url} replied {response.status}: {told[:200]}",
                f"Is {KEY} its key?" if response.status in (401, 403) else "See what it logs.",
                response.status,
                after,
            )
        try:
            found = json.loads(told)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ReplyError(
                f"The server at {self.url} replied with something else than a JSON object: {told[:100]}",
                "The address should end where /completions follows, mostly in /v1.",
            )
        return found
