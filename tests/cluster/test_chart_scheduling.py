"""Where the real scheduler puts the chart's pods on simulated MI355X nodes."""

from typing import Any

import pytest

from tests.cluster.charts import RELEASE, SERVER, installed, pods, ready, upgrade
from tests.cluster.cluster import Cluster
from tools.node.fleet import SIMULATED
from tools.node.waiting import wait

pytestmark = pytest.mark.cluster

ON_SIMULATED = {
    "tolerations": [{"key": SIMULATED, "operator": "Exists"}],
    "nodeSelector": {SIMULATED: "true"},
}
TP8 = {
    "engine.tensorParallelSize": 8,
    "gpu.count": 8,
    "resources": {"cpu": "32", "memoryGiB": 192},
    "shm.sizeGiB": 20,
}


@pytest.fixture
def nodes(own_node: Cluster) -> dict[str, dict[str, Any]]:
    """The simulated nodes by name."""
    found = own_node.get("nodes", "-l", f"{SIMULATED}=true")["items"]
    if len(found) < 100:
        pytest.skip("needs 100 simulated nodes: make cluster NODES=100")
    return {node["metadata"]["name"]: node for node in found}


def whole_and_healthy(node: dict[str, Any]) -> bool:
    taints = {taint["key"] for taint in node["spec"].get("taints", [])}
    labels = node["metadata"]["labels"]
    return (
        labels["amd.com/compute-memory-partition"] == "spx_nps1"
        and labels["amd.com/gpu.device-id"] in ("75a3", "75b3")
        and taints == {SIMULATED}
    )


def places(cluster: Cluster, namespace: str, count: int) -> list[str]:
    """The nodes of a release's pods, once all of them have one."""

    def all_placed() -> list[str] | None:
        found = [pod["spec"].get("nodeName") for pod in pods(cluster, namespace)]
        return found if len(found) == count and all(found) else None

    return wait(all_placed, f"{count} pods to have a node", seconds=120)


def test_pods_of_one_gpu_land_only_on_whole_healthy_mi355x(
    own_node: Cluster, namespace: str, nodes: dict[str, dict[str, Any]]
) -> None:
    with installed(own_node, namespace, values={**ON_SIMULATED, "replicas": 120}):
        found = places(own_node, namespace, 120)
    assert {name for name in found if not whole_and_healthy(nodes[name])} == set()


def test_without_the_affinity_pods_land_on_partitions_and_other_gpus(
    own_node: Cluster, namespace: str, nodes: dict[str, dict[str, Any]]
) -> None:
    values = {**ON_SIMULATED, "replicas": 120, "gpu.nodeAffinity": False}
    with installed(own_node, namespace, values=values):
        found = places(own_node, namespace, 120)
    labels = [nodes[name]["metadata"]["labels"] for name in found]
    assert "cpx_nps4" in {each["amd.com/compute-memory-partition"] for each in labels}
    assert "74a1" in {each["amd.com/gpu.device-id"] for each in labels}


def test_pods_of_eight_gpus_take_whole_nodes(
    own_node: Cluster, namespace: str, nodes: dict[str, dict[str, Any]]
) -> None:
    with installed(own_node, namespace, values={**ON_SIMULATED, **TP8, "replicas": 20}):
        found = places(own_node, namespace, 20)
    assert len(set(found)) == 20
    assert all(whole_and_healthy(nodes[name]) for name in found)


def test_packed_pods_leave_nodes_for_eight_gpus(
    own_node: Cluster, namespace: str, nodes: dict[str, dict[str, Any]]
) -> None:
    values = {**ON_SIMULATED, "replicas": 16, "gpu.placement": "pack"}
    with installed(own_node, namespace, values=values):
        packed = len(set(places(own_node, namespace, 16)))
    with installed(own_node, namespace, values={**ON_SIMULATED, "replicas": 16}):
        spread = len(set(places(own_node, namespace, 16)))
    assert spread == 16
    assert packed <= 3  # two are enough; packing is a preference, which the scheduler weighs


# Two whole healthy nodes, full with 16 pods.
FULL = {
    **ON_SIMULATED,
    "replicas": 16,
    "gpu.nodeExpressions": [
        {
            "key": "kubernetes.io/hostname",
            "operator": "In",
            "values": ["mi355x-simulated-61", "mi355x-simulated-62"],
        }
    ],
}
CHANGED = {"engine.extraArgs": ["--seed=1"]}


def updated(cluster: Cluster, namespace: str) -> int:
    return int(
        cluster.get("deployment", SERVER, "--namespace", namespace)["status"].get(
            "updatedReplicas", 0
        )
    )


def all_ready(cluster: Cluster, namespace: str) -> bool:
    return sum(ready(pod) for pod in pods(cluster, namespace)) == 16


def test_a_full_cluster_is_updated_without_one_spare_gpu(
    own_node: Cluster, namespace: str, nodes: dict[str, dict[str, Any]]
) -> None:
    with installed(own_node, namespace, values=FULL):
        wait(lambda: all_ready(own_node, namespace), "16 ready pods", seconds=120)
        upgrade(own_node, namespace, values={**FULL, **CHANGED})
        own_node.kubectl(
            *("rollout", "status", f"deployment/{SERVER}", "--namespace", namespace),
            "--timeout=280s",
            seconds=290,
        )
        assert updated(own_node, namespace) == 16
        assert len(pods(own_node, namespace)) == 16


def test_with_a_surge_a_full_cluster_waits_forever(
    own_node: Cluster, namespace: str, nodes: dict[str, dict[str, Any]]
) -> None:
    surge = {"rollout.maxSurge": 1, "rollout.maxUnavailable": 0, "rollout.spareGpus": 1}
    with installed(own_node, namespace, values={**FULL, **surge}):
        wait(lambda: all_ready(own_node, namespace), "16 ready pods", seconds=120)
        upgrade(own_node, namespace, values={**FULL, **surge, **CHANGED})

        def refused() -> str | None:
            for pod in pods(own_node, namespace):
                for told in pod["status"].get("conditions", []):
                    if told["type"] == "PodScheduled" and told["status"] == "False":
                        return str(told["message"])
            return None

        assert "Insufficient amd.com/gpu" in wait(refused, "a pod that no node takes", seconds=120)
        assert updated(own_node, namespace) == 1
        assert sum(ready(pod) for pod in pods(own_node, namespace, RELEASE)) == 16
