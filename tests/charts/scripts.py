"""Scripts that travel inside the charts: run as their pods run them, and a server to ask."""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

# Status and body, of a path and what was posted there. Of a body that is None half is sent.
Reply = Callable[[str, Any], tuple[int, str | None]]


def run(command: Sequence[str], *arguments: str) -> int:
    """The exit status of a rendered command, with these arguments instead of its own.

    What the script does not catch is raised: in a pod it would be a traceback.
    """
    python, flag, text = command[:3]
    assert (python, flag) == ("python3", "-c")
    with mock.patch.object(sys, "argv", [flag, *arguments]):
        try:
            exec(compile(text, "script", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            if isinstance(end.code, str):
                sys.stderr.write(f"{end.code}\n")
                return 1
            return end.code or 0
    return 0


@contextmanager
def serving(reply: Reply, key: str = "") -> Iterator[str]:
    """The address of a server that answers so, and only whoever sends the key, if there is one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, posted: Any) -> None:
            status, body = reply(self.path, posted)
            if key and self.headers["authorization"] != f"Bearer {key}":
                status, body = 401, "Unauthorized"
            data = ("half" if body is None else body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data) * (2 if body is None else 1)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
