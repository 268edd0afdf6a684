"""Kept connections of a server that is about to stop, over real HTTP."""

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from moe_serve.vllm_plugin.draining import Draining


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers in two parts, as a stream does."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "draining"


@pytest.fixture
def connection(mark: Path) -> Iterator[http.client.HTTPConnection]:
    """A connection that its client keeps."""
    mark.touch()  # left by a server before this one
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Draining(app, mark), lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    kept = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=10)
    yield kept
    kept.close()
    server.should_exit = True
    thread.join()


def ask(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.read(), answer.headers["x-a"]) == (200, b"one two", "1")
    return answer


def test_a_connection_is_kept_until_the_server_is_about_to_stop(
    connection: http.client.HTTPConnection, mark: Path
) -> None:
    assert [ask(connection).will_close for _ in range(2)] == [False, False]
    first = connection.sock
    mark.touch()
    assert ask(connection).will_close
    assert connection.sock is not first  # http.client has let it go


def test_after_it_every_new_connection_serves_one_answer(
    connection: http.client.HTTPConnection, mark: Path
) -> None:
    ask(connection)
    mark.touch()
    assert [ask(connection).will_close for _ in range(3)] == [True, True, True]
