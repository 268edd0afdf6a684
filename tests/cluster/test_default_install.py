"""The chart's default templates on a real node: a pod may fill its disk, and a model from a hub.

Overridden are only the image, sizes that a small machine has, and the absence of a GPU: `SMALL`,
`IMAGES` and `NO_GPU` list all of it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.charts import RELEASE, ROOT, SERVER, installed, pods, ready
from tests.cluster.cluster import IMAGE, OPS_IMAGE, Cluster
from tools.node.errors import NodeError
from tools.node.preconditions import GIB, lacking_memory
from tools.node.waiting import wait

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

MIB = 1 << 20
MIRROR = Path(__file__).with_name("hub_mirror.py").read_text("utf-8")
MODEL, PORT = "acme/gpt-oss-seeded", 8081


def image(reference: str) -> dict[str, str]:
    """A reference as the chart's values write it."""
    name, _, tag = reference.rpartition(":")
    registry, _, repository = name.partition("/")
    return {"registry": registry, "repository": repository, "tag": tag, "pullPolicy": "Never"}


IMAGES = {"image": image(IMAGE), "opsImage": image(OPS_IMAGE)}
NO_GPU: dict[str, Any] = {
    "gpu.count": 0,
    "engine.args": ["--enforce-eager", "--max-model-len=256", "--max-num-seqs=4", "--seed=0"],
    "engine.env": {
        "MOE_SERVE_EMULATE_AITER": "cktile",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ROCM_USE_AITER": "0",
        # The emulation that the image brings, instead of AITER.
        "PYTHONPATH": "/standin",
    },
    "extraVolumes": [{"name": "standin", "emptyDir": {"sizeLimit": "16Mi"}}],
    "extraVolumeMounts": [{"name": "standin", "mountPath": "/standin"}],
}
SMALL: dict[str, Any] = {
    "replicas": 1,
    "rollout.allowDowntime": True,
    "resources": {"cpu": "500m", "memoryGiB": 10, "ephemeralGiB": 1},
    "tmp.sizeGiB": 1,
    "cache.sizeGiB": 4,
    "shm.sizeGiB": 1,
}


# --- what a pod may write


# Within its volumes' sizes, and more than the old limits allowed: 1 GiB of the server's, 64 MiB of
# the exporter's.
FILL = f"""
import os, signal, sys
for path, mebibytes in (("/var/cache/moe-serve/full", 1000), ("/tmp/full", 900)):
    with open(path, "wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom({MIB}))
        file.flush()
        os.fsync(file.fileno())
print("full", flush=True)
signal.sigwait({{signal.SIGTERM}})
"""


