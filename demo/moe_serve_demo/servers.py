"""One arm: a real vLLM server in a process group of its own, started, watched, stopped."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from moe_serve_emulation import STANDIN

from moe_serve.telemetry.record import read_records
from moe_serve_demo import host
from moe_serve_demo.errors import DemoError
from moe_serve_demo.exporter import Exporter

MODEL_NAME = "gpt-oss-demo"
START_SECONDS = 240
EXPORTER_PORT = 2  # above the server's; the two arms' servers have the first two ports
_STOP_SECONDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoArm:
    """What distinguishes one server from another: its pads, nothing else."""

    name: str
    policy: str
    max_neuron_loss: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What every arm shares, and where this one runs."""

    vllm_python: Path
    model: Path
    port: int
    core: int
    work: Path
    keep: bool = False
    environment: Mapping[str, str]


class DemoServer:
    """A running vLLM server; a context manager that leaves nothing behind."""

    def __init__(self, arm: DemoArm, place: Place) -> None:
        self.arm = arm
        self.place = place
        self.url = f"http://127.0.0.1:{place.port}"
        self.records = place.work / f"record-{arm.name}"
        self.log = place.work / f"{arm.name}.log"
        self.exporter = Exporter(
            arm.name,
            records=self.records,
            port=place.port + EXPORTER_PORT,
            log=place.work / f"{arm.name}-exporter.log",
            keep=place.keep,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and its exporter; returns at once."""
        self.records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.exporter.start()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                env=self.variables(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Servers are started while this process has one thread.
                preexec_fn=None if self.place.keep else host.die_with_parent,  # noqa: PLW1509
                cwd=self.place.work,
            )

    def command(self) -> list[str]:
        """The command line, as a person could type it."""
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
        """The server's environment: the machine's, and the arm's own settings."""
        return {
            **self.place.environment,
            "PYTHONPATH": str(STANDIN),
            "MOE_SERVE_PADDING": self.arm.policy,
            "MOE_SERVE_MAX_NEURON_LOSS": str(self.arm.max_neuron_loss),
            "MOE_SERVE_RECORD_DIR": str(self.records),
            "MOE_SERVE_EMULATE_AITER": "cktile",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": str(self.place.core),
            "VLLM_NO_USAGE_STATS": "1",
        }

    def wait_ready(self, waiting: Callable[[float], None]) -> float:
        """Wait until the server answers; returns the seconds that it took.

        Raises:
            DemoError: it ended or took too long; the message holds the log's own last error.
        """
        begun = time.monotonic()
        while True:
            elapsed = time.monotonic() - begun
            waiting(elapsed)
            self.require_alive()
            if self._answers():
                return elapsed
            if elapsed > START_SECONDS:
                raise DemoError(f"{self.arm.name}: not ready after {elapsed:.0f} s; see {self.log}")
            time.sleep(0.5)

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=2).status_code == httpx.codes.OK
        return False

    def require_alive(self) -> None:
        """Check that the server still runs.

        Raises:
            DemoError: it has ended.
        """
        code = self._process.poll() if self._process else None
        if code is not None:
            raise DemoError(
                f"{self.arm.name}: the server ended (exit {code}): {self._last_error()}; "
                f"its log is {self.log}"
            )

    def _last_error(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines()
        errors = [line for line in lines if "Error:" in line or "moe_serve.errors" in line]
        return (errors or lines or ["it wrote no log"])[-1].strip()[-400:]

    @property
    def pid(self) -> int:
        """Process id of the server's first process, which leads its group."""
        if self._process is None:
            raise DemoError(f"{self.arm.name}: not started")
        return self._process.pid

    def favour_worker(self) -> None:
        """Give the worker its core before the server's other processes."""
        for record in read_records(self.records):
            host.yield_to(record.pid, host.descendants(self.pid))

    def pin(self, core: int) -> None:
        """Move the whole server to one core."""
        host.pin(host.descendants(self.pid), {core})

    def stop(self) -> None:
        """End exporter and server's process group, gently first; wait until they are gone."""
        self.exporter.stop()
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            if self._gone(_STOP_SECONDS):
                break
        self._process = None

    def _gone(self, seconds: float) -> bool:
        assert self._process is not None
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._process.poll()
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.1)
        return False
