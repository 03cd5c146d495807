"""What runs behind the pages for as long as the server does: the store, a worker process for its queue, and a process
that answers in the playground.

Pages never compute scores; they read the store, add jobs to its queue and ask the playground. How a server behaves is
decided by its environment, which docs/hosting.md describes.
"""

import contextlib
import ctypes
import gc
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pyarrow
import streamlit as st
import uvicorn

from dashboard import monitoring
from probing import logs
from probing.errors import PersonError
from probing.jobs.plan import make_request
from probing.jobs.shipped import is_done, shipped
from probing.jobs.supervisor import Supervisor, log_path
from probing.pairs import load_registry
from probing.playground import Door
from probing.store import Store, default_path, open_snapshot, open_store
from probing.store.sharing import restore

log = logging.getLogger(__name__)

SHORTEST_TOKEN = 16
"""Characters of an admin token that cannot be guessed."""


def _one_of(name: str, *values: str) -> str:
    value = os.environ.get(name, values[0])
    if value not in values:
        raise PersonError(f"{name} is '{value}'.", f"It can be {' or '.join(values)}.")
    return value


def is_hosted() -> bool:
    """Whether strangers look at the pages.

    Raises:
        PersonError: `PROBING_MODE` is neither `local` nor `hosted`.
    """
    return _one_of("PROBING_MODE", "local", "hosted") == "hosted"


def admin_token() -> str:
    """What unlocks a hosted server; empty where nothing does."""
    return os.environ.get("PROBING_ADMIN_TOKEN", "")


def members() -> tuple[str, ...]:
    """Patterns of the mail addresses whose owners may compute once they have signed in; none where all may."""
    return tuple(os.environ.get("PROBING_MEMBERS", "").casefold().replace(",", " ").split())


LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def hosts() -> frozenset[str]:
    """The names by which this server may be asked: this machine's own, `server.address`, and those in `PROBING_HOSTS`.

    A Hugging Face Space also has the name that it is given there.

    Raises:
        PersonError: `PROBING_HOSTS` has something that is not the name of a host.
    """
    return _hosts(
        st.get_option("server.address") or "", os.environ.get("PROBING_HOSTS", ""), os.environ.get("SPACE_HOST", "")
    )


@lru_cache(maxsize=1)
def _hosts(address: str, named: str, space: str) -> frozenset[str]:
    own = {*LOCAL_NAMES, address.lower()} - {"", "0.0.0.0", "::"}  # the last two are no names, but all addresses
    for name in f"{named} {space}".replace(",", " ").split():
        try:
            known = str(ip_address(name.strip("[]")))
        except ValueError:
            known = name.lower().rstrip(".")
            with contextlib.suppress(UnicodeError):
                known = known.encode("idna").decode()
            if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", known, re.ASCII):
                raise PersonError(
                    f"PROBING_HOSTS has '{name}'.",
                    "It is a list of names such as circuits.example.org.",
                ) from None
        own.add(known)
    return frozenset(own)


def sign_in_is_set_up() -> bool:
    """Whether Streamlit's secrets say how people sign in."""
    try:
        return "auth" in st.secrets
    except FileNotFoundError:
        return False


def public(text: str) -> str:
    """A text for those who look at the pages: strangers are not told in which folders things lie."""
    return re.sub(r"(?<![\w/:])/(?:[^\s/'\"]+/)+", "", text) if is_hosted() else text


def is_read_only() -> bool:
    """Whether nobody can compute here: a hosted server that nobody can unlock."""
    return is_hosted() and not admin_token() and not sign_in_is_set_up()


@lru_cache(maxsize=1)
def store() -> Store:
    """The store of this server; a new one starts from `PROBING_SNAPSHOT` where that is set.

    Raises:
        StoreError: it cannot be opened.
    """
    path, snapshot = default_path(), os.environ.get("PROBING_SNAPSHOT")
    if is_read_only():
        return open_snapshot(Path(snapshot) if snapshot and not path.exists() else path)
    if snapshot and not path.exists():
        restore(Path(snapshot), path)
    return open_store(path)


def _computes() -> bool:
    """Whether this server has a worker of its own."""
    return _one_of("PROBING_WORKER", "here", "elsewhere") == "here" and not is_read_only()