def filler(cluster: Cluster, name: str, limit: str | None) -> str:
    """A pod of the default templates whose server fills its volumes; `limit`: another for it."""
    values = {**SMALL, **IMAGES, "gpu.count": 0, "cache.sizeGiB": 1, "resources.memoryGiB": 1,
              "preflight.enabled": False, "serviceAccount.create": False}  # fmt: skip
    command: list[str | Path] = ["template", RELEASE, ROOT / "charts" / "moe-serve"]
    for path, value in values.items():
        command += ["--set-json", f"{path}={json.dumps(value)}"]
    rendered = yaml.safe_load_all(cluster.helm(*command))
    [deployment] = [each for each in rendered if each and each["kind"] == "Deployment"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    [server] = spec["containers"]
    server |= {"image": OPS_IMAGE, "command": ["python3", "-c", FILL], "args": []}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        server.pop(probe)
    if limit:
        for kind in ("requests", "limits"):
            server["resources"][kind]["ephemeral-storage"] = limit
    spec |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def status(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("pod", name, "--namespace", namespace)["status"]
    return found


def test_full_volumes_evict_only_the_pod_with_the_old_limit(
    cluster: Cluster, namespace: str
) -> None:
    """The kubelet counts emptyDirs against the sum of the containers' limits."""
    cluster.apply(filler(cluster, "full", None), "--namespace", namespace)
    cluster.apply(filler(cluster, "control", "1Gi"), "--namespace", namespace)

    def evicted() -> dict[str, Any] | None:
        found = status(cluster, namespace, "control")
        return found if found.get("reason") == "Evicted" else None

    control = wait(evicted, "the pod with the old limit to be evicted", seconds=300)
    assert "exceeds the total limit of containers" in control["message"]
    wait(
        lambda: "full" in cluster.kubectl("logs", "full", "-cserver", "--namespace", namespace),
        "the other pod to have filled its volumes",
        seconds=300,
    )
    # As long again as an eviction took: the kubelet looks every 10 s.
    with pytest.raises(NodeError):
        wait(
            lambda: status(cluster, namespace, "full")["phase"] != "Running",
            "the pod with the chart's limit to be evicted",
            seconds=120,
        )


# --- a model from a hub

MAKE_AND_SERVE = f"""
import pathlib, sys
from moe_serve_emulation.checkpoint import CheckpointSpec, generate
folder = generate(pathlib.Path("/model"), CheckpointSpec(layers=6, experts=6))
source = pathlib.Path("/script/hub_mirror.py").read_text()
sys.argv = ["hub_mirror", "{MODEL}", str(folder), "{PORT}"]
exec(compile(source, "hub_mirror", "exec"))
"""


def mirror() -> str:
    """A pod that makes a model of a few GiB and serves it as a hub does, its script and Service."""
    labels = {"app": "mirror"}
    confined = {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    container = {
        "name": "mirror", "image": IMAGE, "imagePullPolicy": "Never",
        "command": ["python3", "-c", MAKE_AND_SERVE], "securityContext": confined,
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 5},
        "volumeMounts": [
            {"name": name, "mountPath": f"/{path}"}
            for name, path in (("model", "model"), ("script", "script"), ("tmp", "tmp"))
        ],
    }  # fmt: skip
    volumes = [
        {"name": "model", "emptyDir": {"sizeLimit": "6Gi"}}, {"name": "tmp", "emptyDir": {}},
        {"name": "script", "configMap": {"name": "mirror"}},
    ]  # fmt: skip
    pod = {
        "containers": [container], "volumes": volumes, "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 2000, "runAsGroup": 0, "fsGroup": 2000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }  # fmt: skip
    metadata = {"name": "mirror", "labels": labels}
    objects = (
        {"kind": "ConfigMap", "metadata": metadata, "data": {"hub_mirror.py": MIRROR}},
        {"kind": "Pod", "metadata": metadata, "spec": pod},
        {"kind": "Service", "metadata": metadata,
         "spec": {"selector": labels, "ports": [{"port": PORT}]}},
    )  # fmt: skip
    return yaml.safe_dump_all({"apiVersion": "v1", **each} for each in objects)


STANDIN = {
    "name": "standin",
    "image": '{{ include "moe-serve.image" . }}',
    "imagePullPolicy": "{{ .Values.image.pullPolicy }}",
    "command": [
        "python3",
        "-c",
        "import shutil\nfrom moe_serve_emulation import STANDIN\n"
        "shutil.copytree(STANDIN, '/standin', dirs_exist_ok=True)",
    ],
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
    "volumeMounts": [{"name": "standin", "mountPath": "/standin"}],
}


def test_a_model_from_a_hub_is_served_and_the_pod_stays(cluster: Cluster, namespace: str) -> None:
    cluster.require_images()
    if cluster.own:
        assert not [*lacking_memory(11 * GIB, "a server of a model of a few GiB")]
    cluster.apply(mirror(), "--namespace", namespace)
    cluster.kubectl(
        *("wait", "pod/mirror", "--for=condition=Ready", "--namespace", namespace),
        "--timeout=500s",
        seconds=510,
    )
    values = {
        **SMALL, **IMAGES, **NO_GPU,
        "model.name": MODEL,
        "engine.extraEnv": [{"name": "HF_ENDPOINT", "value": f"http://mirror:{PORT}"}],
        "extraInitContainers": [STANDIN],
        "tests.chat": False,
        "tests.minRight": 0,
        "tests.questions": [],
    }  # fmt: skip
    with installed(cluster, namespace, values=values):
        cluster.kubectl(
            *("rollout", "status", f"deployment/{SERVER}", "--namespace", namespace),
            "--timeout=900s",
            seconds=910,
        )
        # From the hub, into the pod's own cache: more than the limit was before.
        [pod] = pods(cluster, namespace)
        name = pod["metadata"]["name"]
        size = cluster.kubectl(
            *("exec", name, "-cserver", "--namespace", namespace, "--"),
            *("du", "-sm", "/var/cache/moe-serve"),
        )
        assert int(size.split()[0]) > 1024 + 64
        said = cluster.helm("test", RELEASE, "--namespace", namespace, "--logs", seconds=300)
        assert "ok    completion: 8 tokens" in said
        with pytest.raises(NodeError):
            wait(
                lambda: (
                    [each["metadata"]["name"] for each in pods(cluster, namespace)] != [name]
                    or not ready(pods(cluster, namespace)[0])
                ),
                "the pod to go",
                seconds=120,
            )


# --- what an API server validates


def test_claims_of_devices_are_what_the_api_server_takes(cluster: Cluster, namespace: str) -> None:
    values = {"gpu.allocation": "resourceClaim", "gpu.deviceSelectors": ["device.driver != ''"]}
    command: list[str | Path] = ["template", RELEASE, ROOT / "charts" / "moe-serve"]
    command += ["--namespace", namespace]
    for path, value in values.items():
        command += ["--set-json", f"{path}={json.dumps(value)}"]
    said = cluster.apply(
        cluster.helm(*command), "--namespace", namespace, "--dry-run=server", "--validate=strict"
    )
    assert "resourceclaimtemplate.resource.k8s.io" in said
    assert f"deployment.apps/{SERVER}" in said
