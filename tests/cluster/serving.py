"""One arm of the real image on a CPU, as a namespace that enforces `restricted` lets it in."""

import json
from typing import Any

from tests.cluster.cluster import IMAGE, OPS_IMAGE

NAME = "gptoss"
MODEL = "gpt-oss-learned"
START_SECONDS = 300

# The model and the CPU's stand-in for AITER come out of the package that is in the image.
_PREPARE = """
import shutil
from pathlib import Path
from moe_serve_emulation import STANDIN
from moe_serve_emulation.learned.checkpoint import generate
models = Path('/models')
generate(models, 360).rename(models / 'model')
shutil.copytree(STANDIN, models / 'standin')
"""
# Harmony's vocabulary is baked into a release's image, and labelled absent in one built here.
_PREFLIGHT = [
    *("moe-serve", "preflight", "--no-gpu", "--skip=vocabulary"),
    *("--model=/models/model", "--output=json"),
]
_CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_ENVIRONMENT = {
    "PYTHONPATH": "/models/standin",
    "MOE_SERVE_EMULATE_AITER": "cktile",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
_FOLDERS = {"cache": "/var/cache/moe-serve", "models": "/models", "tmp": "/tmp", "shm": "/dev/shm"}
_ARGUMENTS = (
    "/models/model",
    f"--served-model-name={MODEL}",
    "--port=8000",
    "--enforce-eager",
    "--max-model-len=256",
    "--max-num-seqs=8",
    "--max-num-batched-tokens=256",
)


def manifest(parent: dict[str, str]) -> str:
    """A Deployment, its Service, its route below the Gateway `parent`, and its PodMonitor."""
    labels = {"app.kubernetes.io/name": "moe-serve", "app.kubernetes.io/instance": NAME}
    objects = [
        _object("apps/v1", "Deployment", _deployment(labels)),
        _object(
            "v1",
            "Service",
            {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        ),
        _object(
            "gateway.networking.k8s.io/v1",
            "HTTPRoute",
            {
                "parentRefs": [parent],
                "hostnames": [f"{NAME}.example"],
                "rules": [{"backendRefs": [{"name": NAME, "port": 80}]}],
            },
        ),
        _object("monitoring.coreos.com/v1", "PodMonitor", _monitor(labels)),
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _object(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": NAME}, "spec": spec}


def _container(name: str, image: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": _CONFINED,
        "volumeMounts": [{"name": key, "mountPath": path} for key, path in _FOLDERS.items()],
        "env": [{"name": key, "value": value} for key, value in _ENVIRONMENT.items()],
        **more,
    }


def _deployment(labels: dict[str, str]) -> dict[str, Any]:
    python = ["python3", "-c"]
    proof = ["moe-serve", "preflight", "--proof", "--ranks=1", "--url=http://127.0.0.1:8000/health"]
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 2000,
            "runAsGroup": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [
            _container("model", IMAGE, command=[*python, _PREPARE]),
            _container("preflight", IMAGE, command=_PREFLIGHT),
            _container(
                "exporter",
                OPS_IMAGE,
                restartPolicy="Always",
                args=["exporter", "--listen=0.0.0.0:9400"],
                ports=[{"name": "metrics", "containerPort": 9400}],
            ),
        ],
        "containers": [
            _container(
                "server",
                IMAGE,
                args=list(_ARGUMENTS),
                ports=[{"name": "http", "containerPort": 8000}],
                resources={
                    "requests": {"amd.com/gpu": "1", "memory": "4Gi"},
                    "limits": {"amd.com/gpu": "1", "memory": "8Gi"},
                },
                readinessProbe={
                    "exec": {"command": proof},
                    "periodSeconds": 5,
                    "timeoutSeconds": 20,
                    "failureThreshold": 1,
                },
            )
        ],
        "volumes": [
            {"name": key, "emptyDir": {"medium": "Memory"} if key == "shm" else {}}
            for key in _FOLDERS
        ],
    }
    metadata = {
        "labels": {**labels, "moe-serve.io/arm": NAME, "moe-serve.io/model": MODEL},
    }
    return {
        "replicas": 1,
        "progressDeadlineSeconds": START_SECONDS,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {"metadata": metadata, "spec": pod},
    }


def _monitor(labels: dict[str, str]) -> dict[str, Any]:
    pod_label = "__meta_kubernetes_pod_label_moe_serve_io"
    relabelings = [
        {"sourceLabels": [f"{pod_label}_arm"], "targetLabel": "arm"},
        {"sourceLabels": [f"{pod_label}_model"], "targetLabel": "model"},
        {"targetLabel": "track", "replacement": "stable"},
    ]
    return {
        "selector": {"matchLabels": labels},
        "podMetricsEndpoints": [
            {"port": port, "relabelings": relabelings} for port in ("http", "metrics")
        ],
    }
