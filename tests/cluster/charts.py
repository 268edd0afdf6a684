"""Releases of the repository's charts on a cluster."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tools.node.waiting import wait

ROOT = Path(__file__).parents[2]
RELEASE = "gptoss-1"
SERVER = f"{RELEASE}-moe-serve"


def upgrade(
    cluster: Cluster,
    namespace: str,
    *files: str,
    release: str = RELEASE,
    chart: str = "moe-serve",
    values: Mapping[str, Any] | None = None,
    words: tuple[str, ...] = (),
    seconds: float = 120,
) -> str:
    """`helm upgrade --install`, with values by dotted path."""
    command: list[str | Path] = ["upgrade", "--install", release, ROOT / "charts" / chart]
    command += ["--namespace", namespace, *words]
    for file in files:
        command += ["--values", ROOT / file]
    for path, value in (values or {}).items():
        command += ["--set-json", f"{path}={json.dumps(value)}"]
    return cluster.helm(*command, seconds=seconds)


@contextlib.contextmanager
def installed(cluster: Cluster, namespace: str, *files: str, **options: Any) -> Iterator[None]:
    """A release, gone at the end, so that its GPUs are free again."""
    upgrade(cluster, namespace, *files, **options)
    release = options.get("release", RELEASE)
    try:
        yield
    except BaseException:
        cluster.keep_evidence(namespace)
        raise
    finally:
        cluster.helm("uninstall", release, "--namespace", namespace)
        wait(
            lambda: not pods(cluster, namespace, release),
            f"{release}'s pods to be gone",
            seconds=180,
        )


def pods(cluster: Cluster, namespace: str, release: str = RELEASE) -> list[dict[str, Any]]:
    """The server's pods of a release."""
    labels = f"app.kubernetes.io/instance={release},app.kubernetes.io/component=server"
    found: list[dict[str, Any]] = cluster.get("pods", "--namespace", namespace, "-l", labels)[
        "items"
    ]
    return found


def ready(pod: Mapping[str, Any]) -> bool:
    """Whether the pod is ready and is to stay."""
    told = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return told.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def counted(cluster: Cluster, namespace: str, pod: str, metric: str) -> int:
    """The sum of a metric's series, as the server of a pod tells it itself."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}:8000/proxy/metrics"
    lines = cluster.kubectl("get", "--raw", path).splitlines()
    return int(
        sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{metric}{{"))
    )
