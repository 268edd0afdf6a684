"""What runs in the cluster before anybody's work does: names, gateway, Prometheus, definitions."""

import json

from . import crds, images
from .binaries import MONITORING_IMAGES, NODE_IMAGES
from .kubernetes import Kubernetes
from .layout import MANIFESTS, Addresses, Layout
from .namespaces import Namespaces
from .waiting import wait


def load(layout: Layout, space: Namespaces) -> None:
    """Have the images of names and gateway in the node."""
    for name in NODE_IMAGES:
        images.ensure_program(layout, space, name)


def apply(cluster: Kubernetes, addresses: Addresses) -> None:
    """Names, gateway and definitions.

    Raises:
        NodeError: it names what does not serve in the end.
    """
    cluster.apply((MANIFESTS / "dns.yaml").read_text("utf-8"))
    crds.apply(cluster, *crds.ALWAYS)
    cluster.apply((MANIFESTS / "gateway.yaml").read_text("utf-8"))
    # No cloud gives the Service its outer address: on one node it is the node's own.
    status = {"status": {"loadBalancer": {"ingress": [{"ip": addresses.node}]}}}
    patch = ["patch", "service", "traefik", "--subresource=status", "-p", json.dumps(status)]
    cluster.kubectl("--namespace=gateway", *patch)
    _await(cluster, ("kube-system", "deployment/coredns"), ("gateway", "deployment/traefik"))
    cluster.kubectl(
        *("--namespace=gateway", "wait", "gateway/moe-serve"),
        *("--for=condition=Programmed", "--timeout=60s"),
        seconds=70,
    )


def monitor(layout: Layout, space: Namespaces, cluster: Kubernetes) -> None:
    """Prometheus and its operator, at once if they are there.

    Raises:
        NodeError: it names what does not serve in the end.
    """
    for name in MONITORING_IMAGES:
        images.ensure_program(layout, space, name)
    cluster.apply((MANIFESTS / "monitoring.yaml").read_text("utf-8"))
    _await(
        cluster,
        ("monitoring", "deployment/prometheus-operator"),
        ("monitoring", "statefulset/prometheus-main"),
    )


def _await(cluster: Kubernetes, *needed: tuple[str, str]) -> None:
    for namespace, name in needed:
        words = ["--namespace", namespace, "get", name, "--ignore-not-found", "-o", "name"]
        wait(lambda words=words: cluster.kubectl(*words), name)  # type: ignore[misc]
        cluster.kubectl(
            *("--namespace", namespace, "rollout", "status", name, "--timeout=120s"), seconds=130
        )
