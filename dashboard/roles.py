"""Who may queue and cancel jobs.

On one's own machine everybody who reaches the pages, which is oneself. Where `PROBING_MODE=hosted`, viewers read;
those who know the token in `PROBING_ADMIN_TOKEN`, or have signed in where sign-in is set up (Streamlit's `[auth]`
secrets; `PROBING_MEMBERS` may narrow whom that lets in), may queue registered pairs, each a few at a time, into a queue
that is bounded.
"""

import hmac
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import streamlit as st

from dashboard import data
from dashboard.service import admin_token, is_hosted, is_read_only, members, sign_in_is_set_up, store
from probing.errors import PersonError
from probing.jobs.plan import Spec
from probing.pairs import load_registry
from probing.store.queue import ACTIVE

QUEUE_LIMIT = 20
"""Jobs that may wait or run at a time on a hosted server."""

PERSON_LIMIT = 3
"""Of them, jobs of one person."""

TRIES = 5
"""Wrong tokens after which a session gets no more."""


class NotAllowedError(PersonError):
    """Something that this person may not do here."""


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


def submit(spec: Spec) -> int:
    """Queue a job, or return the one that does the same already.

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
    return store().submit(spec.as_json(), who)


def may_cancel(job: dict[str, Any]) -> bool:
    """Whether this person may cancel a job: any on one's own machine and as admin, else one's own."""
    who = person()
    return who in ("local", "admin") or (who is not None and job["requested_by"] == who)


def cancel(job: int) -> None:
    """Cancel a job.

    Raises:
        NotAllowedError: it is somebody else's.
    """
    if not may_cancel(store().job(job)):
        raise NotAllowedError("This job is not yours.", "")
    store().close_job(job, "cancelled", "Cancelled.")


def sign_in() -> None:
    """Where a viewer of a hosted server becomes somebody; nothing on one's own machine."""
    if not is_hosted():
        return
    who, has_signed_in = person(), st.user.get("is_logged_in")
    if has_signed_in:
        may = "" if who is not None else ", who may look here but not compute"
        st.caption(f":material/person: Signed in as {_name(st.user)}{may}.")
        st.button("Sign out", icon=":material/logout:", on_click=st.logout)
    elif who is not None:
        st.caption(f":material/person: Signed in as {who}.")
    if who is not None:
        return
    if is_read_only():
        st.info("This server shows what has been computed; nothing new is computed here.", icon=":material/lock:")
        return
    st.info("This is a hosted server: everybody may look, and those who sign in may compute.", icon=":material/lock:")
    if sign_in_is_set_up() and not has_signed_in:
        st.button("Sign in", icon=":material/login:", on_click=st.login)
    expected = admin_token()
    if not expected or st.session_state.get("wrong_tokens", 0) >= TRIES:
        return
    with st.form("token", clear_on_submit=True):
        given = st.text_input("Admin token", type="password", max_chars=200)
        if st.form_submit_button("Unlock"):
            if hmac.compare_digest(given.encode(), expected.encode()):
                st.session_state["admin"] = True
                st.rerun()
            st.session_state["wrong_tokens"] = st.session_state.get("wrong_tokens", 0) + 1
            time.sleep(1)
            st.error("That is not the token.")
