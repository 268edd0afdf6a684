"""A cluster with simulated MI355X nodes, and the engines' own controllers beside it."""

import contextlib
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines.verdicts import free_port
from tools.node import crds
from tools.node.binaries import built
from tools.node.kubernetes import Kubernetes
from tools.node.layout import Layout

WAIT_SECONDS = 180.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for minutes comes last: the others run meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session")
def layout() -> Layout:
    return Layout(cache=Path(os.environ["MOE_SERVE_CACHE"]))


@pytest.fixture(scope="session")
def cluster(layout: Layout) -> Kubernetes:
    """The node that `make cluster NODES=2` made, or the user's own with such nodes."""
    found = Kubernetes(
        kubeconfig=Path(os.environ.get("KUBECONFIG") or layout.kubeconfig),
        kubectl_program=built(layout, "kubernetes").parent / "kubectl",
    )
    crds.apply(found, "argo-rollouts", "flagger", "traefik", "gateway-api", "prometheus-operator")
    return found


class Space:
    """A namespace of a test's own."""

    def __init__(self, cluster: Kubernetes, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def apply(self, manifest: str) -> None:
        self.cluster.apply(manifest, "-n", self.name)

    def get(self, kind: str, name: str) -> dict[str, object]:
        return dict(self.cluster.get("-n", self.name, kind, name))

    def until(self, what: str, holds: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Wait until it holds."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"{self.name}: not within {seconds:.0f} s: {what}"
            time.sleep(0.5)


class Weights:
    """Every weight that an object ever gave to the canary, in order, as the API server told it."""

    def __init__(self, space: Space, kind: str, name: str, path: str, log: Path) -> None:
        self._log = log
        words = [
            "get",
            kind,
            name,
            "--watch",
            "-n",
            space.name,
            "-o",
            "jsonpath={" + path + "}/",
        ]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [str(space.cluster.kubectl_program), *words],
                env={**os.environ, "KUBECONFIG": str(space.cluster.kubeconfig)},
                stdout=out,
            )

    @property
    def seen(self) -> list[int]:
        notified = [int(text or 0) for text in self._log.read_text("utf-8").split("/")[:-1]]
        return [weight for at, weight in enumerate(notified) if notified[at - 1 : at] != [weight]]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture
def space(cluster: Kubernetes) -> Iterator[Space]:
    with namespace(cluster) as made:
        yield made


@contextlib.contextmanager
def namespace(cluster: Kubernetes) -> Iterator[Space]:
    name = f"rollout-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield Space(cluster, name)
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def controller(program: Path, flags: list[str], log: Path) -> Iterator[None]:
    """An engine's controller as a process; what it wrote is shown if it ends by itself."""
    with log.open("wb") as out:
        process = subprocess.Popen([program, *flags], stdout=out, stderr=subprocess.STDOUT)
    try:
        yield
        assert process.poll() is None, log.read_text()[-2000:]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def argo_rollouts(
    cluster: Kubernetes, layout: Layout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    flags = [
        *("--kubeconfig", str(cluster.kubeconfig), "--traefik-api-group", "traefik.io"),
        *("--leader-elect=false", "--metricsPort", str(free_port())),
        *("--healthzPort", str(free_port())),
    ]
    log = tmp_path_factory.mktemp("argo") / "rollouts-controller.log"
    with controller(built(layout, "argo-rollouts"), flags, log):
        yield


@pytest.fixture(scope="session")
def flagger(
    cluster: Kubernetes, layout: Layout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    flags = [
        *("-kubeconfig", str(cluster.kubeconfig), "-mesh-provider", "gatewayapi:v1"),
        *("-port", str(free_port()), "-log-level", "info"),
    ]
    log = tmp_path_factory.mktemp("flagger") / "flagger.log"
    with controller(built(layout, "flagger"), flags, log):
        yield
