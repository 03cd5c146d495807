"""The real server process, without a browser: sudden deaths and stores that cannot be opened."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import streamlit as st

from benchmarks.serving import Server, small_registry
from dashboard.service import GRACE
from probing.jobs.numerics import make_plan
from probing.jobs.plan import SIDES
from probing.jobs.shipped import shipped
from probing.pairs import load_registry
from probing.store import Store, open_store
from tests.conftest import ROOT
from tests.waiting import until

IDLE = {"PROBING_START": "nothing"}
"""A server that starts no worker."""


@pytest.fixture(autouse=True)
def _few_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBING_PAIRS", str(small_registry(tmp_path, 320)))


def _worker_of(server: Server) -> int | None:
    children = psutil.Process(server.process.pid).children()
    return children[0].pid if children else None


def _answers(store: Store, rollouts: list[str]) -> int:
    return sum(len(store.rollouts.answered(key)) for key in rollouts)


def _rollouts() -> list[str]:
    registry = load_registry()
    return list({make_plan(spec, registry).rollout_key(side) for spec in shipped(registry) for side in SIDES})


def test_a_killed_worker_or_dashboard_loses_no_finished_batch_and_the_next_resumes(tmp_path: Path) -> None:
    first = Server(tmp_path / "store.duckdb")
    store = open_store(first.store)  # through the server, as the command line would
    rollouts = _rollouts()
    until(lambda: _answers(store, rollouts) >= 64, 300)
    killed = _worker_of(first)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    until(lambda: _worker_of(first) not in (None, killed))
    until(lambda: _answers(store, rollouts) >= 128, 300)
    seen, worker = _answers(store, rollouts), _worker_of(first)
    assert worker not in (None, killed), "it is started again"
    assert "libtorch" not in Path(f"/proc/{first.process.pid}/maps").read_text()
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    until(lambda: not Path(f"/proc/{worker}").exists(), 120)
    assert _answers(store, rollouts) >= seen
    store.close()
    second = Server(first.store)
    again = open_store(second.store)
    assert _answers(again, rollouts) >= seen
    until(lambda: again.comparisons.table()["base_run"].notna().any(), 300)
    assert "libtorch" not in Path(f"/proc/{second.process.pid}/maps").read_text()
    assert len(again.queue.jobs()["spec"].unique()) == len(again.queue.jobs()), "no job was queued twice"
    again.close()
    second.stop()


def test_a_stopped_server_leaves_no_process_behind(tmp_path: Path) -> None:
    server = Server(tmp_path / "store.duckdb")
    until(lambda: _worker_of(server) is not None, 30)
    worker = _worker_of(server)
    server.stop()
    assert not Path(f"/proc/{worker}").exists()


def test_a_stopped_server_waits_for_nobody_who_does_not_read_or_let_go(tmp_path: Path) -> None:
    server = Server(tmp_path / "store.duckdb", IDLE)
    largest = max((Path(st.__file__).parent / "static" / "static" / "js").iterdir(), key=lambda f: f.stat().st_size)
    held = []
    for request in (f"GET /static/js/{largest.name} HTTP/1.1\r\nHost: localhost\r\n\r\n", "", "GET / HTTP/1.1\r\n"):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request.encode())
        held.append(connection)
    time.sleep(1)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < GRACE + 15
    assert not server.store.with_name(server.store.name + ".owner").exists(), "the store was closed"
    for connection in held:
        connection.close()


def test_a_store_that_cannot_be_opened_stops_the_server_with_a_sentence(tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"
    store.write_text("not a database" * 1000)
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", "0"]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PROBING_STORE": str(store)}, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert f"{store} is not a store that this program can open" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_hugging_face_space_may_be_shown_in_their_frame(tmp_path: Path) -> None:
    server = Server(tmp_path / "store.duckdb", {"SPACE_ID": "somebody/circuits", **IDLE})
    with urllib.request.urlopen(server.url) as reply:
        assert "frame-ancestors 'self' https://huggingface.co;" in reply.headers["Content-Security-Policy"]
    server.stop()


def test_every_answer_says_what_a_browser_may_do(tmp_path: Path) -> None:
    server = Server(tmp_path / "store.duckdb", IDLE)
    for path in ("", "circuits", "_stcore/health", "static/nothing"):
        try:
            with urllib.request.urlopen(f"{server.url}/{path}") as reply:
                headers = reply.headers
        except urllib.error.HTTPError as error:
            headers = error.headers
        policy = headers["Content-Security-Policy"]
        assert "frame-ancestors 'self'" in policy
        assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
    server.stop()
