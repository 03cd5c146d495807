"""Who may queue and cancel jobs.

On one's own machine everybody who reaches the pages, which is oneself. Where `PROBING_MODE=hosted`, viewers read;
those who know the token in `PROBING_ADMIN_TOKEN`, or have signed in where sign-in is set up (Streamlit's `[auth]`
secrets; `PROBING_MEMBERS` may narrow whom that lets in), may queue registered pairs, each a few at a time, into a queue
that is bounded.
"""

import hashlib
import hmac
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import streamlit as st

from dashboard import data
from dashboard.monitoring import GUESSES
from dashboard.service import admin_token, is_hosted, is_read_only, members, sign_in_is_set_up, store
from dashboard.words import as_text
from probing.errors import PersonError
from probing.jobs.plan import Spec
from probing.pairs import load_registry
from probing.store.records import ACTIVE, JobRow

log = logging.getLogger(__name__)

QUEUE_LIMIT = 20
"""Jobs that may wait or run at a time on a hosted server."""

PERSON_LIMIT = 3
"""Of them, jobs of one person."""

PAUSE = 0.5
"""Seconds between two tokens that are looked at; for those of one address they double with each wrong one."""

LONGEST_PAUSE = 60.0
"""Where the doubling stops."""

LONGEST_WAIT = 10.0
"""Seconds for which a token may wait to be looked at; one that would have to wait longer is not."""

ADDRESSES = 10_000
"""Addresses that are remembered, those of the last tokens."""


class NotAllowedError(PersonError):
    """Something that this person may not do here."""


@dataclass
class _Source:
    """From where tokens come."""

    wrong: int = 0
    """How many were wrong, or wait to be looked at."""
    next: float = 0.0
    """When the next may be looked at."""


class Tokens:
    """Looks at the tokens that are given to this process, slowly, however many sessions give them.

    Each waits in the thread of its own session, so that nobody else does. Who guesses from one address does not keep
    out who knows the token at another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    def is_right(self, given: str, expected: str, address: str) -> bool:
        """Whether a token is the expected one; takes as long as those before it make it.

        Raises:
            NotAllowedError: it would have to wait for too long, and is not looked at.
        """
        source = self._wait(address)
        right = hmac.compare_digest(*(hashlib.sha256(token.encode()).digest() for token in (given, expected)))
        if right:
            source.wrong = 0
        else:
            GUESSES.labels("yes").inc()
            log.warning("a wrong admin token from %s, the %d. in a row", address, source.wrong)
        return right

    def _wait(self, address: str) -> _Source:
        """Return when it is a token's turn."""
        with self._lock:
            source = self._sources.setdefault(address, _Source())
            self._sources.move_to_end(address)
            if len(self._sources) > ADDRESSES:
                self._sources.popitem(last=False)
            now = time.monotonic()
            wait = max(0.0, self._next - now, source.next - now)
            if wait <= LONGEST_WAIT:
                self._next = now + wait + PAUSE
                source.next = now + wait + min(LONGEST_PAUSE, PAUSE * 2 ** min(source.wrong, 20))
                source.wrong += 1
        if wait > LONGEST_WAIT:
            GUESSES.labels("no").inc()
            raise NotAllowedError("Too many wrong tokens have been given.", f"Try again in {wait:.0f} seconds.")
        time.sleep(wait)
        return source


TOKENS = Tokens()


def person() -> str | None:
    """Who asks, if they may queue jobs; None for a viewer."""
    if not is_hosted():
        return "local"
    if st.session_state.get("admin"):
        return "admin"
    if st.user.get("is_logged_in") and _is_member(st.user):
        return _name(st.user)
    return None


def _name(user: Mapping[str, Any]) -> str:
    return str(user.get("email") or user.get("sub"))


def _is_member(user: Mapping[str, Any]) -> bool:
    """Whether somebody who has signed in is one of those who may compute, by an address that is theirs."""
    if not members():
        return True
    email = str(user.get("email") or "").casefold()
    return user.get("email_verified") is True and any(fnmatchcase(email, pattern) for pattern in members())


def submit(spec: Spec, urgent: bool = False) -> int:
    """Queue a job, or return the one that does the same already; `urgent` ones, which somebody waits for, come first.

    Raises:
        NotAllowedError: this person may not, has enough jobs, or the queue is full.
        PairError: the pair or question set is not registered.
    """
    who = person()
    if who is None:
        raise NotAllowedError("Only those who have signed in may compute here.", "Sign in on the page Runs.")
    registry = load_registry()
    registry.pair(spec.pair)
    registry.question_set(spec.questions)
    if is_hosted():
        active = data.jobs()
        active = active[active["status"].isin(ACTIVE)]
        if len(active) >= QUEUE_LIMIT:
            raise NotAllowedError(f"The queue is full ({QUEUE_LIMIT} jobs).", "Try again when some are done.")
        if (active["requested_by"] == who).sum() >= PERSON_LIMIT:
            raise NotAllowedError(f"You have {PERSON_LIMIT} jobs in the queue.", "Wait until one is done.")
    return store().queue.submit(spec.as_json(), who, urgent)


def why_not() -> str:
    """Why somebody who only looks cannot have anything computed."""
    if is_read_only():
        return "This server shows what has been computed; nothing new is computed here."
    return "On this server everybody may look, and those who sign in on the page Runs may compute."


def may_cancel(job: JobRow) -> bool:
    """Whether this person may cancel a job: any on one's own machine and as admin, else one's own."""
    who = person()
    return who in ("local", "admin") or (who is not None and job.requested_by == who)


def cancel(job: int) -> None:
    """Cancel a job.

    Raises:
        NotAllowedError: it is somebody else's.
    """
    if not may_cancel(store().queue.job(job)):
        raise NotAllowedError("This job is not yours.", "")
    store().queue.end(job, "cancelled", "Cancelled.")


def sign_in() -> None:
    """Where a viewer of a hosted server becomes somebody; nothing on one's own machine."""
    if not is_hosted():
        return
    who, has_signed_in = person(), st.user.get("is_logged_in")
    if has_signed_in:
        may = "" if who is not None else ", who may look here but not compute"
        st.caption(f":material/person: Signed in as {as_text(_name(st.user))}{may}.")
        st.button("Sign out", icon=":material/logout:", on_click=st.logout)
    elif who is not None:
        st.caption(f":material/person: Signed in as {as_text(who)}.")
    if who is not None:
        return
    st.info(why_not(), icon=":material/lock:")
    if is_read_only():
        return
    if sign_in_is_set_up() and not has_signed_in:
        st.button("Sign in", icon=":material/login:", on_click=st.login)
    expected = admin_token()
    if not expected:
        return
    with st.form("token", clear_on_submit=True):
        given = st.text_input("Admin token", type="password", max_chars=200)
        if st.form_submit_button("Unlock"):
            try:
                if TOKENS.is_right(given, expected, st.context.ip_address or "this machine"):
                    st.session_state["admin"] = True
                    st.rerun()
                st.error("That is not the token.")
            except NotAllowedError as error:
                st.error(str(error))