def plays() -> bool:
    """Whether visitors can ask the models of the playground.

    Raises:
        PersonError: `PROBING_PLAYGROUND` is neither `on` nor `off`.
    """
    return _one_of("PROBING_PLAYGROUND", "on", "off") == "on"


@lru_cache(maxsize=1)
def door() -> Door:
    """The way to the playground's process, which starts when the first visitor asks. Larger pairs are let in where this
    server computes."""
    return Door(_computes(), log=None if is_hosted() else log_path(store().path))


def queue_shipped() -> None:
    """Queue what the shipped pairs still lack, as far as `PROBING_START` wants it; nothing on a store that has it all.

    Raises:
        PersonError: `PROBING_START` is no such thing, or the registry cannot be read.
    """
    wanted = _one_of("PROBING_START", "evidence", "comparisons", "nothing")
    if wanted == "nothing":
        return
    registry = load_registry()
    for spec in shipped(registry, () if wanted == "comparisons" else None):
        try:
            if not is_done(store(), make_request(spec, registry)):
                store().queue.submit(spec.as_json())
        except PersonError as error:
            log.warning("pair %s: %s", spec.pair, error)


_TIDYING = 5.0
"""Seconds between collections of the memory that page runs leave behind."""


def _tidy(ended: threading.Event) -> None:
    """Keep memory small: give back every few seconds what is no longer used.

    Streamlit would collect after every run of a page, which took a third of the run's time. With `MALLOC_ARENA_MAX=1`
    in the environment, as `make app` and the image have it, memory does not split over the threads of page runs, each
    of which would keep tens of megabytes.
    """
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    gc.freeze()  # what has been imported stays, and need not be looked through again and again
    libc = None
    with contextlib.suppress(OSError):  # where the C library is another than glibc
        libc = ctypes.CDLL("libc.so.6")
    while not ended.wait(_TIDYING):
        gc.collect()
        if libc is not None:
            libc.malloc_trim(0)


def _work(supervisor: Supervisor) -> None:
    try:
        queue_shipped()
    except PersonError as error:
        log.error("%s", error)
    supervisor.watch()


GRACE = 5
"""Seconds that viewers have to take what they are being sent when the server ends."""


@contextlib.contextmanager
def _or_end() -> Iterator[None]:
    """Settings or a store with which the server cannot run end it with a sentence, before anybody sees a page."""
    try:
        yield
    except PersonError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the one thing that is not a log
        os._exit(2)


def begin() -> None:
    """Look at the settings, and log as they say, before the server says its first word."""
    with _or_end():
        logs.set_up(verbose=True)
        hosts()
        if is_hosted() and 0 < len(admin_token()) < SHORTEST_TOKEN:
            raise PersonError(f"PROBING_ADMIN_TOKEN has fewer than {SHORTEST_TOKEN} characters.", "Choose a long one.")


def _end_in_time() -> None:
    """Let the server end though somebody keeps a connection open, or does not read what they are sent.

    uvicorn would wait for them for ever: Streamlit starts it without a limit. It is who handles signals here.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(server, uvicorn.Server):
        server.config.timeout_graceful_shutdown = GRACE


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Open the store and keep a worker for as long as the server runs."""
    started = time.monotonic()
    _end_in_time()
    with _or_end():
        store()
        plays()
        supervisor = Supervisor(store(), log_to_file=not is_hosted()) if _computes() else None
        monitoring.serve(store, supervisor)
    thread = threading.Thread(target=_work, args=(supervisor,), daemon=True, name="supervisor") if supervisor else None
    if thread:
        thread.start()
    ended = threading.Event()
    threading.Thread(target=_tidy, args=(ended,), daemon=True, name="tidying").start()
    kind = "read only" if is_read_only() else "with a queue"
    log.info(
        "http://localhost:%d is ready after %.1f s, %s", st.get_option("server.port"), time.monotonic() - started, kind
    )
    try:
        yield {}
    finally:
        ended.set()
        if supervisor and thread:
            supervisor.stop()
            thread.join(timeout=20)
        if door.cache_info().currsize:
            door().close()
            door.cache_clear()
        store().close()
        store.cache_clear()
