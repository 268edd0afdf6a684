"""On a real API server: the Role of docs/rollout.md is enough, and less than it is told plainly."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_serve.analysis.verdict import Verdict
from moe_serve.cli.controller_assembly import ControllerSettings, assemble
from moe_serve.cli.main import main
from moe_serve.config.rollout_file import load
from moe_serve.controller.run import Runner
from moe_serve.kubernetes.api import Api, connect
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.observation import JudgeResult
from moe_serve.rollout.state import RolloutState
from tests.chaos.arena import NEIGHBOUR, Arena, until

pytestmark = pytest.mark.cluster
PAGE = Path(__file__).parents[2] / "docs" / "rollout.md"
_ROW = re.compile(r"^\| (core|`[a-z0-9.]+`) \| `(\w+)` \| (-|`<\w+>\S*`) \| (`[^|]*?) \|", re.M)


def documented() -> list[dict[str, Any]]:
    """The rules in the page's table, for a plan and route called gptoss."""
    rules = []
    for group, resource, names, verbs in _ROW.findall(PAGE.read_text("utf-8")):
        rule: dict[str, Any] = {
            "apiGroups": ["" if group == "core" else group.strip("`")],
            "resources": [resource],
            "verbs": re.findall(r"`(\w+)`", verbs.split("(")[0]),
        }
        if names != "-":
            rule["resourceNames"] = [re.sub("<.*?>", "gptoss", names.strip("`"))]
        rules.append(rule)
    return rules


@dataclass(slots=True)
class Says:
    """A judge that says what it is told to."""

    verdict: Verdict = Verdict.KEEP_GOING

    def judge_result(self, state: RolloutState) -> JudgeResult:
        del state
        return JudgeResult(
            verdict=self.verdict, reason="", quality=QualityOutcome.PASSED, quality_reason="",
            judged_at=time.time(),
        )  # fmt: skip

    def run(self, stop: threading.Event) -> None:
        stop.wait()


@dataclass(slots=True)
class Ground:
    """An arena, and controllers there that have only the rights of some rules."""

    arena: Arena
    kubeconfig: str
    judge: Says

    def runner(
        self, rules: list[dict[str, Any]], stop: threading.Event, *, active: bool = True
    ) -> Runner:
        wanted = ControllerSettings(
            plan=load(self.arena.plan_file),
            active=active,
            every=1,
            identity="a",
        )
        runner, beside = assemble(self._as(rules), wanted, lambda wake: self.judge, [], [])
        for thread in beside:
            threading.Thread(target=thread.run, args=(stop,), daemon=True).start()
        return runner

    def warnings(self) -> list[str]:
        """What the Events warn of."""
        found = self.arena.api.get(self.arena.of("events"))["items"]
        return [event["message"] for event in found if event["type"] == "Warning"]

    def _as(self, rules: list[dict[str, Any]]) -> Api:
        api, space = self.arena.api, self.arena.api.namespace
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space}"
        self.arena.delete(f"{rbac}/rolebindings/canary")
        self.arena.delete(f"{rbac}/roles/canary")
        kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "canary"}}
        api.create(f"{rbac}/roles", {**kind, "kind": "Role", "rules": rules})
        group = "rbac.authorization.k8s.io"
        bound = {
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "canary"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": space}],
        }
        api.create(f"{rbac}/rolebindings", {**kind, "kind": "RoleBinding", **bound})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = f"/api/v1/namespaces/{space}/serviceaccounts/default/token"
        token = api.create(path, request)["status"]["token"]
        settings = yaml.safe_load(Path(self.kubeconfig).read_text())
        settings["users"] = [{"name": settings["users"][0]["name"], "user": {"token": token}}]
        target = self.arena.folder / "limited"
        target.write_text(yaml.safe_dump(settings))
        return connect(space, kubeconfig=str(target))


@pytest.fixture
def ground(cluster: Any) -> Iterator[Ground]:
    kubeconfig = str(cluster.kubernetes.kubeconfig)
    with cluster.namespace("rollout", enforce="privileged") as name:
        arena = Arena(connect(name, kubeconfig=kubeconfig))
        account = ("get", "serviceaccount", "default", "-n", name, "--ignore-not-found")
        until("the namespace's account", lambda: cluster.kubectl(*account))
        arena.begin()
        yield Ground(arena, kubeconfig, Says())


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def status(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[int, str]]:
    """`moe-serve canary status`, as somebody who may read everything."""
    monkeypatch.setenv("KUBECONFIG", ground.kubeconfig)
    space = ["--namespace", ground.arena.api.namespace]

    def said() -> tuple[int, str]:
        code = main(["canary", "status", "--rollout-file", str(ground.arena.plan_file), *space])
        return code, "".join(capsys.readouterr())

    return said


