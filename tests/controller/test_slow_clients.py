"""A client that is slow, silent or sends too much holds no thread, and others are answered."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from moe_serve import bounded_requests
from moe_serve.controller.web import Status, serve
from moe_serve.exporter.collector import Collector, Readiness
from moe_serve.exporter.sources import Sources
from moe_serve.exporter.web import Application, WebConfig, make_listener
from tests.controller.test_loop import PLAN


@pytest.fixture(params=["controller", "exporter"])
def port(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    monkeypatch.setattr(bounded_requests, "REQUEST_SECONDS", 0.5)
    if request.param == "controller":
        status = Status(plan=PLAN, active=True, stale_seconds=60, clock=lambda: 0.0)
        server = serve(status, "127.0.0.1", 0)
    else:
        application = Application(
            Collector(Sources(tmp_path, ttl=1)), Readiness(tmp_path, ranks=1), {}
        )
        server = make_listener("127.0.0.1", 0, application, WebConfig())
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def _seconds_until_closed(client: socket.socket, sent: Iterator[bytes]) -> float:
    begun = time.monotonic()
    client.settimeout(0.1)
    while time.monotonic() - begun < 20:
        try:
            client.sendall(next(sent))
            if not client.recv(1024):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - begun


@pytest.mark.parametrize("each", [b"", b"G", b"GET / HTTP/1.1\r\nA: b\r\n"])
def test_client_that_never_ends_its_request_is_dropped(port: int, each: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        first = [b"GET /metrics HTTP/1.1\r\nX: "] if each == b"G" else []
        assert _seconds_until_closed(client, itertools.chain(first, itertools.repeat(each))) < 10


def test_request_with_too_many_headers_is_refused_and_the_next_is_answered(port: int) -> None:
    with httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        try:
            found = client.get("/metrics", headers={f"X-{n}": "a" * 300 for n in range(80)})
        except httpx.TransportError:
            pass  # what was not read makes the kernel reset the connection
        else:
            assert found.status_code == 431
        assert client.get("/metrics", headers={"X-Small": "a" * 300}).status_code == 200
