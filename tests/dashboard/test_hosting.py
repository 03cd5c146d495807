"""A hosted server as docs/hosting.md describes it: real processes, with as few rights as the container gives."""

import asyncio
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import websockets
from streamlit.testing.v1 import AppTest
from websockets.typing import Origin, Subprotocol

from benchmarks.serving import Server, compute_shipped, small_registry
from benchmarks.viewer import Viewer
from dashboard import service
from dashboard.monitoring import MOST_SESSIONS, CountSessions
from probing.store import open_snapshot, open_store
from tests.conftest import ROOT
from tests.dashboard.apps import open_app

TOKEN = "a long random text"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the image is built with, of one small pair."""
    folder = tmp_path_factory.mktemp("image")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBING_PAIRS", str(small_registry(folder)))
        compute_shipped(folder / "store.duckdb")
        store = open_store(folder / "store.duckdb")
        made = store.file.snapshot().rename(folder / "snapshot.duckdb")
        store.close()
        yield made


def _hosted(snapshot: Path, **settings: str) -> dict[str, str]:
    fixed = {"PROBING_MODE": "hosted", "PROBING_ADMIN_TOKEN": "", "PROBING_LOG": "json"}
    own = {"PROBING_SNAPSHOT": str(snapshot), "PROBING_PAIRS": str(snapshot.with_name("pairs.toml"))}
    return fixed | own | settings


def _texts(server: Server, page: str = "compare") -> list[str]:
    async def look() -> list[str]:
        viewer = Viewer(server.url, random.Random(0))
        await viewer.connect()
        await viewer.open(page)
        await viewer.close()
        return viewer.texts

    return asyncio.run(look())


def _events(server: Server) -> list[dict[str, Any]]:
    """What it has logged: an object a line, without exception."""
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def _confined(writable: Path) -> list[str]:
    """The beginning of a command that may write nowhere but in one folder, and has no capabilities."""
    script = (
        'mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,ro,bind / && shift && '
        'exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(writable)]


def _can_confine(folder: Path) -> bool:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    return subprocess.run([*_confined(folder), "true"], capture_output=True).returncode == 0


def test_a_demo_that_shows_needs_no_rights_and_one_folder(snapshot: Path, tmp_path: Path) -> None:
    if not _can_confine(tmp_path):
        pytest.skip("only root may make a file system read-only")
    lying = sorted(snapshot.parent.iterdir())
    home = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    server = Server(tmp_path / "none.duckdb", _hosted(snapshot, **home), _confined(tmp_path))
    try:
        touched = subprocess.run([*_confined(tmp_path), "touch", str(snapshot.parent / "new")], capture_output=True)
        assert b"Read-only file system" in touched.stderr
        assert any("base → grpo" in text for text in _texts(server))
        assert any("nothing new is computed here" in text for text in _texts(server, "runs"))
        again = Server(tmp_path / "other.duckdb", _hosted(snapshot, **home), _confined(tmp_path))
        assert any("base → grpo" in text for text in _texts(again)), "two servers read one snapshot"
        again.stop()
        assert not psutil.Process(server.process.pid).children()
    finally:
        server.stop()
    assert sorted(snapshot.parent.iterdir()) == lying
    assert any(event["message"].endswith("read only") for event in _events(server))


def test_a_demo_that_computes_begins_as_the_snapshot_and_leaves_the_work_to_another(
    snapshot: Path, tmp_path: Path
) -> None:
    settings = _hosted(snapshot, PROBING_ADMIN_TOKEN=TOKEN, PROBING_WORKER="elsewhere")
    server = Server(tmp_path / "store.duckdb", settings)
    try:
        store = open_store(tmp_path / "store.duckdb")
        original = open_snapshot(snapshot)
        assert len(store.runs.table()) == len(original.runs.table()) > 0
        original.close()
        job = store.queue.submit({"pair": "none"})
        command = [sys.executable, "-m", "probing", "worker", "--store", str(tmp_path / "store.duckdb")]
        assert not psutil.Process(server.process.pid).children()
        worker = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings)
        for _ in range(600):
            if store.queue.job(job).status == "failed":
                break
            asyncio.run(asyncio.sleep(0.1))
        assert store.queue.job(job).status == "failed", "it was worked on"
        store.close()
        worker.terminate()
        assert worker.wait(timeout=30) == 0
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_operator_is_told_how_it_goes_and_nobody_else(snapshot: Path, tmp_path: Path) -> None:
    port = _free_port()
    server = Server(tmp_path / "none.duckdb", _hosted(snapshot, PROBING_METRICS=f"127.0.0.1:{port}"))

    asked: list[str] = []

    def metrics() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        asked[:] = ["\n".join(lines)]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    async def while_looking() -> dict[str, float]:
        viewers = [Viewer(server.url, random.Random(k)) for k in range(3)]
        for viewer in viewers:
            await viewer.connect()
            await viewer.open("")
        found = await asyncio.to_thread(metrics)
        for viewer in viewers:
            await viewer.close()
        return found

    try:
        during = asyncio.run(while_looking())
        assert during["probing_sessions"] == 3
        assert during['probing_jobs{status="done"}'] == 2
        assert during["probing_store_bytes"] == snapshot.stat().st_size
        assert 0 < during["probing_store_memory_bytes"] < 2**28
        assert "probing_batch_seconds_count" in during
        assert "# TYPE probing_wrong_tokens_total counter" in asked[0]
        for path in ("_stcore/metrics", "_stcore/agent/openapi.json"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{server.url}/{path}")
            assert refused.value.code == 404
    finally:
        server.stop()


def _status(port: int, path: str, **headers: str) -> tuple[int, str]:
    """What a request is answered with: the status, and all of the rest as text; headers are sent as they stand."""
    sent = {"Connection": "close"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        reply = b""
        while not reply.startswith(b"HTTP/1.1 101") and (more := connection.recv(65536)):
            reply += more
    return int(reply.split()[1]), reply.decode(errors="replace")


def _shake_hands(port: int, host: str, **headers: str) -> tuple[int, str]:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Protocol": "streamlit"}
    return _status(port, "/_stcore/stream", Host=host, **upgrade, **key, **headers)


OWN = ("localhost", "LOCALHOST:1234", "127.0.0.1", "127.0.0.1:80", "[::1]:8501", "localhost.", "circuits.example.org",
       "Circuits.Example.org:443", "[2001:db8::1]", "somebody-circuits.hf.space", "xn--bcher-kva.example")  # fmt: skip
FOREIGN = ("evil.example", "evil.example:8501", "localhost.evil.example", "evil-localhost", "circuits.example.org.evil",
           "203.0.113.7", "0.0.0.0", "", "localhost evil", "localhost@evil.example", "localhost:80:80", "localhost/",
           "localhost, evil.example", "sub.circuits.example.org")  # fmt: skip


def test_only_the_names_of_this_server_are_answered_over_http_and_websocket(snapshot: Path, tmp_path: Path) -> None:
    named = {"PROBING_HOSTS": "circuits.example.org, bücher.example [2001:db8::1]"}
    server = Server(tmp_path / "none.duckdb", _hosted(snapshot, SPACE_HOST="somebody-circuits.hf.space", **named))
    try:
        for host in OWN:
            status, answer = _status(server.port, "/circuits", Host=host)
            assert status == 200, host
            policy = re.findall("connect-src ([^;\r]*)", answer)
            assert policy == ["'self'" if "[" in host else f"'self' ws://{host} wss://{host}"]
            assert _shake_hands(server.port, host, Origin=f"https://{host}")[0] == 101, host
            assert _shake_hands(server.port, host)[0] == 101, "not a browser"
        for host in FOREIGN:
            for path in ("/", "/circuits", "/_stcore/host-config", "/static/nothing"):
                status, answer = _status(server.port, path, Host=host)
                assert status in (400, 421), host
                assert host == "" or host not in answer
            assert _shake_hands(server.port, host, Origin=f"http://{host}")[0] in (400, 421), host
            if host:
                assert _shake_hands(server.port, "localhost", Origin=f"http://{host}")[0] == 403, host
        for origin in ("null", "file://", "localhost", "http://", "http://[", "chrome-extension://localhost"):
            assert _shake_hands(server.port, "localhost", Origin=origin)[0] == 403, origin
        assert "add the name to PROBING_HOSTS" in _status(server.port, "/", Host="evil.example")[1]
        assert "add the name to PROBING_HOSTS" in _shake_hands(server.port, "evil.example")[1]
        health = _status(server.port, "/_stcore/health", Host="10.1.2.3:8501")
        assert health[0] == 200, "a load balancer knows an address only"
        assert health[1].endswith("ok")
    finally:
        server.stop()


def test_whatever_a_viewer_sends_each_line_of_the_log_is_an_object(snapshot: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "none.duckdb", _hosted(snapshot))
    address = server.url.replace("http", "ws") + "/_stcore/stream"

    async def send(frame: str | bytes) -> int | None:
        protocol = [Subprotocol("streamlit")]
        async with websockets.connect(address, origin=Origin(server.url), subprotocols=protocol) as connection:
            await connection.send(frame)
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    await asyncio.wait_for(connection.recv(), 10)
            return connection.close_code

    try:
        assert asyncio.run(send("a text")) == 1003
        assert asyncio.run(send(b"\xff\xff\xff")) == 1002
        assert _status(server.port, "/%00", Host="localhost")[0] in (200, 400, 404)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"no HTTP\r\n\r\n")
            connection.recv(1000)
        _texts(server)
    finally:
        server.stop()
    events = _events(server)
    assert events
    for event in events:
        assert {"time", "level", "logger", "process", "message"} <= event.keys()
        assert "text frames" not in str(event), "which nobody can make us say"


def test_a_page_of_another_site_cannot_connect(snapshot: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "none.duckdb", _hosted(snapshot))

    async def connect(origin: str) -> None:
        address = server.url.replace("http", "ws") + "/_stcore/stream"
        async with websockets.connect(address, origin=Origin(origin), subprotocols=[Subprotocol("streamlit")]):
            pass

    try:
        asyncio.run(connect(server.url))
        with pytest.raises(websockets.InvalidStatus, match="403"):
            asyncio.run(connect("https://evil.example"))
        upload = urllib.request.Request(f"{server.url}/_stcore/upload_file/x/y", data=b"x", method="PUT")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(upload)
    finally:
        server.stop()


UNFIT = [
    ({"PROBING_ADMIN_TOKEN": "short"}, "PROBING_ADMIN_TOKEN has fewer than 16 characters"),
    ({"PROBING_MODE": "public"}, "PROBING_MODE is 'public'. It can be local or hosted."),
    ({"PROBING_ADMIN_TOKEN": TOKEN, "PROBING_WORKER": "there"}, "PROBING_WORKER is 'there'"),
    ({"PROBING_METRICS": "9464"}, "PROBING_METRICS is '9464'. It is HOST:PORT"),
    ({"PROBING_LOG": "xml"}, "PROBING_LOG is 'xml'"),
    ({"PROBING_HOSTS": "a.org https://b.org"}, "PROBING_HOSTS has 'https://b.org'. It is a list of names"),
    ({"PROBING_HOSTS": "a.org:8501"}, "PROBING_HOSTS has 'a.org:8501'"),
    ({"PROBING_SNAPSHOT": "/none.duckdb"}, "There is no store /none.duckdb"),
]

EACH = """
import json, os, signal, sys
from streamlit.web import cli
import dashboard.service  # what takes long to import

