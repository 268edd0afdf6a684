"""Custom resource definitions of other projects, out of their Go modules."""

import json
from dataclasses import dataclass
from pathlib import Path

from .binaries import go
from .commands import run
from .errors import NodeError
from .kubernetes import Kubernetes


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """The definitions of one project: its module, pinned by checksum, and where in it they are."""

    module: str
    version: str
    checksum: str
    files: tuple[str, ...]


PROJECTS = {
    "gateway-api": Definitions(
        module="sigs.k8s.io/gateway-api",
        version="v1.6.2",
        checksum="h1:vh5YzKlbdBivEaLX61+APKLGRq4tZ7Fj4XfGkv08xB4=",
        files=("config/crd/standard/gateway*_*.yaml",),
    ),
    "inference-extension": Definitions(
        module="sigs.k8s.io/gateway-api-inference-extension",
        version="v1.2.0",
        checksum="h1:7H+ijrUImnW2ubcTakNgV723xDIdQx1Umv4vDVB+tTk=",
        files=("config/crd/bases/*.yaml",),
    ),
    "prometheus-operator": Definitions(
        module="github.com/prometheus-operator/prometheus-operator",
        version="v0.85.0",
        checksum="h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        files=("example/prometheus-operator-crd/*.yaml",),
    ),
    "argo-rollouts": Definitions(
        module="github.com/argoproj/argo-rollouts",
        version="v1.9.1",
        checksum="h1:+oZciUkeJYVb1vPMOhat4JQlk525j/aT2yizEkVkjLs=",
        files=("manifests/crds/*-crd.yaml",),
    ),
    "traefik": Definitions(
        module="github.com/traefik/traefik/v3",
        version="v3.7.13",
        checksum="h1:T8wy9KuaFzCkmXCqAzDy7t73pBDR1DHrJe3pqXpNXTw=",
        files=("docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml",),
    ),
    "flagger": Definitions(
        module="github.com/fluxcd/flagger",
        version="v1.36.1",
        checksum="h1:X2PumtNwZz9YSGaOtZLFm2zAKLgHhFkbNv8beg7ifyc=",
        files=("artifacts/flagger/crd.yaml",),
    ),
    "kserve": Definitions(
        module="github.com/kserve/kserve",
        version="v0.16.0",
        checksum="h1:kDkcAU5VMiZf4zhdDXH+UdAIgzXhs10GMv0d9r4qvTs=",
        files=("config/crd/full/*_*.yaml", "config/crd/full/llmisvc/*_*.yaml"),
    ),
    "keda": Definitions(
        module="github.com/kedacore/keda/v2",
        version="v2.18.0",
        checksum="h1:ttR223fii/4QJ0YvtrhcWHaEoezByb/t5CeFopjl6EI=",
        files=("config/crd/bases/*.yaml",),
    ),
}
ALWAYS = ("gateway-api", "inference-extension", "prometheus-operator")


def files(project: str) -> list[Path]:
    """The files of a project's definitions, downloaded where they are not yet.

    Raises:
        NodeError: the module cannot be had, or is not the one that was pinned.
    """
    wanted = PROJECTS[project]
    name = f"{wanted.module}@{wanted.version}"
    found = json.loads(run([go(), "mod", "download", "-json", name], seconds=300))
    if found["Sum"] != wanted.checksum:
        raise NodeError(f"{name}: its checksum is {found['Sum']}, {wanted.checksum} was expected")
    paths = [path for glob in wanted.files for path in sorted(Path(found["Dir"]).glob(glob))]
    if not paths:
        raise NodeError(f"{name}: nothing matches {', '.join(wanted.files)}")
    return paths


def apply(cluster: Kubernetes, *projects: str) -> None:
    """Have the definitions of these projects in the cluster, and served."""
    manifest = "\n---\n".join(
        path.read_text("utf-8") for project in projects for path in files(project)
    )
    cluster.apply(manifest)
    cluster.kubectl(
        *("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s"), seconds=70
    )
