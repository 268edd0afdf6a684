"""A real Prometheus over real exporters, of workers that only write records: two MI355X pods."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from moe_serve.telemetry.record import BatchPhase, GraphMode, Rank, RecordWriter, SlotKey, SlotKind
from tests.monitoring.server import Prometheus, panels, prometheus, silent_panels
from tests.testing import proofs

pytestmark = [pytest.mark.monitoring, pytest.mark.timeout(240)]

MEAN_NS = {"stable": {8: 108_000, 256: 540_000}, "canary": {8: 100_000, 256: 500_000}}
MIX = {"stable": {8: 9, 256: 1}, "canary": {8: 1, 256: 9}}
LAYERS, SAMPLED = 36, (0, 35)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in found]


class Worker:
    """Writes as a worker on a GPU does, and what vLLM would tell beside it."""

    def __init__(self, track: str, folder: Path, vllm_port: int) -> None:
        self.track = track
        self.writer = RecordWriter(folder, Rank())
        canary = track == "canary"
        self.writer.prove(
            proofs.proof(
                policy="aligned" if canary else "zero",
                shapes=[proofs.shape(bytes_ratio=1.02 if canary else 1.138)],
                markers=proofs.markers(overhead_ratio=0.001),
            )
        )
        registry = CollectorRegistry()
        self.tokens = Counter("vllm:generation_tokens", "tokens", registry=registry)
        self.latency = Histogram("vllm:inter_token_latency_seconds", "s", registry=registry)
        start_http_server(vllm_port, "127.0.0.1", registry)

    def serve(self) -> None:
        for bucket, times in MIX[self.track].items():
            mean = MEAN_NS[self.track][bucket]
            for _ in range(times):
                for layer in SAMPLED:
                    self._add(SlotKind.KERNEL, bucket, mean, layer)
                self._add(SlotKind.WINDOW, bucket, 2 * LAYERS * mean, None)
                self.writer.stepped(BatchPhase.DECODE, bucket - 2)
                self.tokens.inc(bucket - 2)
                self.latency.observe(0.01)
        eager = SlotKey(
            kind=SlotKind.KERNEL, mode=GraphMode.EAGER, phase=BatchPhase.DECODE, bucket=3, layer=0
        )
        self.writer.add(eager, 50_000, tokens=3)

    def _add(self, kind: SlotKind, bucket: int, nanoseconds: int, layer: int | None) -> None:
        key = SlotKey(
            kind=kind, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=bucket, layer=layer
        )
        self.writer.add(key, nanoseconds, tokens=bucket)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("fleet")
    ports = free_ports(5)
    stop = threading.Event()
    targets: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        fleet = []
        for index, track in enumerate(MIX):
            exporter_port, vllm_port = ports[2 * index], ports[2 * index + 1]
            fleet.append(Worker(track, folder / track, vllm_port))
            command = [sys.executable, "-m", "moe_serve", "exporter", "--record-dir"]
            command += [str(folder / track), "--listen", f"127.0.0.1:{exporter_port}"]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            targets |= {f"127.0.0.1:{port}": track for port in (exporter_port, vllm_port)}

        def serve() -> None:
            while not stop.wait(0.1):
                for worker in fleet:
                    worker.serve()

        serving = threading.Thread(target=serve)
        serving.start()
        stack.callback(serving.join)
        stack.callback(stop.set)
        server = stack.enter_context(prometheus(folder, ports[4], targets))
        until = time.monotonic() + 60
        while silent_panels(server) and time.monotonic() < until:
            time.sleep(1)
        yield server


def test_every_panel_shows_data(fleet: Prometheus) -> None:
    assert len(list(panels())) > 40
    assert silent_panels(fleet) == []


def test_the_comparison_finds_the_true_gain_where_the_raw_rate_misleads(fleet: Prometheus) -> None:
    def value(expression: str) -> float:
        (found,) = fleet.query(expression)
        return float(found["value"][1])

    assert value("canary:moe_serve_kernel_speedup:ratio5m") == pytest.approx(1.08, rel=0.01)
    assert value("canary:moe_serve_window_speedup:ratio5m") == pytest.approx(1.08, rel=0.01)
    share = value('track:moe_serve_moe_share:ratio5m{track="stable"}')
    assert share == pytest.approx(0.5, rel=0.1)
    raw = "sum by (track) (track:moe_serve_kernel_seconds:rate5m) / sum by (track) "
    raw += "(track_cell:moe_serve_kernel_invocations:rate5m)"
    means = {found["metric"]["track"]: float(found["value"][1]) for found in fleet.query(raw)}
    assert means["canary"] > 2 * means["stable"]


def test_nothing_fires_in_a_sound_fleet(fleet: Prometheus) -> None:
    assert fleet.query('ALERTS{alertstate="firing"}') == []
