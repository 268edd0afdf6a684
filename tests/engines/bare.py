"""A real API server of a test's own: nothing but Kubernetes' own kinds, and it can be frozen."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.engines.verdicts import free_port
from tools.node import configuration, credentials
from tools.node.binaries import built
from tools.node.components import commands
from tools.node.errors import CommandFailed
from tools.node.kubernetes import Kubernetes
from tools.node.layout import Addresses, Layout
from tools.node.waiting import wait

_HERE = Addresses(link="", machine="127.0.0.1", node="127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """The server's clients, and its process."""

    kubernetes: Kubernetes
    process: subprocess.Popen[bytes]

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers none."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def api_server(layout: Layout, folder: Path) -> Iterator[Bare]:
    """The node's own programs and settings, on ports of their own."""
    own = Layout(cache=folder)
    own.config.mkdir(parents=True)
    made = credentials.make(own, _HERE)
    configuration.write(own, _HERE, made)
    programs = {name: built(layout, name) for name in ("etcd", "kubernetes")}
    ports = {number: str(free_port()) for number in ("2379", "2380", "6443")}

    def moved(text: str) -> str:
        for before, after in ports.items():
            text = text.replace(f":{before}", f":{after}").replace(f"={before}", f"={after}")
        return text

    own.kubeconfig.write_text(moved(own.kubeconfig.read_text("utf-8")))
    found = Kubernetes(
        kubeconfig=own.kubeconfig, kubectl_program=programs["kubernetes"].parent / "kubectl"
    )
    parts = commands(own, _HERE, made, programs)
    with (
        _running([moved(word) for word in parts["etcd"]], folder / "etcd.log"),
        # Its address is this machine's alone: no Endpoints are to name it.
        _running(
            [*map(moved, parts["kube-apiserver"]), "--endpoint-reconciler-type=none"],
            folder / "kube-apiserver.log",
        ) as server,
    ):
        wait(lambda: _ready(found), f"an API server ({folder})", seconds=120)
        yield Bare(kubernetes=found, process=server)


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "HOME": str(log)}
        )
    try:
        yield process
    finally:
        process.kill()  # what it holds ends with the test
        process.wait(30)


def _ready(found: Kubernetes) -> bool:
    with contextlib.suppress(CommandFailed):
        return found.kubectl("get", "--raw", "/readyz") == "ok"
    return False
