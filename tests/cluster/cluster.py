"""A cluster as tests see it: the node of `make cluster`, or the one that KUBECONFIG names."""

import contextlib
import json
import os
import secrets
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.node import binaries, images, namespaces
from tools.node.commands import run
from tools.node.errors import CommandFailed, NodeError
from tools.node.kubernetes import Kubernetes, direct
from tools.node.layout import Layout

IMAGE = os.environ.get("MOE_SERVE_IMAGE", "localhost/moe-serve:dev")
OPS_IMAGE = os.environ.get("MOE_SERVE_OPS_IMAGE", "localhost/moe-serve-ops:dev")
GATEWAY = os.environ.get("MOE_SERVE_GATEWAY", "gateway/moe-serve")
PROMETHEUS = os.environ.get("MOE_SERVE_PROMETHEUS_SERVICE", "monitoring/prometheus-operated:9090")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One cluster. `own` tells whether it is the node of `make cluster`."""

    kubernetes: Kubernetes
    layout: Layout
    own: bool

    def kubectl(self, *words: str | Path, stdin: str | None = None, seconds: float = 60) -> str:
        """What kubectl printed; `CommandFailed` quotes what it said otherwise."""
        return self.kubernetes.kubectl(*words, stdin=stdin, seconds=seconds)

    def get(self, *words: str) -> Any:
        """`kubectl get ...`, parsed."""
        return self.kubernetes.get(*words)

    def apply(self, manifest: str, *words: str) -> str:
        """Apply a manifest."""
        return self.kubernetes.apply(manifest, *words)

    def helm(self, *words: str | Path, version: int = 3, seconds: float = 300) -> str:
        """What Helm 3 (that of the development environment) or 4 printed."""
        program = Path(sys.executable).with_name("helm")
        if version == 4:
            program = binaries.built(self.layout, "helm4")
        return run([program, *words], seconds=seconds, env=direct(self.kubernetes.kubeconfig))

    def require_images(self) -> None:
        """Raise `NodeError` if this is the node of `make cluster` and lacks one of the images."""
        if self.own and (space := namespaces.find(self.layout)):
            for image in (IMAGE, OPS_IMAGE):
                images.require(space, image)

    @contextlib.contextmanager
    def namespace(self, purpose: str, *, enforce: str = "restricted") -> Iterator[str]:
        """A fresh namespace, gone at the end; what went wrong in it is kept in the logs."""
        name = f"{purpose}-{secrets.token_hex(3)}"
        label = {"pod-security.kubernetes.io/enforce": enforce}
        metadata = {"name": name, "labels": label}
        self.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
        try:
            yield name
        except BaseException:
            self.keep_evidence(name)
            raise
        finally:
            self.kubectl("delete", "namespace", name, "--timeout=90s", seconds=100)

    def keep_evidence(self, namespace: str) -> Path:
        """All that explains a failure in `namespace`, in a new file beside the node's logs."""
        self.layout.logs.mkdir(parents=True, exist_ok=True)
        kept = len(list(self.layout.logs.glob(f"{namespace}*.txt")))
        target = self.layout.logs / f"{namespace}-{kept + 1}.txt"
        parts = []
        for words in (
            ("get", "all,events,httproutes", "-o", "wide"),
            ("describe", "pods"),
            ("get", "configmaps", "-o", "yaml"),
            *(
                ("logs", pod, f"--container={container}", "--tail=200", *again)
                for pod, container in self._containers(namespace)
                for again in ((), ("--previous",))
            ),
        ):
            try:
                said = self.kubectl("--namespace", namespace, *words)
            except CommandFailed as error:
                said = str(error)
            parts.append(f"$ kubectl {' '.join(words)}\n{said}\n")
        target.write_text("\n".join(parts))
        return target

    def _containers(self, namespace: str) -> Iterator[tuple[str, str]]:
        for pod in self.get("pods", "--namespace", namespace)["items"]:
            for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
                yield pod["metadata"]["name"], container["name"]

    def gateway(self) -> tuple[dict[str, str], str] | None:
        """An HTTPRoute's parent, and the gateway's URL; None where there is none."""
        namespace, _, name = GATEWAY.partition("/")
        try:
            gateway = self.get("gateway", name, "--namespace", namespace)
            address = gateway["status"]["addresses"][0]["value"]
        except (CommandFailed, KeyError, IndexError):
            return None
        port = gateway["spec"]["listeners"][0]["port"]
        return {"name": name, "namespace": namespace}, f"http://{address}:{port}"

    def prometheus(self, query: str) -> list[dict[str, Any]] | None:
        """What the cluster's Prometheus answers to a query; None where there is no Prometheus."""
        namespace, _, service = PROMETHEUS.partition("/")
        path = f"/api/v1/namespaces/{namespace}/services/{service}/proxy/api/v1/query"
        try:
            answer = self.kubectl(
                "get", "--raw", f"{path}?{urllib.parse.urlencode({'query': query})}"
            )
        except CommandFailed:
            return None
        result: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
        return result


def find(cache: Path) -> Cluster:
    """The cluster that KUBECONFIG names, else the node whose files are in `cache`.

    Raises:
        NodeError: neither is there, or it does not answer.
    """
    layout = Layout(cache=cache)
    named = os.environ.get("KUBECONFIG")
    own = not named or Path(named).resolve() == layout.kubeconfig
    if own and namespaces.find(layout) is None:
        raise NodeError("no node runs: make cluster starts one, KUBECONFIG names another cluster")
    kubernetes = Kubernetes(
        kubeconfig=layout.kubeconfig if own else Path(named or ""),
        kubectl_program=binaries.kubectl(layout) if own else "kubectl",
    )
    try:
        kubernetes.kubectl("get", "--raw=/readyz", seconds=15)
    except CommandFailed as error:
        raise NodeError(f"{kubernetes.kubeconfig}: the cluster does not answer: {error}") from error
    return Cluster(kubernetes=kubernetes, layout=layout, own=own)
