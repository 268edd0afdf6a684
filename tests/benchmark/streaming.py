"""A small HTTP server that streams completions as vLLM does, at a pace that is known."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Pace:
    """Seconds to the first token and between tokens; what else the server does wrong."""

    first: float = 0.02
    between: float = 0.004
    longest: int = 4096
    model: str = "known"
    fail: int = 0
    refuse: int = 0
    usage: bool = True
    key: str | None = None
    cut: bool = False
    chunked: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Streaming"

    def do_GET(self) -> None:
        pace = self.server.pace
        if pace.key is not None and self.headers["authorization"] != f"Bearer {pace.key}":
            self._say(401, {})
        else:
            self._say(200, {"data": [{"id": pace.model, "max_model_len": pace.longest}]})

    def do_POST(self) -> None:
        pace = self.server.pace
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        pace.bodies.append(body)
        if pace.refuse or (pace.fail and len(pace.bodies) % pace.fail == 0):
            self._say(pace.refuse or 500, {"error": {"message": "no such token"}})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        if pace.chunked:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with suppress(ConnectionError):
            self._stream(body, pace)

    def _stream(self, body: dict[str, Any], pace: Pace) -> None:
        for at in range(body["max_tokens"]):
            time.sleep(pace.between if at else pace.first)
            self._event({"choices": [{"text": "x"}]})
            if pace.cut and at:
                return
        if pace.usage:
            given, made = len(body["prompt"]), body["max_tokens"]
            usage = {"prompt_tokens": given, "completion_tokens": made}
            self._event({"choices": [], "usage": usage})
        self._write(b": a comment\n\ndata: [DONE]\n\n")
        if pace.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _event(self, event: dict[str, Any]) -> None:
        self._write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _write(self, block: bytes) -> None:
        if not self.server.pace.chunked:
            self.wfile.write(block)
            return
        # As a proxy may: a chunk ends in the middle of an event.
        for part in (block[:9], block[9:]):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

    def _say(self, code: int, document: dict[str, Any]) -> None:
        text = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


class Streaming(ThreadingHTTPServer):
    def __init__(self, pace: Pace) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pace = pace


@contextmanager
def streaming(pace: Pace) -> Iterator[str]:
    """The server's address; it has ended when the block has."""
    with Streaming(pace) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
