"""Nodes that look like MI355X nodes: labels and resources, on the real one and on simulated ones.

The labels are those of AMD's node labeller and of node feature discovery. No GPU is behind them.
"""

import json
from collections.abc import Iterator

import yaml

from .kubernetes import Kubernetes
from .namespaces import NODE_NAME

GPUS = 8
LABELS = {
    "feature.node.kubernetes.io/amd-gpu": "true",
    "amd.com/gpu.device-id": "75a3",
    "amd.com/gpu.product-name": "AMD_Instinct_MI355_OAM",
    "amd.com/gpu.vram": "288G",
    "amd.com/gpu.cu-count": "256",
    "amd.com/gpu.family": "AI",
    "amd.com/compute-memory-partition": "spx_nps1",
}
SIMULATED = "moe-serve.io/simulated"
UNHEALTHY = {"key": "amd-gpu-unhealthy", "effect": "NoSchedule"}
PARTITIONED_EVERY = 10
UNHEALTHY_EVERY = 25
OTHER_PRODUCT_EVERY = 14
MI300X = {
    "amd.com/gpu.device-id": "74a1",
    "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
    "amd.com/gpu.vram": "192G",
    "amd.com/gpu.cu-count": "304",
}


def dress(cluster: Kubernetes) -> None:
    """Give the real node the labels and the eight GPUs of an MI355X node."""
    cluster.kubectl("patch", "node", NODE_NAME, "-p", json.dumps({"metadata": {"labels": LABELS}}))
    amounts = {"amd.com/gpu": str(GPUS)}
    status = {"status": {"capacity": amounts, "allocatable": amounts}}
    cluster.kubectl("patch", "node", NODE_NAME, "--subresource=status", "-p", json.dumps(status))


def simulate(cluster: Kubernetes, count: int) -> None:
    """Have exactly `count` simulated nodes.

    Every 10th is partitioned, every 25th unhealthy, every 14th of MI300X.
    """
    found = cluster.kubectl("get", "nodes", "--selector", SIMULATED, "-o", "name").split()
    wanted = {f"node/{_name(number)}" for number in range(1, count + 1)}
    if surplus := set(found) - wanted:
        cluster.kubectl("delete", *sorted(surplus))
    if count:
        cluster.apply("---\n".join(yaml.safe_dump(node) for node in simulated(count)))


def all_ready(cluster: Kubernetes) -> bool:
    """Whether every simulated node is Ready."""
    path = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
    states = cluster.kubectl("get", "nodes", "--selector", SIMULATED, f"-ojsonpath={path}")
    return all(state == "True" for state in states.split("\n")[:-1])


def simulated(count: int) -> Iterator[dict[str, object]]:
    """The objects of the simulated nodes, numbered from 1."""
    for number in range(1, count + 1):
        partitioned = number % PARTITIONED_EVERY == 0
        name = _name(number)
        labels = {
            **LABELS,
            SIMULATED: "true",
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": f"zone-{number % 3}",
        }
        if partitioned:
            labels["amd.com/compute-memory-partition"] = "cpx_nps4"
        if number % OTHER_PRODUCT_EVERY == 0:
            labels.update(MI300X)
        amounts = {
            "cpu": "256",
            "memory": "2Ti",
            "ephemeral-storage": "10Ti",
            "pods": "110",
            "amd.com/gpu": str(GPUS * 8 if partitioned else GPUS),
        }
        # Nothing real may land here unasked: a pod that tolerates this taint only seems to run.
        taints = [{"key": SIMULATED, "value": "true", "effect": "NoSchedule"}]
        if number % UNHEALTHY_EVERY == 0:
            taints.append(UNHEALTHY)
        yield {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": taints},
            "status": {"capacity": amounts, "allocatable": amounts},
        }


def _name(number: int) -> str:
    product = "mi355x" if number % OTHER_PRODUCT_EVERY else "mi300x"
    return f"{product}-simulated-{number}"
