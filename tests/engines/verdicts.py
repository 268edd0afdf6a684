"""A real judge over recorded metrics that a real Prometheus holds: one for each verdict."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from moe_serve.quality.result import QualityOutcome
from moe_serve.sources.recorded import write
from tests.monitoring.rules import tool
from tests.monitoring.server import prometheus
from tests.testing.histories import START, Fleet, streams
from tests.testing.probed import probed

HOURS = 4.0
# The recording goes on while a test waits for an engine.
AHEAD = 0.5
RULES = "spread: {gpu_sd: 0.003}\nvalidity: {under_test: [policy]}\n"
OTHER = probed(QualityOutcome.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was recorded, and what the comparison of answers gave."""

    verdict: str
    fleet: Fleet
    answers: dict[str, object]


CASES = {
    "faster": Case(
        verdict="PROMOTE", fleet=Fleet(hours=HOURS + AHEAD), answers=probed(QualityOutcome.PASSED)
    ),
    "wrong": Case(verdict="ROLLBACK", fleet=Fleet(hours=HOURS + AHEAD), answers=OTHER),
    "no gain": Case(
        verdict="ROLLBACK",
        fleet=Fleet(hours=HOURS + AHEAD, gain=1.0, noise=0.01),
        answers=probed(QualityOutcome.PASSED),
    ),
    "undecided": Case(
        verdict="KEEP_GOING",
        fleet=Fleet(hours=HOURS + AHEAD, gain=1.03),
        answers=probed(QualityOutcome.PASSED),
    ),
}


@contextlib.contextmanager
def judge(case: Case, folder: Path, port: int) -> Iterator[str]:
    """The judge's address, once it says the case's verdict."""
    begun = time.time() - HOURS * 3600
    history = folder / "fleet.om"
    made = streams(case.fleet)
    for stream in made:
        for at, moment in enumerate(stream.times):
            stream.times[at] = round(moment - START + begun, 3)
    with history.open("w", encoding="utf-8") as out:
        write(made, out)
    subprocess.run(
        [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", history, folder / "data"],
        capture_output=True,
        check=True,
    )
    with (
        prometheus(folder, free_port(), {}) as server,
        serving(case, folder, port, server.url, begun) as url,
    ):
        yield url


@contextlib.contextmanager
def serving(case: Case, folder: Path, port: int, source: str, begun: float) -> Iterator[str]:
    """`moe-serve canary serve`, as a process of its own."""
    (folder / "rules.yaml").write_text(RULES)
    (folder / "answers.json").write_text(json.dumps(case.answers))
    url = f"http://127.0.0.1:{port}"
    words = [
        *("--policy-file", "rules.yaml", "--prometheus", source, "--start", f"{begun:.0f}"),
        *("--quality", "answers.json", "--listen", f"127.0.0.1:{port}", "--every", "1"),
    ]
    with (folder / "judge.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moe_serve", "canary", "serve", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + 60
        said = None
        while said != case.verdict:
            assert process.poll() is None, (folder / "judge.log").read_text()
            assert time.monotonic() < until, f"the judge says {said}, not {case.verdict}"
            time.sleep(0.2)
            with contextlib.suppress(httpx.HTTPError):
                said = httpx.get(f"{url}/v1/verdict", timeout=5).json()["verdict"]
        yield url
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
