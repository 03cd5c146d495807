"""Inference servers for tests: transformers' own, and a small one that speaks vLLM's dialect, and fails as told."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TRANSFORMERS = Path(sys.executable).with_name("transformers")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def transformers_serve(model: Path, log: Path, port: int | None = None) -> Iterator[str]:
    """`transformers serve` with a model, once it is up: its URL."""
    port = port or free_port()
    command = [TRANSFORMERS, "serve", model, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("ab") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env=environment)
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


class IdServer:
    """A server that takes and gives token ids, as vLLM does; `say` gives the tokens of an answer."""

    def __init__(self, models: list[str], say: Callable[[list[int]], tuple[list[int], str]]) -> None:
        self.models, self._say = models, say
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.before: Callable[[], Any] = lambda: None
        """What each answer waits for."""
        self.faults: list[Callable[[BaseHTTPRequestHandler], None]] = []
        """What is done to the next requests for an answer, each in place of answering it."""
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = [{"id": name, "object": "model", "owned_by": "vllm"} for name in outer.models]
                reply(self, {"object": "list", "data": data})

            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "IdServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.asked.append(body)
            self.keys.add(handler.headers["Authorization"])
            fault = self.faults.pop() if self.faults else None
        if fault is not None:
            fault(handler)
            return
        self.before()
        tokens, text = self._say(body["prompt"])
        choice = {"index": 0, "text": text, "finish_reason": "stop", "token_ids": tokens}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(tokens)}
        reply(handler, {"choices": [choice], "usage": usage})


def reply(handler: BaseHTTPRequestHandler, content: Any, status: int = 200, **headers: str) -> None:
    """Send something as JSON, or text as it is."""
    sent = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(sent)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(sent)
