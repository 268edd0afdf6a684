"""One arm: a real vLLM server on one core, and its exporter."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from moe_serve_emulation import STANDIN

from moe_serve.telemetry.record import read_records
from moe_serve_demo import host
from moe_serve_demo.errors import DemoError
from moe_serve_demo.process import Program

MODEL_NAME = "gpt-oss-demo"
START_SECONDS = 600
EXPORTER_PORT = 2  # above the server's port; the servers of both arms have the first two


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoArm:
    """The settings in which the arms may differ: the padding policy and its loss budget."""

    name: str
    policy: str
    max_neuron_loss: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The settings that both arms share, and the port and core of one of them.

    `core` None leaves the server on all cores; `records` None puts its records below `work`.
    """

    vllm_python: Path
    model: Path
    port: int
    core: int | None
    work: Path
    records: Path | None = None
    keep: bool = False
    environment: Mapping[str, str]


class DemoServer:
    """A vLLM server with its exporter; `stop` leaves no process behind."""

    def __init__(self, arm: DemoArm, place: Place) -> None:
        self.arm = arm
        self.place = place
        self.url = f"http://127.0.0.1:{place.port}"
        self.records = place.records or place.work / f"record-{arm.name}"
        exporter = f"127.0.0.1:{place.port + EXPORTER_PORT}"
        self.exporter_url = f"http://{exporter}"
        self.server = Program(
            name=arm.name,
            command=self.command(),
            environment=self.variables(),
            log=place.work / f"{arm.name}.log",
            core=place.core,
            keep=place.keep,
        )
        self.exporter = Program(
            name=f"{arm.name}'s exporter",
            command=[
                *(sys.executable, "-m", "moe_serve", "exporter", "--record-dir", str(self.records)),
                *("--listen", exporter),
            ],
            environment=os.environ,
            log=place.work / f"{arm.name}-exporter.log",
            keep=place.keep,
        )

    def start(self) -> None:
        """Start the server and its exporter; returns at once."""
        self.records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.exporter.start()
        self.server.start()

    def command(self) -> list[str]:
        """The server's command line."""
        flags = {
            "--model": str(self.place.model),
            "--served-model-name": MODEL_NAME,
            "--host": "127.0.0.1",
            "--port": str(self.place.port),
            "--max-model-len": "256",
            "--max-num-seqs": "8",
            "--max-num-batched-tokens": "256",
            "--max-logprobs": "5",
            "--seed": "0",
        }
        return [
            str(self.place.vllm_python),
            "-m",
            "vllm.entrypoints.openai.api_server",
            *(word for pair in flags.items() for word in pair),
            "--enforce-eager",
            "--no-enable-prefix-caching",
        ]

    def variables(self) -> dict[str, str]:
        """The server's environment: the demo's own, and the arm's settings."""
        return {
            **self.place.environment,
            "PYTHONPATH": os.pathsep.join(
                filter(None, (str(STANDIN), self.place.environment.get("PYTHONPATH")))
            ),
            "MOE_SERVE_PADDING": self.arm.policy,
            "MOE_SERVE_MAX_NEURON_LOSS": str(self.arm.max_neuron_loss),
            "MOE_SERVE_RECORD_DIR": str(self.records),
            "MOE_SERVE_EMULATE_AITER": "cktile",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # The demo pins the servers: a core in vLLM's own setting would make the arms'
            # configurations differ.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }

    def wait_ready(self, waiting: Callable[[float], None]) -> float:
        """Wait until the server answers and its exporter is ready; returns the seconds it took.

        `waiting` is called with the seconds so far.

        Raises:
            DemoError: a process ended, or it took too long.
        """
        begun = time.monotonic()
        while True:
            elapsed = time.monotonic() - begun
            waiting(elapsed)
            self.require_alive()
            lacking = _lacking(f"{self.url}/health") or _lacking(f"{self.exporter_url}/-/ready")
            if not lacking:
                return elapsed
            if elapsed > START_SECONDS:
                raise DemoError(
                    f"{self.arm.name}: not ready after {elapsed:.0f} s: {lacking}; "
                    f"see {self.server.log}"
                )
            time.sleep(0.5)

    def require_alive(self) -> None:
        """Check that both processes still run.

        Raises:
            DemoError: one has ended; the message quotes the last error in its log.
        """
        self.server.require_alive()
        self.exporter.require_alive()

    def favour_worker(self) -> None:
        """Let the worker have its core before the server's other processes."""
        for record in read_records(self.records):
            host.yield_to(record.pid, host.descendants(self.server.pid))

    def pin(self, core: int) -> None:
        """Move all of the server's processes to one core."""
        host.pin(host.descendants(self.server.pid), {core})

    def stop(self) -> None:
        """End both processes and wait until they are gone."""
        self.exporter.stop()
        self.server.stop()


def _lacking(url: str) -> str:
    """Why an address does not answer with 200; empty if it does."""
    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.get(url, timeout=2, trust_env=False)
        return "" if answer.status_code == httpx.codes.OK else f"{url}: {answer.text.strip()[:200]}"
    return f"{url} does not answer"
