"""What a person gets wrong: an Event, a metric and one line of `canary status`; nothing moves."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from moe_serve.kubernetes.api import connect
from tests.chaos.arena import NEIGHBOUR, Arena, until
from tests.chaos.lives import Life, Lives
from tests.engines.bare import Bare, api_server
from tests.engines.conftest import namespace
from tests.engines.verdicts import CASES, free_port, judge
from tests.rollout.world import DOCUMENT
from tools.node import crds
from tools.node.kubernetes import Kubernetes
from tools.node.layout import Layout

pytestmark = pytest.mark.rollouts
ACCOUNT = '{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}'


@dataclass(slots=True, kw_only=True)
class Ground:
    """A rollout under way, and what it says of itself."""

    arena: Arena
    life: Life
    listen: str
    kubeconfig: Path

    def metric(self, name: str) -> float | None:
        """A metric of the controller; None while it has no value."""
        text = httpx.get(f"http://{self.listen}/metrics", timeout=5).text
        lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(lines[0].rpartition(" ")[2]) if lines else None

    def status(self) -> subprocess.CompletedProcess[str]:
        """`moe-serve canary status`."""
        words = [
            "--rollout-file",
            str(self.arena.plan_file),
            "--namespace",
            self.arena.api.namespace,
        ]
        return subprocess.run(
            [sys.executable, "-m", "moe_serve", "canary", "status", *words],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def notified(self, trouble: str, words: str) -> None:
        """It is told in all three places."""
        until(
            words,
            lambda: words in self.arena.rollout().get("waiting_for", ""),
        )
        name = f'moe_serve_rollout_hold_reason{{reason="{trouble}"}}'
        until("the metric", lambda: self.metric(name) == 1)
        until("the Event", lambda: any(words in text for text in self.warnings()))
        status = self.status()
        assert status.returncode == 0, status.stderr
        [line] = [line for line in status.stdout.splitlines() if line.startswith("waits for")]
        assert words in line

    def warnings(self) -> list[str]:
        """What the Events warn of."""
        found = self.arena.api.get(self.arena.of("events"))["items"]
        return [event["message"] for event in found if event["type"] == "Warning"]

    def looks(self, count: int) -> None:
        """Let it look so often."""
        until("it looks", lambda: self.metric("moe_serve_rollout_reconciles_total") is not None)
        begun = self.metric("moe_serve_rollout_reconciles_total") or 0.0
        until(
            "it looks",
            lambda: (self.metric("moe_serve_rollout_reconciles_total") or 0) > begun + count,
        )


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Ground]]:
    with ExitStack() as stack:

        def begun(cluster: Kubernetes, case: str = "faster", **plan: Any) -> Ground:
            url = stack.enter_context(judge(CASES[case], tmp_path, free_port()))
            space = stack.enter_context(namespace(cluster))
            space.apply(ACCOUNT)
            arena = Arena(connect(space.name, kubeconfig=str(cluster.kubeconfig)), folder=tmp_path)
            arena.begin(**plan)
            (tmp_path / "webhook").write_text("http://127.0.0.1:9/")
            listen = f"127.0.0.1:{free_port()}"
            lives = Lives(
                plan=arena.plan_file, kubeconfig=cluster.kubeconfig, namespace=space.name,
                judge=url, audit=tmp_path / "audit.jsonl", webhook=tmp_path / "webhook",
                log=tmp_path / "controller.log", listen=listen,
            )  # fmt: skip
            stack.callback(lives.end)
            return Ground(
                arena=arena, life=lives.start(), listen=listen, kubeconfig=cluster.kubeconfig
            )

        yield begun


@pytest.fixture
def bare(layout: Layout, tmp_path: Path) -> Iterator[Bare]:
    with api_server(layout, tmp_path / "bare") as server:
        yield server


def shared(name: str, rule: int = 0) -> dict[str, Any]:
    """Of a plan: another team's route."""
    return {"owner": "shared", "name": name, "rule": rule}


