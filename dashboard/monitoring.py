"""What an operator's Prometheus may know: sessions, wrong tokens, queue, batch seconds, the store's size, dead workers.

It is served on an address of its own, `PROBING_METRICS=HOST:PORT`, so that the pages' proxy does not show it.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from probing.errors import PersonError
from probing.jobs.supervisor import Supervisor
from probing.store import Store

SESSIONS = prometheus_client.Gauge("probing_sessions", "Browser tabs that are connected")

GUESSES = prometheus_client.Counter(
    "probing_wrong_tokens", "Admin tokens that were wrong, or were not looked at since too many were", ["looked_at"]
)

MOST_SESSIONS = 500
"""Tabs that may be connected at a time; one takes a megabyte or two."""


class CountSessions:
    """ASGI middleware that counts open WebSocket connections, one for each browser tab, and limits them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
        elif self._open >= MOST_SESSIONS:
            await send({"type": "websocket.close", "code": 1013, "reason": "too many visitors"})
        else:
            self._open += 1
            SESSIONS.set(self._open)
            try:
                await self.app(scope, receive, send)
            finally:
                self._open -= 1
                SESSIONS.set(self._open)


class _OfTheStore(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, store: Callable[[], Store], supervisor: Supervisor | None) -> None:
        self._store = store
        self._supervisor = supervisor

    def collect(self) -> Iterator[Metric]:
        store = self._store()
        jobs = GaugeMetricFamily("probing_jobs", "Jobs in the store", labels=["status"])
        counted = store.queue.jobs()["status"].value_counts()
        for status in ("queued", "running", "done", "failed", "cancelled"):
            jobs.add_metric([status], int(counted.get(status, 0)))
        yield jobs
        log = store.path.with_name(store.path.name + ".wal")
        size = sum(_size(path) for path in (store.path, log))
        yield GaugeMetricFamily("probing_store_bytes", "Size of the store's file and its log", size)
        held = store.file.memory()
        yield GaugeMetricFamily("probing_store_memory_bytes", "Memory that the database holds for the store", held)
        if self._supervisor is not None:
            yield CounterMetricFamily("probing_worker_deaths", "Workers that died or hung", self._supervisor.deaths)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def serve(store: Callable[[], Store], supervisor: Supervisor | None) -> None:
    """Answer Prometheus at `PROBING_METRICS`, if that is set.

    Raises:
        PersonError: it is not HOST:PORT, or that address is taken.
    """
    address = os.environ.get("PROBING_METRICS")
    if not address:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise PersonError(f"PROBING_METRICS is '{address}'.", "It is HOST:PORT, such as 127.0.0.1:9464.")
    prometheus_client.REGISTRY.register(_OfTheStore(store, supervisor))
    try:
        prometheus_client.start_http_server(int(port), host)
    except (OSError, OverflowError) as error:
        raise PersonError(f"Metrics cannot be served at {address}: {error}.", "Name another address.") from error
