"""A program in a process group of its own, with a log file, that ends when the demo ends."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moe_serve_demo import host
from moe_serve_demo.errors import DemoError

_STOP_SECONDS = 15


@dataclass(slots=True, kw_only=True)
class Program:
    """A command with its environment; `core` pins it from its start, `keep` lets it outlive us."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    core: int | None = None
    keep: bool = False
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Start it; returns at once. No other thread may run meanwhile (`preexec_fn`)."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._prepare,  # noqa: PLW1509
                cwd=self.log.parent,
            )

    def _prepare(self) -> None:
        if self.core is not None:
            os.sched_setaffinity(0, {self.core})
        if not self.keep:
            host.die_with_parent()

    @property
    def pid(self) -> int:
        """Its first process, which leads its group.

        Raises:
            DemoError: it was not started.
        """
        if self._process is None:
            raise DemoError(f"{self.name}: not started")
        return self._process.pid

    def require_alive(self) -> None:
        """Check that it still runs.

        Raises:
            DemoError: it has ended; the message quotes the last error in its log.
        """
        code = self._process.poll() if self._process else None
        if code is not None:
            raise DemoError(
                f"{self.name}: ended with exit code {code}: {self._last_error()}; see {self.log}"
            )

    def _last_error(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines()
        errors = [line for line in lines if "Error:" in line or "moe_serve.errors" in line]
        return (errors or lines or ["the log is empty"])[-1].strip()[-400:]

    def stop(self) -> None:
        """End its process group, by SIGTERM and then by SIGKILL; returns when it is gone."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            if self._gone(self._process):
                break
        self._process = None

    def _gone(self, process: "subprocess.Popen[bytes]") -> bool:
        until = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < until:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.1)
        return False
