"""Real exporters over real records, in threads of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

from moe_serve.exporter.collector import Collector, Readiness
from moe_serve.exporter.sources import Sources
from moe_serve.exporter.web import Application, WebConfig, make_listener
from moe_serve.telemetry.record import BatchPhase, GraphMode, Rank, RecordWriter, SlotKey, SlotKind
from tests.testing import proofs

SECOND = 1_000_000_000


def worker(folder: Path, *, tp: int = 0, **proof: Any) -> RecordWriter:
    """A worker without a step."""
    folder.mkdir(exist_ok=True)
    writer = RecordWriter(folder, Rank(tp=tp))
    writer.prove(proofs.proof(**proof))
    return writer


def stepped(writer: RecordWriter, phase: BatchPhase, bucket: int, seconds: float) -> None:
    """One step of so many rows."""
    key = SlotKey(kind=SlotKind.STEP, mode=GraphMode.EAGER, phase=phase, bucket=bucket)
    writer.add(key, int(seconds * SECOND), tokens=bucket)


@contextmanager
def exporting(folder: Path) -> Iterator[str]:
    """The address of an exporter's metrics."""
    collector, unready = Collector(Sources(folder, ttl=60)), Readiness(folder, ranks=1)
    server = make_listener("127.0.0.1", 0, Application(collector, unready, {}), WebConfig())
    yield from _run(server)


@contextmanager
def saying(*texts: str, code: int = 200) -> Iterator[str]:
    """An address whose connections find one pod after the other, each with its own text."""
    turn = cycle(texts)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # the first reading may have been enough
                self.send_response(code)
                self.end_headers()
                self.wfile.write(next(turn).encode())

        def log_message(self, *_: Any) -> None:
            pass

    yield from _run(ThreadingHTTPServer(("127.0.0.1", 0), Handler))


def _run(server: Any) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    with server:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
        server.shutdown()
        thread.join()