def test_a_shared_route_that_is_not_there_is_named(
    begin: Callable[..., Ground], cluster: Kubernetes
) -> None:
    ground = begin(cluster, route=shared("users"))

    ground.notified("drift", "there is no HTTPRoute users")

    ground.looks(3)
    routes = ground.arena.api.get(ground.arena.of("httproutes"))["items"]
    assert [route["metadata"]["name"] for route in routes] == [NEIGHBOUR]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (3, f"HTTPRoute {NEIGHBOUR} has no rule 3, only 1"),
        (0, f"HTTPRoute {NEIGHBOUR}, rule 0: gptoss-1b must be there once"),
    ],
)
def test_a_shared_route_without_the_plans_rule_or_services_is_named_and_left_alone(
    begin: Callable[..., Ground], cluster: Kubernetes, rule: int, words: str
) -> None:
    ground = begin(cluster, route=shared(NEIGHBOUR, rule))
    path = f"{ground.arena.of('httproutes')}/{NEIGHBOUR}"
    before = ground.arena.api.get(path)

    ground.notified("drift", words)

    ground.looks(3)
    assert ground.arena.api.get(path) == before


def test_a_route_of_the_plans_name_that_somebody_else_made_is_left_alone(
    begin: Callable[..., Ground], cluster: Kubernetes
) -> None:
    ground = begin(cluster, route={"gateway": {"name": "inference"}, "name": NEIGHBOUR})
    path = f"{ground.arena.of('httproutes')}/{NEIGHBOUR}"
    before = ground.arena.api.get(path)

    ground.notified("drift", f"HTTPRoute {NEIGHBOUR} is not this controller's")

    ground.looks(3)
    assert ground.arena.api.get(path) == before


def test_a_service_that_is_not_there_is_named(
    begin: Callable[..., Ground], cluster: Kubernetes
) -> None:
    arms = {
        **DOCUMENT["arms"], "canary": {"service": "gptoss-9", "label": "gptoss-2", "replicas": 1},
    }  # fmt: skip
    ground = begin(cluster, arms=arms)

    ground.notified("absent", "Service gptoss-9 of canary")

    ground.looks(3)
    assert ground.arena.weights().get("gptoss-9", 0) == 0


def test_without_the_gateway_apis_definitions_it_waits_and_goes_on_once_they_are_there(
    bare: Bare, begin: Callable[..., Ground]
) -> None:
    ground = begin(bare.kubernetes)

    ground.notified("fault", "install the Gateway API's definitions")

    assert ground.arena.rollout()["phase"] == "pending"
    crds.apply(bare.kubernetes, "gateway-api")
    until("it goes on", lambda: ground.arena.weights() == {"gptoss-1": 100})


def test_a_cluster_that_stands_still_moves_nothing_and_the_rollout_goes_on_after_it(
    bare: Bare, begin: Callable[..., Ground]
) -> None:
    crds.apply(bare.kubernetes, "gateway-api")
    ground = begin(bare.kubernetes, "undecided")
    arena = ground.arena

    def at(canary: int) -> bool:
        arena.accept_route()
        return arena.weights().get("gptoss-2", 0) == canary

    until("the last step", lambda: at(10))
    before = arena.api.get(arena.route)["spec"]
    assert ground.metric("moe_serve_rollout_errors_total") == 0
    with bare.frozen():
        until("it is told", lambda: (ground.metric("moe_serve_rollout_errors_total") or 0) >= 2)
        said = ground.status()
    assert (said.returncode, said.stdout) == (2, "")
    [line] = said.stderr.splitlines()
    assert "the API server does not answer" in line
    ground.looks(3)
    until("the Event", lambda: any("does not answer" in text for text in ground.warnings()))
    assert arena.api.get(arena.route)["spec"] == before
    arena.wish(abort=arena.rollout()["rollout"])
    until("weight 0", lambda: at(0))


def test_while_nothing_changes_nothing_is_written(
    begin: Callable[..., Ground], cluster: Kubernetes
) -> None:
    ground = begin(cluster, "undecided")
    arena = ground.arena

    def there() -> bool:
        arena.accept_route()
        return arena.weights().get("gptoss-2") == 10

    until("the last step", there)
    ground.looks(2)  # the Events of the last step
    objects = (arena.route, arena.state)
    before = [arena.api.get(path)["metadata"]["resourceVersion"] for path in objects]
    events = len(arena.api.get(arena.of("events"))["items"])

    ground.looks(10)

    assert [arena.api.get(path)["metadata"]["resourceVersion"] for path in objects] == before
    assert len(arena.api.get(arena.of("events"))["items"]) == events
