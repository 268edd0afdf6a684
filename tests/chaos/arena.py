"""A namespace in which a rollout can run without nodes: pods, endpoints and a gateway's word."""

import contextlib
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from moe_serve.kubernetes.api import Api, ClusterError, Patch
from tests.rollout.world import DOCUMENT

NEIGHBOUR = "team-a"
READY = {"stable": 4, "baseline": 1, "canary": 1}
DIGESTS = {"stable": "sha256:old", "baseline": "sha256:old", "canary": "sha256:new"}
PLAN: dict[str, Any] = {
    **DOCUMENT,
    "steps": [
        {"canary": 5, "baseline": 5, "hold_minutes": 0},
        {"canary": 10, "baseline": 10, "hold_minutes": 0, "needs": "promote"},
    ],
    "promotion": {"replicas": 4, "warm_replicas": 4, "weights": [25, 50, 75, 100]},
    "capacity": {"pods_for_all_traffic": 4},
    "watch_hours": 0,
}


@dataclass(slots=True)
class Arena:
    """The arms of one plan in one namespace, as a kubelet and a gateway would show them."""

    api: Api
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="moe-serve-chaos-")))
    plan: dict[str, Any] = field(default_factory=lambda: dict(PLAN))
    ready: dict[str, int] = field(default_factory=dict)

    @property
    def plan_file(self) -> Path:
        return self.folder / "plan.yaml"

    @property
    def route(self) -> str:
        return self.of("httproutes") + "/gptoss"

    @property
    def state(self) -> str:
        return self.of("configmaps") + "/gptoss-rollout"

    def of(self, kind: str) -> str:
        group = {
            "httproutes": "apis/gateway.networking.k8s.io/v1",
            "endpointslices": "apis/discovery.k8s.io/v1",
            "leases": "apis/coordination.k8s.io/v1",
        }.get(kind, "api/v1")
        return f"/{group}/namespaces/{self.api.namespace}/{kind}"

    def begin(self, **parts: Any) -> None:
        """A fresh rollout: no state, no route, no Events, every arm as at the start."""
        self.plan = {**PLAN, **parts}
        self.plan_file.write_text(yaml.safe_dump(self.plan))
        for path in (self.route, self.state, self.of("leases") + "/gptoss-rollout"):
            self.delete(path)
        self.api._json("DELETE", self.of("events"), None, {})
        for arm, count in READY.items():
            self.scale(arm, count)
        with contextlib.suppress(ClusterError):
            self.api.create(self.of("httproutes"), _neighbour())

    def scale(self, arm: str, count: int) -> None:
        """So many ready pods, in the arm's endpoints."""
        service = DOCUMENT["arms"][arm]["service"]
        for number in range(max(count, self.ready.get(arm, 0))):
            name = f"{service}-{number}"
            if number >= count:
                self.delete(f"{self.of('pods')}/{name}", gracePeriodSeconds="0")
            elif number >= self.ready.get(arm, 0):
                self._pod(arm, service, name)
        self.ready[arm] = count
        self._endpoints(service, count)

    def _pod(self, arm: str, service: str, name: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {"moe-serve.io/arm": service},
                "annotations": {"moe-serve.io/pod-spec-digest": DIGESTS[arm]},
            },
            "spec": {
                "schedulerName": "nobody",
                "containers": [{"name": "vllm", "image": "registry.invalid/vllm:1"}],
            },
        }
        self.api.create(self.of("pods"), body)
        status = {"name": "vllm", "ready": True, "restartCount": 0, "image": "vllm:1"}
        status["imageID"] = "registry.invalid/vllm@sha256:1"
        self.api.patch(
            f"{self.of('pods')}/{name}/status", {"status": {"containerStatuses": [status]}},
            Patch.MERGE,
        )  # fmt: skip

    def _endpoints(self, service: str, count: int) -> None:
        endpoints = [
            {
                "addresses": [f"192.0.2.{number + 1}"],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": f"{service}-{number}"},
            }
            for number in range(count)
        ]
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8000}],
        }
        path = self.of("endpointslices")
        self.api.patch(f"{path}/{service}", body, Patch.APPLY, fieldManager="kubelet", force="true")

    def accept_route(self) -> None:
        """What a gateway writes into the status of a route that it takes."""
        condition = {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        parent = {
            "parentRef": {"name": "inference"},
            "controllerName": "chaos.invalid/gateway",
            "conditions": [condition],
        }
        with contextlib.suppress(ClusterError):
            self.api.patch(f"{self.route}/status", {"status": {"parents": [parent]}}, Patch.MERGE)

    def weights(self) -> dict[str, int]:
        """The route's backends, by Service; nothing where there is no route."""
        try:
            found = self.api.get(self.route)
        except ClusterError:
            return {}
        return backends(found)

    def rollout(self) -> dict[str, Any]:
        """The state as it is stored; empty where there is none."""
        try:
            found: dict[str, Any] = json.loads(self.api.get(self.state)["data"]["state"])
        except ClusterError:
            return {}
        return found

    def leader_seen(self) -> str:
        """Changes with every look of a controller that leads."""
        try:
            found = self.api.get(self.of("leases") + "/gptoss-rollout")
        except ClusterError:
            return ""
        return str(found["metadata"]["resourceVersion"])

    def wish(self, **notes: str) -> None:
        """What a person leaves for the controller: `approve` a hold, `abort` a rollout."""
        named = {f"moe-serve.io/{key}": value for key, value in notes.items()}
        self.api.patch(self.state, {"metadata": {"annotations": named}}, Patch.MERGE)

    def delete(self, path: str, **query: str) -> None:
        try:
            self.api._json("DELETE", path, None, query)
        except ClusterError as error:
            if error.status != 404:
                raise

    def close(self) -> None:
        self.delete(f"/api/v1/namespaces/{self.api.namespace}")


def backends(route: dict[str, Any]) -> dict[str, int]:
    """Weights by Service, those that are not 0."""
    refs = route["spec"]["rules"][0].get("backendRefs", [])
    return {ref["name"]: ref.get("weight", 1) for ref in refs if ref.get("weight", 1)}


def _neighbour() -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": NEIGHBOUR},
        "spec": {
            "parentRefs": [{"name": "inference"}],
            "rules": [{"backendRefs": [{"name": "gptoss-1", "port": 8000, "weight": 7}]}],
        },
    }


def until(what: str, holds: Any, seconds: float = 60.0) -> float:
    """Wait until it holds; how long that took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began
