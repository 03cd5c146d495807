"""What a browser may do with our pages: headers on every answer of the server."""

import base64
import hashlib
import os
import re
from pathlib import Path

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.service import is_hosted


def _own_scripts() -> str:
    """Hashes of the scripts that stand in Streamlit's page itself, which are the only inline ones that may run."""
    page = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


_SOURCES = {
    "default-src": "'self'",
    "script-src": f"'self' 'wasm-unsafe-eval' {_own_scripts()}",
    "style-src": "'self' 'unsafe-inline'",  # Streamlit and Plotly write styles into the page
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' ws: wss:",
    "worker-src": "'self' blob:",
    # A Hugging Face Space is shown in a frame of theirs.
    "frame-ancestors": "'self'" + (" https://huggingface.co" if "SPACE_ID" in os.environ else ""),
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}

HEADERS = {
    "Content-Security-Policy": "; ".join(f"{what} {sources}" for what, sources in _SOURCES.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""No script but our own, no frame but our own, and no address of ours told to others."""


CLOSED = ("/_stcore/metrics", "/_stcore/agent")
"""Beginnings of paths on which Streamlit tells how it is doing, or lets programs drive it: nobody's business here."""

CLOSED_TO_STRANGERS = ("/_stcore/upload_file",)
"""Beginnings of paths that a hosted server does not have, since its viewers bring no files."""


def _is_closed(path: str) -> bool:
    return path.startswith(CLOSED) or (path.startswith(CLOSED_TO_STRANGERS) and is_hosted())


class Security:
    """ASGI middleware that sets `HEADERS`, and knows nothing of the paths that are closed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to what comes back."""

        if scope["type"] == "http" and _is_closed(scope["path"]):
            await PlainTextResponse("Not Found", 404, headers=HEADERS)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)
