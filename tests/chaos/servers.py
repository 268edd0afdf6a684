"""What the controller talks to: a judge, a webhook, a line to the API server that can be cut."""

import contextlib
import json
import select
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True)
class Judge:
    """Answers as `/v1/verdict` does, or misbehaves: `away`, `slow`, `empty`, `error`."""

    verdict: str = "KEEP_GOING"
    quality: str | None = None
    mode: str = ""
    url: str = ""

    def body(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reason": f"the judge of the test says {self.verdict}",
            "quality": {"outcome": self.quality, "reason": f"quality is {self.quality}"},
            "judged_at": time.time(),
            "fault": None,
            "window": {"start": 1000.0, "end": time.time()},
            "analysis_plan_digest": "sha256:rules",
        }

    def start(self) -> ThreadingHTTPServer:
        judge = self

        class Handler(_Quiet):
            def do_GET(self) -> None:
                if judge.mode == "slow":
                    time.sleep(8)
                if judge.mode in ("away", "error"):
                    self.send_error(503)
                    return
                text = b"{}" if judge.mode == "empty" else json.dumps(judge.body()).encode()
                self.answer(text)

        server = _serve(Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        return server


@dataclass(slots=True)
class Webhook:
    """Takes messages and counts them by their key."""

    taken: Counter[str] = field(default_factory=Counter)
    url: str = ""

    def start(self) -> ThreadingHTTPServer:
        hook = self

        class Handler(_Quiet):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                hook.taken[self.headers["Idempotency-Key"]] += 1
                self.answer(b"")

        server = _serve(Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        return server


class _Quiet(BaseHTTPRequestHandler):
    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """A controller that was killed no longer reads its answer."""


def _serve(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@dataclass(slots=True)
class Line:
    """A TCP connection to the API server that can be cut: it then takes none and ends all."""

    target: tuple[str, int]
    port: int = 0
    _cut: bool = False
    _listener: socket.socket | None = None

    def start(self) -> None:
        self._listen()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._take, args=(self._listener,), daemon=True).start()

    def _take(self, notifier: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = notifier.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, ValueError),
            near,
            socket.create_connection(self.target, 5) as far,
        ):
            other = {near: far, far: near}
            while not self._cut:
                for ready in select.select([near, far], [], [], 0.2)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)

    def cut(self) -> None:
        self._cut = True
        if self._listener is not None:
            # Without the shutdown an accept that is under way keeps the port open.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def mend(self) -> None:
        self._cut = False
        self._listen()
