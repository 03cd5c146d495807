"""What a browser may do with our pages, and by whom the server may be asked: a check of every request, and headers."""

import base64
import hashlib
import os
import re
from pathlib import Path

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.service import hosts, is_hosted

# -- the page that all else is loaded from -----------------------------------------------------------------------------

_PAGES = Path(__file__).resolve().parents[1] / "pages"

_ROOT = "window.__streamlit = {BACKEND_BASE_URL: new URL('.', window.location.href).href}"
"""Says where the server's root is, as the page's own links see it: on `/circuits` Streamlit's client would first ask
for `/circuits/_stcore/health`, and be told that there is no such thing."""

_OWN = [
    (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")
    for name in ("history.js", "drawer.js", "sections.js")
]
"""What Streamlit's client leaves out: steps of the browser's history, a drawer that closes, sections with a name."""


def _page() -> str:
    """Streamlit's page, with our scripts before its own."""
    page = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    own = "".join(f"<script>{script}</script>" for script in (_ROOT, *_OWN))
    return page.replace("<head>", f"<head>{own}", 1)


PAGE = _page()


async def _answer(request: Request) -> Response:
    return HTMLResponse(PAGE, headers={"Cache-Control": "no-cache"})


ROUTES = [Route(path, _answer) for path in ("/", *sorted(f"/{page.stem}" for page in _PAGES.glob("*.py")))]
"""The page at every address that has one."""

# -- headers -----------------------------------------------------------------------------------------------------------


def _own_scripts() -> str:
    """Hashes of the scripts that stand in the page itself, which are the only inline ones that may run."""
    scripts = re.findall(r"<script>(.*?)</script>", PAGE, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


_SOURCES = {
    "default-src": "'self'",
    "script-src": f"'self' 'wasm-unsafe-eval' {_own_scripts()}",
    "style-src": "'self' 'unsafe-inline'",  # Streamlit and Plotly write styles into the page
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    # A Hugging Face Space is shown in a frame of theirs.
    "frame-ancestors": "'self'" + (" https://huggingface.co" if "SPACE_ID" in os.environ else ""),
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}


def headers(host: str | None) -> dict[str, str]:
    """No script but our own, no frame but our own, and no address of ours told to others.

    `host` is the one that was asked for, with its port; the page may connect to nothing else. None for a strange one.
    """
    connect = "'self'"
    if host is not None and not host.startswith("["):  # which a policy cannot name
        connect += f" ws://{host} wss://{host}"  # for browsers to which 'self' is HTTP only
    policy = _SOURCES | {"connect-src": connect}
    return {
        "Content-Security-Policy": "; ".join(f"{what} {sources}" for what, sources in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }


# -- who may ask, and for what -----------------------------------------------------------------------------------------

CLOSED = ("/_stcore/metrics", "/_stcore/agent")
"""Beginnings of paths on which Streamlit tells how it is doing, or lets programs drive it: nobody's business here."""

CLOSED_TO_STRANGERS = ("/_stcore/upload_file",)
"""Beginnings of paths that a hosted server does not have, since its viewers bring no files."""

HEALTH = "/_stcore/health"
"""What may be asked for under any name, since a load balancer knows only addresses, and it says only "ok"."""


def _is_closed(path: str) -> bool:
    return path.startswith(CLOSED) or (path.startswith(CLOSED_TO_STRANGERS) and is_hosted())


_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[\w.-]+?)\.?(:\d{1,5})?", re.ASCII | re.IGNORECASE)


def is_known(host: str) -> bool:
    """Whether a host, with or without a port, is one of `service.hosts`."""
    found = _HOST.fullmatch(host)
    return found is not None and found["name"].strip("[]").lower() in hosts()


def _refusal(scope: Scope) -> Response | None:
    """Why a request is not passed on, if it is not.

    A page of another site can have its name lead here (DNS rebinding), and then its scripts may read what we answer:
    only the names that we know are ours. A WebSocket may be opened by pages of these names alone.
    """
    asked = Headers(scope=scope)
    host = ", ".join(asked.getlist("host"))
    if not is_known(host) and not (scope["type"] == "http" and scope["path"] == HEALTH):
        return PlainTextResponse(
            "This server is not known by the name by which it was asked for. "
            "If it is yours, add the name to PROBING_HOSTS and start it again.",
            421,
            headers=headers(None),
        )
    if scope["type"] == "websocket" and not all(is_known(_host_of(origin)) for origin in asked.getlist("origin")):
        return PlainTextResponse("Only pages of this server may connect to it.", 403, headers=headers(host))
    if scope["type"] == "http" and _is_closed(scope["path"]):
        return PlainTextResponse("Not Found", 404, headers=headers(host if is_known(host) else None))
    return None


def _host_of(origin: str) -> str:
    """The host and port of an origin; empty where it is not one of the web."""
    scheme, _, host = origin.partition("://")
    return host if scheme in ("http", "https") else ""


class Security:
    """ASGI middleware that turns away who may not ask, and sets `headers` on what comes back."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if (refusal := _refusal(scope)) is not None:
            await refusal(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        own = headers(host if is_known(host) else None)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(own)
            await send(message)

        async def receive_binary() -> Message:
            """What arrives; a text, which no client of Streamlit's sends, ends the connection without a traceback."""
            message = await receive()
            if message["type"] == "websocket.receive" and message.get("bytes") is None:
                await send({"type": "websocket.close", "code": 1003, "reason": "texts are not understood"})
                return {"type": "websocket.disconnect", "code": 1003}
            return message

        await self.app(scope, receive_binary, send_with_headers)
