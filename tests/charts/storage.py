"""What a pod may write to its node's disk, and what its limits allow: as the kubelet adds it up.

The kubelet evicts a pod whose containers, logs and disk-backed emptyDirs together are above the
sum of the limits of its containers (Kubernetes, pkg/kubelet/eviction/eviction_manager.go,
podEphemeralStorageLimitEviction).
"""

import re
from typing import Any

_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 10**3}
_UNITS |= {"M": 10**6, "G": 10**9, "T": 10**12}
_KEY = "ephemeral-storage"


def quantity(text: str | int) -> int:
    """Bytes of a Kubernetes quantity.

    Raises:
        AssertionError: it has another form than a number and a unit.
    """
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    assert found, text
    return int(float(found[1]) * _UNITS[found[2]])


def disk_volumes(spec: dict[str, Any]) -> int:
    """Bytes that the emptyDirs of a pod may hold on the node's disk."""
    return sum(
        quantity(volume["emptyDir"].get("sizeLimit", 0))
        for volume in spec.get("volumes", [])
        if "emptyDir" in volume and volume["emptyDir"].get("medium") != "Memory"
    )


def limit(spec: dict[str, Any], kind: str = "limits") -> int:
    """Bytes that the kubelet allows the pod, or that the scheduler keeps free for it (`requests`).

    Containers and restartable init containers add up; an init container counts with the
    restartable ones that started before it, if that is more.
    """
    running, most = 0, 0
    for each in spec.get("initContainers", []):
        size = _of(each, kind)
        if each.get("restartPolicy") == "Always":
            running += size
        most = max(most, running + (0 if each.get("restartPolicy") == "Always" else size))
    return max(most, running + sum(_of(each, kind) for each in spec["containers"]))


def own(spec: dict[str, Any]) -> int:
    """Bytes that are left to the containers' own layers and logs when every emptyDir is full."""
    return limit(spec) - disk_volumes(spec)


def _of(container: dict[str, Any], kind: str) -> int:
    return quantity(container.get("resources", {}).get(kind, {}).get(_KEY, 0))
