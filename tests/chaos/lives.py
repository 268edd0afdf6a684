"""Controllers as real processes to be killed, forked from one that has imported everything."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(
    [
        "moe_serve.cli.main",
        "moe_serve.judge.audit",
        "moe_serve.cli.controller_assembly",
        "moe_serve.controller.judges",
        "moe_serve.controller.notifiers",
        "tests.chaos.entry",
        "tests.chaos.lives",
    ]
)


@dataclass(slots=True, kw_only=True)
class Lives:
    """How to start controllers of one rollout."""

    plan: Path
    kubeconfig: Path
    namespace: str
    judge: str
    audit: Path
    webhook: Path
    log: Path
    listen: str = "127.0.0.1:0"
    started: list["Life"] = field(default_factory=list)

    def start(self, failpoint: str = "", identity: str = "chaos-0", every: int = 1) -> "Life":
        flags = [
            "canary",
            "run",
            "--active",
            "--rollout-file",
            self.plan,
            "--namespace",
            self.namespace,
        ]
        flags += ["--judge", self.judge, "--every", every, "--listen", self.listen]
        flags += ["--identity", identity]
        if identity == "chaos-0":
            flags += ["--audit", self.audit, "--webhook-file", self.webhook]
        environment = {"KUBECONFIG": str(self.kubeconfig)}
        process = _FORK.Process(
            target=_live,
            args=([str(flag) for flag in flags], failpoint, environment, str(self.log)),
        )
        process.start()
        self.started.append(Life(process))
        return self.started[-1]

    def end(self) -> None:
        """Whatever still lives."""
        for life in self.started:
            if not life.ended():
                life.kill()


@dataclass(slots=True)
class Life:
    """One controller's life."""

    process: BaseProcess

    def ended(self) -> bool:
        return self.process.exitcode is not None

    @property
    def killed(self) -> bool:
        """It died at its failpoint."""
        return self.process.exitcode == 137

    def wait(self, seconds: float) -> bool:
        self.process.join(seconds)
        return self.ended()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.join(10)

    def stop(self) -> float:
        """SIGTERM; seconds until it was gone."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        self.process.join(20)
        assert self.process.exitcode == 0, f"exit code {self.process.exitcode} on SIGTERM"
        return time.monotonic() - began


def _live(arguments: list[str], failpoint: str, environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    out = Path(log).open("a", buffering=1)  # noqa: SIM115 - as long as the process lives
    sys.stderr = sys.stdout = out
    from tests.chaos.entry import run

    code = run(arguments, failpoint)
    out.flush()
    os._exit(code)