def _look_until(runner: Runner, ground: Ground, what: str, holds: Callable[[], bool]) -> None:
    def result() -> bool:
        ground.arena.accept_route()
        runner.status.note(runner.controller.reconcile())
        return holds()

    until(what, result)


def test_the_documented_role_carries_a_rollout_from_its_start_to_its_end(
    ground: Ground, stop: threading.Event
) -> None:
    runner = ground.runner(documented(), stop)
    _look_until(
        runner, ground, "the last step", lambda: ground.arena.weights().get("gptoss-2") == 10
    )
    ground.judge.verdict = Verdict.PROMOTE
    for count in (2, 3, 4):
        ground.arena.scale("canary", count)
    _look_until(runner, ground, "the end", lambda: ground.arena.rollout().get("phase") == "done")
    runner.controller.reconcile()
    runner.controller.leadership.release()
    assert ground.arena.weights() == {"gptoss-2": 100}
    assert runner.status.errors == 0
    events = ground.arena.api.get(ground.arena.of("events"))["items"]
    assert len(events) == ground.arena.rollout()["revision"]


def without(resource: str, verb: str) -> list[dict[str, Any]]:
    """The documented rules less one verb on one resource."""
    return [
        {**rule, "verbs": [one for one in rule["verbs"] if one != verb]}
        if rule["resources"] == [resource]
        else rule
        for rule in documented()
        if rule["resources"] != [resource] or rule["verbs"] != [verb]
    ]


@pytest.mark.parametrize(
    ("resource", "verb"),
    [
        ("httproutes", "get"), ("httproutes", "create"), ("httproutes", "patch"),
        ("pods", "list"), ("pods", "watch"), ("endpointslices", "list"),
        ("endpointslices", "watch"),
    ],
)  # fmt: skip
def test_a_role_that_is_too_small_moves_nothing_and_is_told_in_status_metric_and_event(
    ground: Ground,
    stop: threading.Event,
    status: Callable[[], tuple[int, str]],
    resource: str,
    verb: str,
) -> None:
    lacks = f'cannot {verb} resource "{resource}"'
    runner = ground.runner(without(resource, verb), stop)
    _look_until(
        runner, ground, "it is told",
        lambda: lacks in ground.arena.rollout().get("waiting_for", ""),
    )  # fmt: skip
    assert ground.arena.weights().get("gptoss-2", 0) == 0
    waits = ground.arena.rollout()["waiting_for"]
    assert "docs/rollout.md" in waits and "\n" not in waits
    assert 'moe_serve_rollout_hold_reason{reason="fault"} 1' in runner.status.metrics()
    runner.controller.reconcile()
    assert any(lacks in text for text in ground.warnings())
    code, said = status()
    assert code == 0
    assert any(lacks in line for line in said.splitlines() if line.startswith("waits for"))


@pytest.mark.parametrize(
    ("resource", "verb"),
    [
        ("configmaps", "get"), ("configmaps", "create"), ("configmaps", "patch"),
        ("leases", "get"), ("leases", "create"), ("leases", "update"),
    ],
)  # fmt: skip
def test_without_a_state_or_a_lease_nothing_moves_and_that_is_told_in_status_metric_and_event(
    ground: Ground,
    stop: threading.Event,
    status: Callable[[], tuple[int, str]],
    resource: str,
    verb: str,
) -> None:
    lacks = f'cannot {verb} resource "{resource}"'
    runner = ground.runner(without(resource, verb), stop)
    _look_until(
        runner, ground, "the Event", lambda: any(lacks in text for text in ground.warnings())
    )
    assert [lacks in text for text in ground.warnings()].count(True) == 1
    assert ground.arena.weights().get("gptoss-2", 0) == 0
    assert 'moe_serve_rollout_hold_reason{reason="fault"} 1' in runner.status.metrics()
    _, said = status()
    assert [lacks in line for line in said.splitlines()].count(True) == 1


def test_a_shadow_writes_nothing_and_is_asked_where_it_stands(
    ground: Ground, stop: threading.Event
) -> None:
    reads = [
        {**rule, "verbs": [verb for verb in rule["verbs"] if verb in ("get", "list", "watch")]}
        for rule in documented()
        if {"get", "list", "watch"} & {*rule["verbs"]}
    ]
    runner = ground.runner(reads, stop, active=False)
    _look_until(
        runner, ground, "the last step it would take",
        lambda: 'moe_serve_rollout_weight_ratio{track="canary"} 0.1' in runner.status.metrics(),
    )  # fmt: skip
    assert runner.status.seen()["fault"] == ""
    assert runner.status.seen()["state"]["phase"] == "steps"
    routes, events = (
        ground.arena.api.get(ground.arena.of(kind))["items"] for kind in ("httproutes", "events")
    )
    assert [route["metadata"]["name"] for route in routes] == [NEIGHBOUR]
    assert events == []
    assert ground.arena.rollout() == {}