for number, settings in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        os.dup2(os.open(f"{sys.argv[2]}/{number}.log", os.O_CREAT | os.O_WRONLY), 2)
        os.environ.update(settings, PROBING_STORE=f"{sys.argv[2]}/{number}.duckdb")
        signal.alarm(60)
        cli.main(["run", "app.py", "--server.port", "0"])
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Streamlit's command under each of some settings, in a process that has imported what it needs."""


def test_settings_with_which_it_cannot_run_stop_it_with_a_sentence(snapshot: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", EACH, json.dumps([settings for settings, _ in UNFIT]), str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | _hosted(snapshot), capture_output=True, text=True)
    assert run.stdout.split() == ["2"] * len(UNFIT), run.stderr
    for number, (_, says) in enumerate(UNFIT):
        said = (tmp_path / f"{number}.log").read_text()
        assert says in said
        assert "Traceback" not in said


def test_more_visitors_than_there_is_room_for_are_turned_away() -> None:
    async def forever(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def crowd() -> None:
        counted = CountSessions(forever)
        scope = {"type": "websocket"}
        inside = [asyncio.create_task(counted(scope, send, send)) for _ in range(MOST_SESSIONS)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.wait_for(counted(scope, send, send), 1)  # type: ignore[arg-type]
        assert [message["code"] for message in sent] == [1013]
        inside[0].cancel()
        await asyncio.sleep(0)
        inside[0] = asyncio.create_task(counted(scope, send, send))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert len(sent) == 1, "one has left, one may come"
        for task in inside:
            task.cancel()

    asyncio.run(crowd())


# -- what viewers are told ---------------------------------------------------------------------------------------------


def _all_texts(app: AppTest) -> str:
    kinds = ("markdown", "caption", "info", "warning", "error", "code", "title", "subheader", "metric", "json", "latex")
    texts = [str(getattr(element, "value", "")) for kind in kinds for element in app.get(kind)]
    tables = [frame.value.to_string() for frame in app.dataframe]
    return "\n".join([*texts, *tables])


@pytest.mark.parametrize("page", ["compare", "circuits", "transplant", "questions", "timeline", "runs", "methods"])
def test_viewers_see_no_folder(full: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = service.store()
    job = store.queue.submit({**json.loads(store.queue.jobs()["spec"].iloc[-1]), "pair": "mistral"})
    store.queue.end(job, "failed", f"Cannot read {ROOT}/data/pairs.toml: No such file or directory.")
    monkeypatch.setenv("PROBING_MODE", "hosted")
    monkeypatch.setenv("PROBING_ADMIN_TOKEN", TOKEN)
    app = open_app(page)
    assert not app.exception
    shown = _all_texts(app)
    assert str(ROOT) not in shown
    assert str(full.parent) not in shown
    if page == "runs":
        assert "Cannot read pairs.toml" in shown


def test_a_store_that_fails_under_a_viewer_is_said_without_its_folder(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBING_MODE", "hosted")
    monkeypatch.setenv("PROBING_ADMIN_TOKEN", TOKEN)
    service.store().close()
    service.store.cache_clear()
    full.write_bytes(b"no store" * 1000)
    app = open_app()
    (said,) = [error.value for error in app.error]
    assert said.startswith("store.duckdb is not a store that this program can open")
    full.unlink()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Cannot read /data/models/x/config.json: No such file.", "Cannot read config.json: No such file."),
        ("'/a/b' and \"/c/d\"", "'b' and \"d\""),
        ("See https://example.org/a/b.", "See https://example.org/a/b."),
        ("α 0.1/0.3, base/tuned, 3/4", "α 0.1/0.3, base/tuned, 3/4"),
    ],
)
def test_folders_are_taken_out_of_what_strangers_read(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert service.public(text) == text
    monkeypatch.setenv("PROBING_MODE", "hosted")
    assert service.public(text) == shown
