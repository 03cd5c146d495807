"""Signing in by OpenID Connect on a hosted server, in a browser, with a provider that runs here."""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from playwright.sync_api import Browser, Page, expect

from benchmarks.serving import CHROME, Server, small_registry
from dashboard.words import JOINER
from probing.store import open_store
from tests.waiting import until

pytestmark = pytest.mark.skipif(CHROME is None, reason="needs Chromium or Chrome")

CLIENT = "circuits"


class Provider(ThreadingHTTPServer):
    """The least that OpenID Connect asks of a provider; whoever comes is `ADA`, and is not asked for a password."""

    ADA: ClassVar[dict[str, object]] = {"sub": "1815", "email": "Ada@example.org", "email_verified": True}

    def __init__(self) -> None:
        super().__init__(("localhost", 0), Answer)
        self.url = f"http://localhost:{self.server_port}"
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.nonces: dict[str, str] = {}


class Answer(BaseHTTPRequestHandler):
    """One request to the provider."""

    server: Provider

    def do_GET(self) -> None:
        """Metadata, keys, and the page at which a person signs in."""
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        url = self.server.url
        if path == "/authorize":
            assert query["client_id"] == [CLIENT]
            code = secrets.token_urlsafe()
            self.server.nonces[code] = query["nonce"][0]
            back = urlencode({"code": code, "state": query["state"][0]})
            self.send_response(302)
            self.send_header("Location", f"{query['redirect_uri'][0]}?{back}")
            self.end_headers()
        elif path == "/keys":
            self._say({"keys": [self.server.key.as_dict(private=False)]})
        else:
            self._say({"issuer": url, "authorization_endpoint": f"{url}/authorize", "token_endpoint": f"{url}/token",
                       "jwks_uri": f"{url}/keys", "response_types_supported": ["code"],
                       "id_token_signing_alg_values_supported": ["RS256"]})  # fmt: skip

    def do_POST(self) -> None:
        """A code for a token."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        now = int(time.time())
        claims = {"iss": self.server.url, "aud": CLIENT, "iat": now, "exp": now + 600}
        claims |= {"nonce": self.server.nonces.pop(form["code"][0])} | self.server.ADA
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.server.key)
        self._say({"access_token": "none", "token_type": "Bearer", "expires_in": 600, "id_token": token})

    def _say(self, answer: dict[str, object]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    running = Provider()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()


@contextmanager
def _signed_in(browser: Browser, provider: Provider, folder: Path, members: str) -> Iterator[tuple[Page, Server]]:
    """The page Runs of a hosted server, whose queue nobody works on, after a click on "Sign in"."""
    (folder / "secrets.toml").write_text(
        f'[auth]\nredirect_uri = "http://localhost:{{port}}/oauth2callback"\ncookie_secret = "{secrets.token_hex()}"\n'
        f'client_id = "{CLIENT}"\nclient_secret = "none"\n'
        f'server_metadata_url = "{provider.url}/.well-known/openid-configuration"\n'
    )
    settings = {
        "PROBING_MODE": "hosted",
        "PROBING_ADMIN_TOKEN": "",
        "PROBING_MEMBERS": members,
        "PROBING_WORKER": "elsewhere",
        "PROBING_PAIRS": str(small_registry(folder)),
        "STREAMLIT_SECRETS_FILES": str(folder / "secrets.toml"),
    }
    server = Server(folder / "store.duckdb", settings)
    try:
        page = browser.new_context().new_page()
        page.set_default_timeout(30_000)
        page.goto(f"{server.url}/runs")
        expect(page.get_by_text("everybody may look")).to_be_visible(timeout=30_000)
        expect(page.get_by_role("button", name="Queue")).to_have_count(0)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{server.url}/")  # where one comes back to
        page.get_by_role("link", name="Runs").click()
        expect(page.get_by_text(f"Signed in as Ada@{JOINER}example.org")).to_be_visible(timeout=30_000)
        yield page, server
    finally:
        server.stop()


def test_who_has_signed_in_computes_under_their_name_until_they_sign_out(
    browser: Browser, provider: Provider, tmp_path: Path
) -> None:
    with _signed_in(browser, provider, tmp_path, "babbage@example.com, *@EXAMPLE.org") as (page, server):
        page.get_by_label("Questions drawn").fill("7")
        page.get_by_label("Questions drawn").press("Enter")
        page.get_by_role("button", name="Queue").click()
        store = open_store(server.store)
        until(lambda: "Ada@example.org" in store.queue.jobs()["requested_by"].tolist())
        store.close()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{server.url}/")
        page.get_by_role("link", name="Runs").click()
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        expect(page.get_by_role("button", name="Queue")).to_have_count(0)


def test_who_has_signed_in_but_is_no_member_only_looks(browser: Browser, provider: Provider, tmp_path: Path) -> None:
    with _signed_in(browser, provider, tmp_path, "*@example.com") as (page, _):
        expect(page.get_by_text("who may look here but not compute")).to_be_visible()
        expect(page.get_by_role("button", name="Queue")).to_have_count(0)
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
