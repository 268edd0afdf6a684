"""Two real vLLM servers under load, their exporters, a real Prometheus; then a worker is killed."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from moe_serve_demo import host
from moe_serve_demo.load import DemoLoad, prompts
from moe_serve_demo.servers import DemoArm, DemoServer, Place
from moe_serve_demo.serving import Serving
from moe_serve_emulation.checkpoint import CheckpointSpec
from prometheus_client.parser import text_string_to_metric_families

from moe_serve.telemetry.record import read_records
from tests.monitoring import picture
from tests.monitoring.server import Prometheus, panels, prometheus, silent_panels

pytestmark = [pytest.mark.monitoring, pytest.mark.vllm, pytest.mark.timeout(900)]

ARMS = (DemoArm(name="stable", policy="zero"), DemoArm(name="canary", policy="aligned"))
PORT = 18450
LOAD_SECONDS = 180
# What an eager CPU does not have: a device with known peaks, and a thousand steps in a minute.
NOT_ON_A_CPU = {
    "Share of the roofline",
    "Memory traffic in fused-MoE calls",
    "What the markers cost",
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("servers")
    python = Path(os.environ["MOE_SERVE_VLLM_PYTHON"])
    serving = Serving(python=python, environment=os.environ)
    model = serving.checkpoint(folder / "models", 360)
    with contextlib.ExitStack() as stack:
        servers = []
        for index, (arm, core) in enumerate(zip(ARMS, host.two_cores(), strict=True)):
            place = Place(
                vllm_python=python,
                model=model,
                port=PORT + index,
                core=core,
                work=folder,
                environment=os.environ,
            )
            server = DemoServer(arm, place)
            server.start()
            stack.callback(server.stop)
            servers.append(server)
        for server in servers:
            server.wait_ready(lambda _seconds: None)
        targets = {}
        for server in servers:
            addresses = (server.url, server.exporter_url)
            targets |= {address.removeprefix("http://"): server.arm.name for address in addresses}
        watch = stack.enter_context(prometheus(folder, PORT + 10, targets))
        load = Loading(servers)
        stack.callback(load.stop)
        yield SimpleNamespace(servers=servers, prometheus=watch, load=load)


class Loading:
    """The demo's load on every server, in a thread, until it is stopped or a server ends."""

    def __init__(self, servers: list[DemoServer]) -> None:
        urls = servers[0].url, servers[1].url
        words = range(3, CheckpointSpec().vocab)
        self._load = DemoLoad(urls=urls, prompts=prompts(16, vocabulary=words, seed=1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    async def _run(self) -> None:
        running = asyncio.create_task(self._load.run())
        while not running.done() and not self._stop.is_set():
            await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        # httpx leaves the socket of a connection that is cancelled while it is being made to the
        # garbage collector; its warning would fall on whatever test runs then.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def test_under_load_every_panel_shows_both_tracks(fleet: Any) -> None:
    watch: Prometheus = fleet.prometheus
    begun = time.time()
    until = begun + LOAD_SECONDS
    while time.time() < until and (time.time() < begun + 40 or _unexpected(watch)):
        time.sleep(1)
    if os.environ.get("MOE_SERVE_PICTURE"):
        picture.draw(watch, Path(os.environ["MOE_SERVE_PICTURE"]), start=begun, end=time.time())

    assert _unexpected(watch) == []
    tracks = {found["metric"]["track"] for found in watch.query("moe_serve_padding_waste_ratio")}
    assert tracks == {"stable", "canary"}
    for arm in ARMS:
        matchers = f'track="{arm.name}",policy="{arm.policy}"'
        assert watch.query(f"moe_serve_config_info{{{matchers}}}")
    assert len(list(panels())) > 40


def _unexpected(watch: Prometheus) -> list[tuple[str, str, str]]:
    return [panel for panel in silent_panels(watch) if panel[1] not in NOT_ON_A_CPU]


def test_a_worker_killed_under_load_loses_nothing_that_it_counted(fleet: Any) -> None:
    server: DemoServer = fleet.servers[1]
    (living,) = read_records(server.records)
    before = scraped(server)
    os.kill(living.pid, signal.SIGKILL)
    until = time.monotonic() + 30
    while read_records(server.records)[0].alive and time.monotonic() < until:
        time.sleep(0.05)
    (dead,) = read_records(server.records)
    after = scraped(server)

    assert (dead.alive, dead.slots_torn) == (False, 0)
    assert after["source_up"] == 0
    assert after["padding_active"] == 0
    counted = sum(total.count for key, total in dead.totals.items() if key.kind == "kernel")
    assert after["kernel_invocations_total"] == counted
    assert counted >= before["kernel_invocations_total"]
    until = time.monotonic() + 30
    while not _says_dead(fleet.prometheus) and time.monotonic() < until:
        time.sleep(0.5)
    assert _says_dead(fleet.prometheus)
    last = fleet.prometheus.query('sum(moe_serve_kernel_invocations_total{track="canary"})')
    assert float(last[0]["value"][1]) == counted


def scraped(server: DemoServer) -> Counter[str]:
    """What the server's exporter counts, summed by metric."""
    text = httpx.get(f"{server.exporter_url}/metrics", timeout=10).raise_for_status().text
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name.removeprefix("moe_serve_")] += sample.value
    return found


def _says_dead(watch: Prometheus) -> bool:
    found = watch.query('moe_serve_source_up{track="canary"} == 0')
    return len(found) == 1
