"""A chat endpoint on this machine, for tests of what talks to one: what it answers, and what goes wrong, each test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer(ThreadingHTTPServer):
    """Keeps the bodies that it was sent."""

    daemon_threads = True

    def __init__(self, handler: type[ChatHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def base_url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/v1"


class ChatHandler(BaseHTTPRequestHandler):
    """What handlers share: reading a question, answering it as a chat completion or with any bytes."""

    def question(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, text: str, finish: str = "stop", **more: Any) -> None:
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
        self.send(200, json.dumps({"choices": [choice], **more}).encode())

    def send(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # the client did not wait

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """The server at work until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
