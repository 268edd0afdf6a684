"""The node itself: what is on it, what it looks like, and that it can be used."""

import json

import pytest

from tests.cluster.cluster import Cluster
from tools.node.errors import CommandFailed
from tools.node.namespaces import NODE_NAME
from tools.node.waiting import wait

pytestmark = pytest.mark.cluster


def _pod(name: str, *, gpus: int = 0, affinity: bool = False) -> str:
    amounts = {"amd.com/gpu": str(gpus)} if gpus else {}
    spec: dict[str, object] = {
        "containers": [
            {
                "name": "main",
                "image": "localhost/moe-serve-node/pause:built",
                "imagePullPolicy": "Never",
                "resources": {"requests": amounts, "limits": amounts},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "runAsNonRoot": True,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }
        ]
    }
    if affinity:
        spec["nodeSelector"] = {"amd.com/gpu.device-id": "75a3"}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def _running(cluster: Cluster, namespace: str, name: str) -> bool:
    return bool(cluster.get("pod", name, "--namespace", namespace)["status"]["phase"] == "Running")


def test_a_pod_that_wants_an_mi355x_and_all_its_gpus_runs_and_the_next_one_waits(
    own_node: Cluster, namespace: str
) -> None:
    for name, gpus in (("all", 8), ("one-more", 1)):
        own_node.apply(_pod(name, gpus=gpus, affinity=True), "--namespace", namespace)
        if name == "all":
            wait(lambda: _running(own_node, namespace, "all"), "the pod with 8 GPUs")

    def refused() -> str | None:
        conditions = own_node.get("pod", "one-more", "--namespace", namespace)["status"].get(
            "conditions", []
        )
        return next((c.get("message") for c in conditions if c["type"] == "PodScheduled"), None)

    assert "Insufficient amd.com/gpu" in wait(refused, "the scheduler's answer")


def test_the_kubelet_keeps_the_gpus_that_the_node_was_given(own_node: Cluster) -> None:
    status = own_node.get("node", NODE_NAME)["status"]

    assert (status["capacity"]["amd.com/gpu"], status["allocatable"]["amd.com/gpu"]) == ("8", "8")


@pytest.mark.parametrize("version", [3, 4])
def test_helm_talks_to_the_cluster(cluster: Cluster, namespace: str, version: int) -> None:
    assert cluster.helm("list", "--namespace", namespace, version=version).startswith("NAME")


def test_a_failed_command_says_what_the_server_said(cluster: Cluster) -> None:
    with pytest.raises(CommandFailed, match='namespaces "nowhere" not found'):
        cluster.get("namespace", "nowhere")
