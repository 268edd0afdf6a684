"""What runs in the cluster before anybody's work does: names, gateway, Prometheus, definitions."""

import json

from . import crds, images
from .binaries import NODE_IMAGES
from .kubernetes import Kubernetes
from .layout import MANIFESTS, Addresses, Layout
from .namespaces import Namespaces
from .waiting import wait

_NEEDED = (
    ("kube-system", "deployment/coredns"),
    ("gateway", "deployment/traefik"),
    ("monitoring", "deployment/prometheus-operator"),
    ("monitoring", "statefulset/prometheus-main"),
)


def load(layout: Layout, space: Namespaces) -> None:
    """Have the images of everything here in the node."""
    for name in NODE_IMAGES:
        images.ensure_program(layout, space, name)


def apply(cluster: Kubernetes, addresses: Addresses) -> None:
    """Apply everything; returns before it runs."""
    cluster.apply((MANIFESTS / "dns.yaml").read_text("utf-8"))
    crds.apply(cluster, *crds.ALWAYS)
    for name in ("gateway", "monitoring"):
        cluster.apply((MANIFESTS / f"{name}.yaml").read_text("utf-8"))
    # No cloud gives the Service its outer address: on one node it is the node's own.
    status = {"status": {"loadBalancer": {"ingress": [{"ip": addresses.node}]}}}
    patch = ["patch", "service", "traefik", "--subresource=status", "-p", json.dumps(status)]
    cluster.kubectl("--namespace=gateway", *patch)


def await_all(cluster: Kubernetes) -> None:
    """Wait until all of it serves.

    Raises:
        NodeError: it names what does not.
    """
    for namespace, name in _NEEDED:
        words = ["--namespace", namespace, "get", name, "--ignore-not-found", "-o", "name"]
        wait(lambda words=words: cluster.kubectl(*words), name)  # type: ignore[misc]
        cluster.kubectl(
            *("--namespace", namespace, "rollout", "status", name, "--timeout=120s"), seconds=130
        )
    cluster.kubectl(
        *("--namespace=gateway", "wait", "gateway/moe-serve"),
        *("--for=condition=Programmed", "--timeout=60s"),
        seconds=70,
    )
